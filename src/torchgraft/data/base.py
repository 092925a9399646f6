"""What every kind of data is: a source named by `scheme:rest` that opens as two halves of labelled images."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from torchgraft.errors import DataError, nearest
from torchgraft.family import gather, kind_of
from torchgraft.schema import Schema

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

__all__ = [
    "ArraySamples",
    "DataSet",
    "DataSource",
    "Progress",
    "Samples",
    "Subset",
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


class Samples(Protocol):
    """Images with the index of their class; the labels can be had without decoding an image."""

    @property
    def labels(self) -> Sequence[int]: ...  # noqa: D102

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Image.Image, int]: ...


@dataclass(frozen=True)
class DataSet:
    """An opened source. Every image of both halves has mode L where `channels` is 1 and RGB where it is 3.

    `size` is (height, width), `split` a sentence that says where the halves come from, `skipped` the files
    that could not be read, each as 'path: why'.
    """

    train: Samples
    val: Samples
    classes: tuple[str, ...]
    channels: int
    size: tuple[int, int]
    split: str
    skipped: tuple[str, ...] = ()


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
            DataError: the data are not there, can't be read or are no classes of images.
        """


def parse_data(text: str) -> DataSource:
    """Read `scheme:rest`; a path that exists, or has a '/' and no scheme before it, is a folder.

    Raises:
        DataError: the scheme is unknown, or nothing follows it.
    """
    gather("torchgraft.data")
    scheme, colon, rest = text.partition(":")
    if colon and scheme in DataSource.registry:
        if not rest.strip():
            raise DataError(f"'{text}' names no data", where=text, hint=f"write what to open: {scheme}:…")
        return DataSource.registry[scheme](rest=rest)
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


class Subset:
    """Some of another set's samples, in the order of `indices`."""

    def __init__(self, samples: Samples, indices: Iterable[int]) -> None:
        self.samples = samples
        self.indices = tuple(indices)
        self.labels: Sequence[int] = tuple(samples.labels[index] for index in self.indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return self.samples[self.indices[index]]


def labels(samples: Samples) -> list[int]:
    """List the label of every sample; no image is decoded."""
    return list(samples.labels)


def per_class(samples: Samples, count: int, seed: int = 0) -> Samples:
    """Keep `count` samples of each class, or all where a class has fewer, in their order.

    The same seed draws the same samples, and a smaller count draws from those of a larger one.
    """
    if count < 1:
        raise DataError(f"{count} samples a class leave nothing to train on", hint="ask for 1 or more")
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
            "no class has two images, so none can be kept for validation",
            where=where,
            hint="add images to the classes",
        )
    return [index for index in range(len(labels)) if index not in val], sorted(val)


def made_split(seed: int) -> str:
    """Say how `hold_out` splits."""
    return f"made: {VAL_SHARE * 100:.0f} % of each class, seed {seed}"


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
