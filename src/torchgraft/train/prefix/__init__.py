"""The frozen prefix of a network, computed once: found, proven, kept, and left out of the passes that follow."""

from torchgraft.train.prefix.cache import Cache, Set
from torchgraft.train.prefix.held import Held, NoRoom
from torchgraft.train.prefix.place import place_of
from torchgraft.train.prefix.prefix import Piece, Prefix, Refused, prefix_of
from torchgraft.train.prefix.record import Drifted
from torchgraft.train.prefix.training import cache_of

__all__ = [
    "Cache",
    "Drifted",
    "Held",
    "NoRoom",
    "Piece",
    "Prefix",
    "Refused",
    "Set",
    "cache_of",
    "place_of",
    "prefix_of",
]
