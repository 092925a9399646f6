"""Where kept states live: versions of a graft, and the checkpoints of a training."""

from torchgraft.store.checkpoint import load_state, save_state
from torchgraft.store.manifest import Manifest
from torchgraft.store.store import Store
from torchgraft.store.tensors import digest, state_digest

__all__ = ["Manifest", "Store", "digest", "load_state", "save_state", "state_digest"]
