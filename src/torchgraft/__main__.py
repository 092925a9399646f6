"""`python -m torchgraft`, for torchrun and the like."""

from torchgraft.cli import main

main()
