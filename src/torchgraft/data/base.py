"""What every kind of data is: a source named by `scheme:rest` that opens as two halves of samples with targets."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from torchgraft.errors import DataError, nearest
from torchgraft.family import gather, kind_of
from torchgraft.schema import Schema

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

__all__ = [
    "NOT_JUDGED",
    "ArraySamples",
    "DataSet",
    "DataSource",
    "Fetch",
    "Kind",
    "ListSamples",
    "Progress",
    "Samples",
    "Stream",
    "Subset",
    "Task",
    "halves",
    "hold_out",
    "labels",
    "made_split",
    "parse_data",
    "per_class",
    "usual_size",
]

VAL_SHARE = 0.2
"""The share of each class that a made split keeps for validation."""


Progress = Callable[[int, int], None]
"""Called as `progress(done, total)` while a source is opened."""


Task = Literal["classes", "labels", "regression", "mask"]
"""What targets are: one class, several labels at once, quantities, or a class for every pixel."""

Kind = Literal["image", "text", "tensor"]
"""What inputs are: pictures to be prepared, words to be cut into tokens, or tensors that are taken as they are."""

Fetch = Callable[[], tuple[Any, Any]]
"""A sample that is not decoded yet: called for `(input, target)`, it raises DataError where it can't be read."""

NOT_JUDGED = 255
"""The value of a mask's pixel that neither a loss nor a figure counts."""


class Samples(Protocol):
    """Inputs with their targets; the labels can be had without decoding an input.

    An input is a PIL image, a text or a tensor, as the set's `kind` says. A target is, and `labels` has for each
    sample: the number of a class; a tuple of 0 and 1 for several labels; a tuple of floats for quantities. For
    masks `labels` is empty, and a target is a uint8 array [H, W] of class numbers, 255 where none is judged.
    """

    @property
    def labels(self) -> Sequence[Any]: ...  # noqa: D102

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Any, Any]: ...


class Stream(ABC):
    """Samples that can only be read one after the other: a set that does not fit, or has no known end.

    It stands where `Samples` may, so that what reads a set need not know; whoever trains asks
    `isinstance(data.train, Stream)` and takes `pending`. It has no labels and no places.

    Attributes:
        length: how many samples an epoch has, unreadable ones included; None where nobody knows.
    """

    length: int | None = None

    @abstractmethod
    def pending(self, epoch: int, seed: int, *, start: int = 0) -> Iterator[Fetch]:
        """Give the samples of an epoch, none decoded yet, in an order that the epoch and the seed determine.

        A sample that can't be read raises DataError when it is called and the stream goes on behind it, so a
        process may pass over the samples of another one, and all count alike.

        Args:
            epoch: its number, from 1.
            seed: draws the order.
            start: so many samples are passed over, undecoded.
        """

    def samples(self, epoch: int, seed: int) -> Iterator[tuple[Any, Any]]:
        """Give the samples of an epoch that can be read, as (input, target)."""
        for fetch in self.pending(epoch, seed):
            try:
                yield fetch()
            except DataError:
                continue

    @property
    def labels(self) -> Sequence[Any]:
        """Nothing: the labels are not known before the samples are read."""
        return ()

    def __len__(self) -> int:
        if self.length is None:
            raise DataError(
                "nobody knows how many samples the stream has", hint="say when training ends: train.steps=1000"
            )
        return self.length

    def __getitem__(self, index: int, /) -> tuple[Any, Any]:
        raise DataError("a stream is read from its beginning: it has no sample by number")


@dataclass(frozen=True)
class DataSet:
    """An opened source.

    Attributes:
        train: samples to train on; a `Stream` where the set is read as one.
        val: samples to judge by.
        classes: names of the classes, of the labels, of the quantities, or of the classes of pixels.
        channels: of images: every one of both halves has mode L where it is 1 and RGB where it is 3. Of tensors
            [C, H, W]: C. 0 where there are none.
        size: the usual (height, width), in pixels; (0, 0) where there is none.
        split: a sentence that says where the halves come from.
        skipped: what could not be read, each as 'path: why'.
        task: what the targets are.
        kind: what the inputs are.
        notes: sentences on what was taken for granted, and how to say otherwise.
        shared: how many validation samples are, byte for byte, in the training half too, as far as was looked.
    """

    train: Samples
    val: Samples
    classes: tuple[str, ...]
    channels: int
    size: tuple[int, int]
    split: str
    skipped: tuple[str, ...] = ()
    task: Task = "classes"
    kind: Kind = "image"
    notes: tuple[str, ...] = ()
    shared: int = 0


class DataSource(Schema, ABC):
    """One kind of data; `rest` is what follows the scheme, and the scheme is the class name."""

    registry: ClassVar[dict[str, type[DataSource]]] = {}

    rest: str

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        DataSource.registry[kind_of(cls.__name__)] = cls

    def __str__(self) -> str:
        return f"{kind_of(type(self).__name__)}:{self.rest}"

    @abstractmethod
    def open(self, *, seed: int = 0, strict: bool = False, progress: Progress | None = None) -> DataSet:
        """Find the samples and split them.

        Args:
            seed: draws the validation half where the data state none.
            strict: refuse the whole source when one file of it can't be read.
            progress: called as `progress(done, total)` where the samples are read one by one.

        Raises:
            DataError: the data are not there, can't be read or are no samples with targets.
        """


def parse_data(text: str) -> DataSource:
    """Read `scheme:rest`; a path that exists, or has a '/' and no scheme before it, is a folder or a table.

    Raises:
        DataError: the scheme is unknown, or nothing follows it.
    """
    gather("torchgraft.data")
    scheme, colon, rest = text.partition(":")
    if colon and scheme in DataSource.registry:
        if not rest.strip():
            raise DataError(f"'{text}' names no data", where=text, hint=f"write what to open: {scheme}:…")
        return DataSource.registry[scheme](rest=rest)
    file = text.partition("?")[0]
    if file.lower().endswith((".csv", ".tsv")) and _is_path(file):
        return DataSource.registry["csv"](rest=text)
    if _is_path(text):
        return DataSource.registry["folder"](rest=text)
    known = sorted(DataSource.registry)
    beside = [entry.name for entry in Path().iterdir() if entry.is_dir()]
    near = nearest(scheme, known if colon else beside)
    usage = f"write one of {', '.join(f'{name}:…' for name in known)}, or a path"
    raise DataError(
        f"there is no kind of data '{scheme}'" if colon else f"'{text}' is no data source and no folder here",
        where=text,
        hint=f"{near} {usage}".strip(),
    )


def _is_path(text: str) -> bool:
    """Tell a path from a misspelt scheme: `torchvison:CIFAR10@/data` has a '/' but is no path."""
    if not text.strip():
        return False
    schemed = re.match(r"[A-Za-z_]{2,}:", text) is not None
    return Path(text).expanduser().exists() or ("/" in text and not schemed)


class ArraySamples:
    """Samples in memory: `images` is uint8 of shape [N, H, W] (grey) or [N, H, W, 3]."""

    def __init__(self, images: NDArray[np.uint8], labels: Iterable[int]) -> None:
        self.images = images
        self.labels: Sequence[int] = tuple(int(label) for label in labels)
        grey, colour = images.ndim == 3, images.ndim == 4 and images.shape[3] == 3
        if images.dtype != "uint8" or not (grey or colour) or len(images) != len(self.labels):
            raise DataError(
                f"{images.dtype} images {list(images.shape)} with {len(self.labels)} labels are no samples",
                hint="give uint8 of shape [N, H, W] or [N, H, W, 3] and N labels",
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        from PIL import Image

        return Image.fromarray(self.images[index]), self.labels[index]


class ListSamples:
    """Inputs in memory that are given as they are: texts, tensors or images."""

    def __init__(self, items: Sequence[Any], labels: Iterable[Any]) -> None:
        self.items = items
        self.labels: Sequence[Any] = tuple(labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self.items[index], self.labels[index]


class Subset:
    """Some of another set's samples, in the order of `indices`."""

    def __init__(self, samples: Samples, indices: Iterable[int]) -> None:
        self.samples = samples
        self.indices = tuple(indices)
        known = samples.labels
        self.labels: Sequence[Any] = tuple(known[index] for index in self.indices) if len(known) else ()

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self.samples[self.indices[index]]


def labels(samples: Samples) -> list[Any]:
    """List the label of every sample; no input is decoded."""
    return list(samples.labels)


def per_class(samples: Samples, count: int, seed: int = 0) -> Samples:
    """Keep `count` samples of each class, or all where a class has fewer, in their order.

    The same seed draws the same samples, and a smaller count draws from those of a larger one.

    Raises:
        DataError: the samples are not of one class each.
    """
    if count < 1:
        raise DataError(f"{count} samples a class leave nothing to train on", hint="ask for 1 or more")
    if not all(isinstance(label, int) for label in samples.labels) or len(samples.labels) != len(samples):
        raise DataError("so many samples a class are asked for, but a sample has no one class", "train.per_class")
    keys = [str(index) for index in range(len(samples))]
    drawn = [index for members in _ranked(samples.labels, keys, seed) for index in members[:count]]
    return Subset(samples, sorted(drawn))


def hold_out(
    labels: Sequence[int], *, seed: int, where: str, keys: Sequence[str] | None = None
) -> tuple[list[int], list[int]]:
    """Give the indices of train and of val, 20 % of each class and at least one where it has two.

    Each sample is drawn by the hash of its key, so neither the order of the samples nor what else is there
    moves it from one half to the other (but for the last of a class when the class grows).
    """
    names = keys if keys is not None else [str(index) for index in range(len(labels))]
    val: set[int] = set()
    for members in _ranked(labels, names, seed):
        if len(members) > 1:
            val.update(members[: max(1, round(len(members) * VAL_SHARE))])
    if not val:
        raise DataError(
            "no class has two samples, so none can be kept for validation",
            where=where,
            hint="add samples to the classes",
        )
    return [index for index in range(len(labels)) if index not in val], sorted(val)


def halves(
    labels: Sequence[Any], *, task: Task, seed: int, where: str, keys: Sequence[str]
) -> tuple[list[int], list[int]]:
    """Give the indices of train and of val: `hold_out` by class, or of all samples alike for another task."""
    if task == "classes":
        return hold_out(labels, seed=seed, where=where, keys=keys)
    if len(keys) < 2:
        raise DataError("there is one sample only, so none can be kept for validation", where, "add samples")
    return hold_out([0] * len(keys), seed=seed, where=where, keys=keys)


def made_split(seed: int, task: Task = "classes") -> str:
    """Say how `hold_out` splits."""
    whole = "each class" if task == "classes" else "the samples"
    return f"made: {VAL_SHARE * 100:.0f} % of {whole}, seed {seed}"


def _ranked(labels: Sequence[int], keys: Sequence[str], seed: int) -> list[list[int]]:
    """Group the indices by class, each group in the order that the seed draws."""
    groups: defaultdict[int, list[tuple[bytes, int]]] = defaultdict(list)
    for index, (label, key) in enumerate(zip(labels, keys, strict=True)):
        # a hash and not `random.shuffle`: no release of Python can change what a seed draws
        digest = blake2b(f"{seed}\0{key}".encode("utf-8", "surrogateescape"), digest_size=16).digest()
        groups[label].append((digest, index))
    return [[index for _, index in sorted(groups[label])] for label in sorted(groups)]


def usual_size(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Give the (height, width) that most of the images have, or the medians where no size has a majority."""
    size, count = Counter(sizes).most_common(1)[0]
    if count * 2 > len(sizes):
        return size
    return round(median(height for height, _ in sizes)), round(median(width for _, width in sizes))
