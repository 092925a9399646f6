"""Samples read and prepared, here or in worker processes; what can't be read is named, and left out."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from torchgraft.errors import DataError, TorchgraftWarning, TrainError
from torchgraft.train.draws import isolated, mixed

__all__ = ["Collate", "Load", "Reader", "Readers", "Skipping", "Work", "keys_of", "targets_of", "together"]

Collate = Callable[[Sequence[Any]], Any]
"""Makes one batch of prepared inputs."""

Key = tuple[int, int]
"""What random numbers a sample is varied by: the epoch or the variant, and its place."""


@dataclass(frozen=True, slots=True)
class Work:
    """Samples to be read together.

    Attributes:
        fetches: each gives (input, target); or the place of a sample in the set.
        keys: one for each.
    """

    fetches: Sequence[Any]
    keys: Sequence[Key]


@dataclass(slots=True)
class Load:
    """What came of it.

    Attributes:
        good: which of the samples could be read, by their place in the work.
        inputs: of those, stacked into one tensor [n, …] where they are tensors of one shape; else a list.
        targets: likewise.
        bad: what could not be read and why, by its place in the work.
        broken: why a sample that was read can't be prepared; empty where all is well.
    """

    good: list[int] = field(default_factory=list)
    inputs: Any = None
    targets: Any = None
    bad: dict[int, str] = field(default_factory=dict)
    broken: str = ""

    def pin_memory(self) -> Load:
        """Put the tensors where a GPU fetches them without waiting; torch's DataLoader calls this."""
        for name in ("inputs", "targets"):
            value = getattr(self, name)
            if isinstance(value, Tensor):
                setattr(self, name, value.pin_memory())
        return self


class Reader(Dataset[Load]):
    """Reads samples and prepares them; each draws random numbers of its own, whoever reads it and when.

    Args:
        samples: what places are looked up in; None where the work brings its samples.
        prepare: from an input to what is collated; or from an input and its target to both, where `paired`.
        seed: of all random numbers.
        paired: the target is prepared with the input, as a mask is with its image.
    """

    def __init__(
        self, samples: Any, prepare: Callable[..., Any], *, seed: int, paired: bool, stacked: bool
    ) -> None:
        self._samples = samples
        self._prepare = prepare
        self._seed = seed
        self._paired = paired
        self._stacked = stacked

    def __getitem__(self, work: Work) -> Load:
        load = Load()
        inputs: list[Any] = []
        targets: list[Any] = []
        with isolated() as chance:
            for place, (fetch, key) in enumerate(zip(work.fetches, work.keys, strict=True)):
                chance.seed(mixed(self._seed, *key))
                try:
                    value, target = self._read(fetch)
                except Exception as error:  # decoders raise nearly anything on a broken file
                    load.bad[place] = _reason(error, key)
                    continue
                try:
                    value, target = self._prepared(value, target)
                except Exception as error:  # it may be anybody's; a traceback can't leave a worker whole
                    load.broken = f"{_name(key)} can't be prepared: {type(error).__name__}: {error}"
                    return load
                load.good.append(place)
                inputs.append(value)
                targets.append(target)
        load.inputs, load.targets = self._together(inputs, targets)
        return load

    def draws(self, fetches: Iterable[Any]) -> bool:
        """Tell whether reading and preparing draws random numbers, by the first sample that can be read."""
        with isolated() as chance:
            for fetch in fetches:
                with contextlib.suppress(Exception):  # read in earnest, it is said
                    return chance.drawn_by(mixed(self._seed, "probe"), lambda: self._prepared(*self._read(fetch)))  # noqa: B023
        return False

    def _read(self, fetch: Any) -> tuple[Any, Any]:
        value, target = fetch() if self._samples is None else self._samples[fetch]
        if hasattr(value, "load") and hasattr(value, "mode"):
            value.load()  # a PIL image may put off its decoding
        return value, target

    def _prepared(self, value: Any, target: Any) -> tuple[Any, Any]:
        return self._prepare(value, target) if self._paired else (self._prepare(value), target)

    def _together(self, inputs: list[Any], targets: list[Any]) -> tuple[Any, Any]:
        if not self._stacked or not inputs or not all(isinstance(one, Tensor) for one in inputs):
            return inputs, targets
        if len({(one.shape, one.dtype) for one in inputs}) > 1:
            return inputs, targets
        return torch.stack(inputs), targets_of(targets)


def targets_of(targets: Sequence[Any]) -> Any:
    """Make one tensor of targets: numbers of classes [n] long, quantities and labels [n, …] as floats."""
    first = targets[0]
    if isinstance(first, Tensor):
        return torch.stack([one.as_subclass(Tensor) for one in targets])
    if isinstance(first, int):
        return torch.tensor(targets)
    if isinstance(first, (float, tuple, list)):
        return torch.tensor(targets, dtype=torch.float32)
    return default_collate(list(targets))


def together(inputs: Any, targets: Any, collate: Collate | None) -> tuple[Any, Any]:
    """Make a batch of what was read: what is a tensor already stays."""
    if not isinstance(targets, Tensor):
        targets = targets_of(targets)
    if isinstance(inputs, Tensor):
        return inputs, targets
    try:
        return (collate or default_collate)(inputs), targets
    except RuntimeError as error:
        shapes = sorted({str(list(one.shape)) for one in inputs if isinstance(one, Tensor)})
        if collate is not None or len(shapes) < 2:
            raise
        what = f"inputs of shapes {', '.join(shapes[:3])} can't go into one batch"
        raise DataError(what, where="train.data", hint="let the dataset give tensors of one shape") from error


def keys_of(chance: int, places: Sequence[int]) -> list[Key]:
    """Give the keys of samples by the epoch, or the variant, that they are drawn for."""
    return [(chance, place) for place in places]


def _name(key: Key) -> str:
    return f"sample {key[1]}"


def _reason(error: Exception, key: Key) -> str:
    """Say in one line which sample can't be read, and why."""
    if isinstance(error, DataError):
        return error.what
    return f"{_name(key)}: {' '.join(str(error).split()) or type(error).__name__}"


class Readers:
    """A reader in this process, or copies of it in workers that read ahead; what comes out is the same.

    Args:
        reader: what reads.
        workers: how many processes; 0 reads when asked.
        pin: put tensors where a GPU fetches them without waiting.
    """

    def __init__(self, reader: Reader, workers: int, *, pin: bool) -> None:
        self.reader = reader
        self._workers, self._pin = workers, pin
        self._queue = _Queue()
        self._loader: DataLoader[Load] | None = None

    def run(self, works: Iterable[Work]) -> Iterator[Load]:
        """Give what comes of each work, in their order.

        Raises:
            TrainError: a worker died.
        """
        if not self._workers:
            return map(self.reader.__getitem__, works)
        if self._loader is None:
            self._loader = self._started()
        self._queue.works = works
        return self._worked(self._loader)

    def rest(self) -> None:
        """Let the workers go, for there is nothing more to read; they are started again if need be."""
        self._loader = None

    def _started(self) -> DataLoader[Load]:
        return DataLoader(
            self.reader,
            batch_size=None,
            sampler=self._queue,
            num_workers=self._workers,
            persistent_workers=True,
            collate_fn=_as_it_is,
            pin_memory=self._pin,
            generator=torch.Generator().manual_seed(0),  # opening an iterator would draw from the global one
        )

    def _worked(self, loader: DataLoader[Load]) -> Iterator[Load]:
        try:
            yield from loader
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            why = " ".join(str(error).split())
            hint = "it may have had too little memory: take fewer workers, or none (train.workers=0)"
            raise TrainError(f"a worker that reads samples died: {why}", "train.workers", hint) from error


class _Queue:
    """What the workers are to read; torch's DataLoader takes from it as they get free."""

    works: Iterable[Work] = ()

    def __iter__(self) -> Iterator[Work]:
        return iter(self.works)


def _as_it_is(load: Any) -> Any:
    return load


class Skipping:
    """Counts what could not be read; it is said once, or refused where the plan is strict."""

    def __init__(self, *, strict: bool) -> None:
        self.strict = strict
        self.named: list[str] = []

    def note(self, load: Load) -> None:
        """Take up what a load could not read.

        Raises:
            DataError: a sample can't be prepared; or can't be read, and the plan is strict.
        """
        if load.broken:
            raise DataError(load.broken, where="train.data", hint="what prepares it must take every sample")
        for why in load.bad.values():
            if self.strict:
                raise DataError(why, where="train.data", hint="mend or remove it, or leave out strict: true")
            if why not in self.named:
                self.named.append(why)
                if len(self.named) == 1:
                    rest = "it is left out, and so is every other that can't be read"
                    warnings.warn(f"{why}: {rest}", TorchgraftWarning, stacklevel=4)
