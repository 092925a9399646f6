"""One training state in one file: the `last` and the `best` of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torchgraft.errors import StoreError
from torchgraft.store.codec import damaged, decode, encode, size
from torchgraft.store.files import explained, is_stale, make_folder, write_files
from torchgraft.store.tensors import state_digest, summed, ties

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["load_state", "save_state"]

_TIES = "torchgraft.ties"
_SEAL = "torchgraft.sha256"


def save_state(path: str | Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a state to one safetensors file; killed at any moment, the file is the old one or the new one.

    A tensor under several names is stored once. Values that can't be stored and files that can't be written
    are StoreErrors, and leave what was there before.
    """
    path = Path(path)
    for key in (_TIES, _SEAL):
        if key in metadata:
            raise StoreError("torchgraft keeps this metadata key for itself", key, "choose another key")
    tied = ties(state)
    once = {name: tensor for name, tensor in state.items() if name not in tied}
    notes = {**metadata, _TIES: json.dumps(tied)}
    notes[_SEAL] = _seal(once, notes)
    with explained(f"{path.name} can't be saved", path.parent, needed=sum(map(size, once.values()))):
        make_folder(path.parent)
        for rest in path.parent.glob(".*.tmp"):
            if rest.name.startswith(f".{path.name}.") and is_stale(rest):
                rest.unlink(missing_ok=True)
        write_files([(path, encode(once, notes))])


def load_state(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Open a saved state, memory-mapped and verified: the tensors, tied as they were, and the metadata."""
    path = Path(path)
    tensors, notes = decode(path)
    if notes.pop(_SEAL, None) != _seal(tensors, notes):
        raise damaged(path, "its content is not what save_state wrote")
    tied: dict[str, str] = json.loads(notes.pop(_TIES))
    return tensors | {name: tensors[owner] for name, owner in tied.items()}, notes


def _seal(tensors: Mapping[str, Tensor], notes: Mapping[str, str]) -> str:
    return summed({"tensors": state_digest(tensors), "notes": summed(notes)})
