"""States that no single process holds: every process writes its part, and one small file makes the whole count.

The parts are safetensors, by torch.distributed.checkpoint: nothing on the disk is pickled, so reading runs no
code. Each state goes to a folder of its own; `state.json` names the one that counts, with the sha256 of each of
its files, and is moved into place when all of them are on the disk. Every machine must see the folder.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor, Shard, zeros

from torchgraft.errors import StoreError
from torchgraft.store.files import explained, make_folder, write_files
from torchgraft.store.tensors import dtype_name
from torchgraft.train.many.apart import needed
from torchgraft.train.snapshot import Snapshot

if TYPE_CHECKING:
    from torchgraft.train.world import World

__all__ = ["Shards"]

_DAMAGED = "bring it back from a copy, or begin again without --resume"


class Shards:
    """The states of one training, shared out among files.

    Args:
        folder: of this training's states.
        world: the processes that write them, or read them: these may be more or fewer.
    """

    def __init__(self, folder: Path, world: World) -> None:
        self.folder, self.world = folder, world
        plain = StagingOptions(
            use_pinned_memory=False, use_shared_memory=False, use_async_staging=False, use_non_blocking_copy=False
        )
        self._stager = DefaultStager(plain)

    @property
    def state(self) -> Path:
        """The file that says which state counts."""
        return self.folder / "state.json"

    @property
    def exists(self) -> bool:
        """Whether there is a state."""
        return self.state.exists()

    def copied(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copy this process's parts to the processor, so that training may go on while they are written."""
        staged: Any = self._stager.stage({name: one.detach() for name, one in tensors.items()})
        return dict(staged)

    def write(self, snapshot: Snapshot, best: Mapping[str, Tensor], number: int) -> None:
        """Write a state; killed at any moment, the last one still counts. Every process calls it.

        Args:
            snapshot: of this process, with what it has for itself under its own names.
            best: the best state so far, where it is a new one.
            number: of its epoch; 0 where none is kept.

        Raises:
            StoreError: some process can't write its part.
        """
        kept = self._known().get("best") if number and self.world.writes else None
        parts = {
            "best": self._part(best, f"best-{number}") if best else kept,
            "state": self._part(snapshot.tensors, "state"),
        }
        if self.world.writes:
            text = json.dumps({**parts, "notes": snapshot.notes}, separators=(",", ":"))
            with explained("the state can't be saved", self.folder):
                write_files([(self.state, [text.encode()])])
            self._tidy({one["folder"] for one in parts.values() if one})

    def read(self) -> tuple[Snapshot, dict[str, Tensor]]:
        """Give the state that counts, and the best one: in as many parts as there are processes now.

        Raises:
            StoreError: it is damaged, or not every process sees it.
        """
        try:
            known = json.loads(self.state.read_bytes())
        except (OSError, ValueError) as error:
            raise StoreError(
                f"the state can't be read: {error}", str(self.state), "every machine must see this folder"
            ) from error
        for one in (known["state"], known["best"]):
            self._check(one)
        processes = int(known["notes"]["processes"])
        best = self._load(known["best"], processes) if known["best"] else {}
        return Snapshot(self._load(known["state"], processes), known["notes"]), best

    def _known(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(self.state.read_bytes())
            return found
        except (OSError, ValueError):
            return {}

    def _part(self, tensors: Mapping[str, Tensor], word: str) -> dict[str, Any]:
        """Write this process's part of some tensors, and give what reading them takes."""
        folder = self.folder / self._agreed(f"{word}-{secrets.token_hex(4)}")
        failed = ""
        try:
            with explained("the state can't be saved", self.folder):
                make_folder(folder)
        except StoreError as error:
            failed = error.what
        self._raise_together(failed, folder)
        writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
        try:
            save(dict(tensors), storage_writer=writer, process_group=self.world.side)
        except CheckpointException as error:
            raise StoreError(f"the state can't be saved: {_first(error)}", str(folder), "make room") from error
        found = self._all(
            ({**_sealed(folder, self.world.rank)}, {name: _layout(one) for name, one in tensors.items()})
        )
        files = {name: seal for one, _ in found for name, seal in one.items()}
        layout = {name: value for _, one in found for name, value in one.items()}
        return {"folder": folder.name, "files": files, "layout": layout}

    def _check(self, part: dict[str, Any] | None) -> None:
        """Compare every file with its seal; the processes share the work."""
        if part is None:
            return
        folder = self.folder / part["folder"]
        names = sorted(part["files"])[self.world.rank :: self.world.size]
        bad = [name for name in names if _seal(folder / name) != part["files"][name]]
        self._raise_together(f"the file is damaged or missing: {bad[0]}" if bad else "", folder)

    def _load(self, part: dict[str, Any], processes: int) -> dict[str, Tensor]:
        layout = part["layout"]
        tensors = {name: self._empty(*layout[name]) for name in needed(layout, processes, self.world)}
        reader = HuggingFaceStorageReader(str(self.folder / part["folder"]))
        with warnings.catch_warnings():  # one process alone may read what several wrote
            warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)
            load(tensors, storage_reader=reader, process_group=self.world.side, no_dist=self.world.size == 1)
        return tensors

    def _empty(self, kind: str, shape: list[int], split: int | None) -> Tensor:
        dtype = getattr(torch, kind)
        if split is None or self.world.mesh is None:
            return torch.zeros(shape, dtype=dtype)
        return zeros(*shape, dtype=dtype, device_mesh=self.world.mesh, placements=[Shard(split)])

    def _tidy(self, kept: set[str]) -> None:
        """Remove what counts no more: older states, and rests of processes that were killed."""
        for old in self.folder.iterdir():
            if old.is_dir() and old.name not in kept:
                shutil.rmtree(old, ignore_errors=True)
        for old in self.folder.glob("*.safetensors"):  # of a training in one process, which went on here
            old.unlink(missing_ok=True)

    def _agreed(self, name: str) -> str:
        return str(self._all(name)[0])

    def _raise_together(self, failed: str, where: Path) -> None:
        """Let all processes stop where one has to."""
        first = next((one for one in self._all(failed) if one), "")
        if first:
            raise StoreError(first, str(where), _DAMAGED)

    def _all(self, value: Any) -> list[Any]:
        if self.world.size == 1:
            return [value]
        found: list[Any] = [None] * self.world.size
        dist.all_gather_object(found, value, group=self.world.side)
        return found


def _layout(tensor: Tensor) -> tuple[str, list[int], int | None]:
    split = (
        next((one.dim for one in tensor.placements if isinstance(one, Shard)), None)
        if isinstance(tensor, DTensor)
        else None
    )
    return dtype_name(tensor), list(tensor.shape), split


def _sealed(folder: Path, rank: int) -> dict[str, str]:
    return {one.name: _seal(one) for one in folder.glob(f"shard-{rank + 1:05d}-*.safetensors")}


def _seal(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _first(error: CheckpointException) -> str:
    return "; ".join(sorted({str(one[0]) for one in error.failures.values()}))
