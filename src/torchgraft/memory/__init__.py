"""The memory that training takes, predicted without running it."""

from __future__ import annotations

from torchgraft.memory.data import Held, Memory, Remedy
from torchgraft.memory.room import Room, room_of
from torchgraft.memory.verb import memory

__all__ = ["Held", "Memory", "Remedy", "Room", "memory", "room_of"]
