"""The command line: it reads arguments, calls the library, prints. No torch is imported to start it."""

from torchgraft.cli.main import main

__all__ = ["main"]
