"""The frozen prefix of a network, computed once: found, proven, kept, and left out of the passes that follow."""

from torchgraft.train.prefix.prefix import Drifted, Piece, Prefix, Refused, prefix_of

__all__ = ["Drifted", "Piece", "Prefix", "Refused", "prefix_of"]
