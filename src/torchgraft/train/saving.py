"""The state of a training on disk: written beside the training, whole or not at all, found again by its recipe.

Of one training there is one `state.safetensors`, and one `best-N.safetensors` where the best state is kept. A
state is written beside its place and moved into it, the best before the state that names it, so that at every
moment one whole state lies there.
"""

from __future__ import annotations

import json
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchgraft.errors import StoreError, TorchgraftWarning, TrainError
from torchgraft.store.checkpoint import load_state, save_state
from torchgraft.store.files import alone, explained, make_folder
from torchgraft.train.snapshot import Snapshot, to_cpu
from torchgraft.train.world import ALONE, World

if TYPE_CHECKING:
    from torch import Tensor

    from torchgraft.recipe import Recipe
    from torchgraft.train.many.shards import Shards

__all__ = ["Saver", "has_state", "key_of", "only_one", "states_in"]

_FREE = ("workers", "save_every", "log", "timeout", "device", "cache", "cache_limit", "parallel", "strict")
"""What of the plan may be another when a training goes on: no number of it depends on these."""

WHOLE, SHARED = "state.safetensors", "state.json"
"""The file that holds the state, or that names the parts which hold it: there is one of them."""

_SHARE = 20
"""An epoch that ends sooner after the last save than so many times what that took is not saved by itself."""


def key_of(recipe: Recipe) -> str:
    """Name a training by what it computes: the recipe without what changes no number."""
    plan = recipe.train
    assert plan is not None
    free = {name: type(plan).model_fields[name].default for name in _FREE}
    text = recipe.model_copy(update={"train": plan.model_copy(update=free)}).to_yaml()
    return blake2b(text.encode(), digest_size=6).hexdigest()


def has_state(folder: Path) -> bool:
    """Tell whether a training can be gone on with from the states of a folder."""
    return any((folder / name).exists() for name in (WHOLE, SHARED))


def states_in(folder: Path) -> Path:
    """Give where a run's folder keeps the states of unfinished trainings."""
    return folder / "states"


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Let one process alone train what has its states in a folder, while the block runs.

    Raises:
        TrainError: another one does.
        StoreError: nothing can be written there.
    """
    home, name = folder.parent, f".{folder.name}.lock"
    with ExitStack() as held:
        with explained("the states of the training can't be kept", home):
            make_folder(home)
            try:
                held.enter_context(alone(home, name, wait=False))
            except BlockingIOError as error:
                raise TrainError(
                    "another process trains this recipe in the same folder right now",
                    where=str(folder),
                    hint="wait until it ends, or give this one another folder: out",
                ) from error
        held.callback(_removed, home / name)
        yield


def _removed(path: Path) -> None:
    with suppress(OSError):  # Windows removes no file that is open
        path.unlink(missing_ok=True)


class Saver:
    """Saves the states of one training, in a thread of its own.

    Args:
        folder: of this training's states.
        every: seconds between two of them, at least.
        world: the processes that train; the first one says when, and writes, unless they share the model out.
        shares: each process writes its part.

    Attributes:
        about: what is written beside each state, to know whether one may go on from it.
    """

    def __init__(self, folder: Path, every: float, *, world: World = ALONE, shares: bool = False) -> None:
        self.folder, self.every, self.world = folder, every, world
        self.shards = _shards(folder, world) if shares and world.size > 1 else None
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="saving")
        self.running: Future[float] | None = None
        self.last, self.took = time.monotonic(), 0.0
        self.saved_best = 0
        self.about: dict[str, Any] = {}

    @property
    def state(self) -> Path:
        """The file of the state."""
        return self.folder / WHOLE if self.shards is None else self.shards.state

    def _best(self, epoch: int) -> Path:
        return self.folder / f"best-{epoch}.safetensors"

    def due(self, *, epoch: bool = False) -> bool:
        """Tell whether it is time to save; at the end of an epoch earlier than within it."""
        if not self.world.writes:
            return False
        gone = time.monotonic() - self.last
        wanted = min(self.every, _SHARE * self.took) if epoch else self.every
        return gone >= wanted and (self.running is None or self.running.done())

    def save(self, snapshot: Snapshot, best: Mapping[str, Tensor], *, wait: bool = False) -> None:
        """Save a state: copied now, written meanwhile.

        Args:
            snapshot: of the training.
            best: the best state so far; written where it is a new one.
            wait: until it is on the disk.

        Raises:
            StoreError: it can't be written, where it is waited for; else a warning says so, and training goes on.
        """
        if self.shards is None and not self.world.writes:
            return
        self._settle()
        number = int(snapshot.notes["best"])
        copy = to_cpu if self.shards is None else self.shards.copied
        fresh = copy(best) if best and number != self.saved_best else {}
        copied = Snapshot(copy(snapshot.tensors), snapshot.notes)
        self.running = self.pool.submit(self._write, copied, fresh, number if best else 0)
        self.last = time.monotonic()
        if wait:
            running, self.running = self.running, None
            self.took = running.result()

    def _write(self, snapshot: Snapshot, fresh: Mapping[str, Tensor], best: int) -> float:
        start = time.monotonic()
        notes = {**snapshot.notes, "about": self.about}
        with explained("the state of the training can't be written", self.folder):
            if self.shards is not None:
                self.shards.write(Snapshot(snapshot.tensors, notes), fresh, best)
                self.saved_best = best
            else:
                self._write_whole(Snapshot(snapshot.tensors, notes), fresh, best)
        return time.monotonic() - start

    def _write_whole(self, snapshot: Snapshot, fresh: Mapping[str, Tensor], best: int) -> None:
        """Write a state as one file, then remove what it makes old."""
        if fresh:
            save_state(self._best(best), fresh, {})
            self.saved_best = best
        save_state(self.state, snapshot.tensors, {"notes": json.dumps(snapshot.notes)})
        for old in self.folder.glob("best-*.safetensors"):
            if old != self._best(best):
                old.unlink(missing_ok=True)
        if (self.folder / SHARED).exists():  # of processes that shared the model out: it is older now
            (self.folder / SHARED).unlink()
            for parts in (one for one in self.folder.iterdir() if one.is_dir()):
                shutil.rmtree(parts, ignore_errors=True)

    def _settle(self) -> None:
        """Wait for the last save, and say where it failed."""
        if self.running is None:
            return
        try:
            self.took = self.running.result()
        except StoreError as error:
            warnings.warn(f"{error}\nTraining goes on.", TorchgraftWarning, stacklevel=3)
        self.running = None

    def load(self) -> tuple[Snapshot, dict[str, Tensor]]:
        """Give the state to go on from, and the best state so far; where there is none, one that was set aside.

        Raises:
            TrainError: there is none.
            StoreError: it is damaged.
        """
        shared, whole = self.folder / SHARED, self.folder / WHOLE
        if self.world.writes:
            self._bring_back()
            self._sweep()
        self.world.meet()
        if shared.exists():
            snapshot, kept = _shards(self.folder, self.world).read()
            self.saved_best = int(snapshot.notes["best"]) if kept and self.shards is not None else 0
            return snapshot, kept
        if not whole.exists():
            raise TrainError(
                "no unfinished training of this recipe is kept here",
                where=str(self.folder.parent),
                hint="leave --resume out to begin; a finished one leaves none, a changed recipe is another one",
            )
        tensors, metadata = load_state(whole)
        notes: dict[str, Any] = json.loads(metadata["notes"])
        best = self._best(int(notes["best"]))
        self.saved_best = int(notes["best"]) if best.exists() and self.shards is None else 0
        return Snapshot(tensors, notes), load_state(best)[0] if best.exists() else {}

    def _bring_back(self) -> None:
        """Where a new training has no state yet, the one that it put aside last is the one to go on with."""
        aside = [one for one in self.folder.parent.glob(f"{self.folder.name}.*") if has_state(one)]
        if has_state(self.folder) or not aside:
            return
        with explained("the training that was set aside can't be brought back", self.folder):
            shutil.rmtree(self.folder, ignore_errors=True)
            max(aside, key=lambda one: int(one.suffix[1:])).rename(self.folder)

    def _sweep(self) -> None:
        """Remove what a process that was killed had half written; nobody else writes here."""
        for rest in self.folder.glob(".*.tmp"):
            rest.unlink(missing_ok=True)

    def set_aside(self) -> Path | None:
        """Move an unfinished training out of the way of a new one, and say where it lies now."""
        if not has_state(self.folder):
            return None
        number = 1
        while (aside := self.folder.with_name(f"{self.folder.name}.{number}")).exists():
            number += 1
        with explained("the unfinished training there can't be set aside", self.folder):
            self.folder.rename(aside)
        return aside

    def close(self) -> None:
        """Wait for what is being written."""
        self._settle()
        self.pool.shutdown()

    def drop(self) -> None:
        """Remove the states of a training that is finished."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _shards(folder: Path, world: World) -> Shards:
    from torchgraft.train.many.shards import Shards

    return Shards(folder, world)
