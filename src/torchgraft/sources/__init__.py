"""Where base models come from: one file a scheme."""

from torchgraft.sources.base import Base, Source, parse_source

__all__ = ["Base", "Source", "parse_source"]
