"""`torchvision:CIFAR10` and its kin: the sets of labelled images that torchvision reads and downloads."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchgraft.data.base import (
    DataSet,
    DataSource,
    Progress,
    Samples,
    Subset,
    hold_out,
    made_split,
    usual_size,
)
from torchgraft.data.images import plain
from torchgraft.errors import DataError, nearest

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["KNOWN", "Known", "Torchvision", "TorchvisionSamples"]

LOOKS = 64
"""How many images, spread over a set, are looked at for its size and its colours."""

Options = dict[str, Any]


@dataclass(frozen=True)
class Known:
    """A set of torchvision: the folder below the root that holds its files, and what asks for train and val.

    The second half is `val` where the set has one, so that its `test` stays unseen. Without `halves` the set
    has no split. `downloads` is false where torchvision can't fetch it.
    """

    home: str = ""
    halves: tuple[Options, Options] | None = None
    downloads: bool = True


_FLAG: tuple[Options, Options] = ({"train": True}, {"train": False})
_TEST: tuple[Options, Options] = ({"split": "train"}, {"split": "test"})
_VAL: tuple[Options, Options] = ({"split": "train"}, {"split": "val"})

KNOWN: dict[str, Known] = {
    "CIFAR10": Known("cifar-10-batches-py", _FLAG),
    "CIFAR100": Known("cifar-100-python", _FLAG),
    "Caltech101": Known("caltech101/101_ObjectCategories"),
    "Caltech256": Known("caltech256/256_ObjectCategories"),
    "Country211": Known("country211", ({"split": "train"}, {"split": "valid"})),
    "DTD": Known("dtd/dtd", _VAL),
    "EMNIST": Known("EMNIST/raw", ({"split": "balanced", "train": True}, {"split": "balanced", "train": False})),
    "EuroSAT": Known("eurosat/2750"),
    "FER2013": Known("fer2013", _TEST, downloads=False),
    "FGVCAircraft": Known("fgvc-aircraft-2013b", _VAL),
    "FashionMNIST": Known("FashionMNIST/raw", _FLAG),
    "Flowers102": Known("flowers-102", _VAL),
    "Food101": Known("food-101", _TEST),
    "GTSRB": Known("gtsrb", _TEST),
    "Imagenette": Known("imagenette2", _VAL),
    "KMNIST": Known("KMNIST/raw", _FLAG),
    "MNIST": Known("MNIST/raw", _FLAG),
    "OxfordIIITPet": Known("oxford-iiit-pet", ({"split": "trainval"}, {"split": "test"})),
    "QMNIST": Known("QMNIST/raw", _FLAG),
    "RenderedSST2": Known("rendered-sst2", _VAL),
    "SEMEION": Known(),
    "STL10": Known("stl10_binary", _TEST),
    "SVHN": Known("", _TEST),
    "StanfordCars": Known("stanford_cars", _TEST, downloads=False),
    "USPS": Known("", _FLAG),
}


class TorchvisionSamples:
    """One half of a torchvision set, every image in the same mode."""

    def __init__(self, inner: Any, labels: Sequence[int], *, mode: str = "RGB") -> None:
        self.inner = inner
        self.labels = labels
        self.mode = mode

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        label = self.labels[index]
        image = self.read(index)
        return (image if image.mode == self.mode else image.convert(self.mode)), label

    def read(self, index: int) -> Image.Image:
        """Decode one image into its own mode, L or RGB."""
        try:
            return plain(self.inner[index][0])
        except Exception as error:  # torchvision's readers raise nearly anything on a broken file
            name = type(self.inner).__name__
            raise DataError(
                f"image {index} of {name} can't be read: {error}",
                f"torchvision:{name}",
                "get its files again",
            ) from error


class Torchvision(DataSource):
    """A set of torchvision.datasets, `torchvision:CIFAR10`, or with its folder, `torchvision:CIFAR10@~/data`.

    Without a folder, $TORCHGRAFT_DATA or ~/.cache/torchgraft/data is taken. What is not there is downloaded.
    Upper and lower case are alike.
    """

    def open(self, *, seed: int = 0, strict: bool = False, progress: Progress | None = None) -> DataSet:
        """Read the set, or download it; a set without a split is split as a folder would be."""
        name = self._name()
        known = KNOWN[name]
        opened = [self._load(name, options) for options in known.halves or ({},)]
        classes = _class_names(opened, str(self))
        halves = [TorchvisionSamples(inner, _labels_of(inner, classes, str(self))) for inner in opened]
        looks = [half.read(index) for half in halves for index in _spread(len(half))]
        channels = 1 if all(look.mode == "L" for look in looks) else 3
        for half in halves:
            half.mode = "L" if channels == 1 else "RGB"
        train, val = self._split(halves, seed)
        size = usual_size([(look.height, look.width) for look in looks])
        return DataSet(train, val, classes, channels, size, _said(known, seed))

    def _name(self) -> str:
        """Give the name as torchvision writes it."""
        asked = self.rest.partition("@")[0]
        folded = {name.casefold(): name for name in KNOWN}
        if asked.casefold() not in folded:
            hint = nearest(asked.casefold(), folded) or f"one of {', '.join(sorted(KNOWN))}"
            raise DataError(f"there is no set of labelled images '{asked}' in torchvision", str(self), hint)
        return folded[asked.casefold()]

    def _root(self) -> Path:
        """Give the folder that torchvision is to look in."""
        asked = self.rest.partition("@")[2]
        return Path(asked or os.environ.get("TORCHGRAFT_DATA") or "~/.cache/torchgraft/data").expanduser()

    def _load(self, name: str, options: Options) -> Any:
        """Build one half from the files that are there, or else from downloaded ones."""
        from torchvision import datasets

        build: Callable[..., Any] = getattr(datasets, name)
        root = self._root()
        try:
            return build(root, **options, **({"download": False} if KNOWN[name].downloads else {}))
        except Exception as error:  # whatever is amiss with files that torchvision reads, a download may mend
            cause = error
        if KNOWN[name].downloads and not isinstance(cause, ImportError):
            try:
                return build(root, **options, download=True)
            except Exception as error:
                cause = error
        raise self._missing(name, root, cause) from cause

    def _missing(self, name: str, root: Path, cause: Exception) -> DataError:
        """Say what is missing, and in which folder it would be looked for."""
        if isinstance(cause, ImportError):
            return DataError(f"{name} needs a package: {cause}", str(self), f"pip install {cause.name}")
        nor = " nor downloaded" if KNOWN[name].downloads else ", and torchvision can't download it"
        why = " ".join(str(cause).split()) or type(cause).__name__
        return DataError(
            f"{name} can't be read from {root}{nor}: {why}",
            str(self),
            f"put its files into {root / KNOWN[name].home}, or name their root: torchvision:{name}@FOLDER",
        )

    def _split(self, halves: Sequence[TorchvisionSamples], seed: int) -> tuple[Samples, Samples]:
        """Take the two halves, or draw them from the only one."""
        if len(halves) == 2:
            return halves[0], halves[1]
        train, val = hold_out(halves[0].labels, seed=seed, where=str(self))
        return Subset(halves[0], train), Subset(halves[0], val)


def _said(known: Known, seed: int) -> str:
    """Say where the halves come from."""
    if known.halves is None:
        return made_split(seed)
    train, val = ("train", "test") if "train" in known.halves[0] else (half["split"] for half in known.halves)
    return f"stated: torchvision's {train} and {val}"


def _spread(count: int) -> range:
    """Choose indices evenly over a set."""
    return range(0, count, max(1, count // LOOKS))


def _class_names(opened: Sequence[Any], where: str) -> tuple[str, ...]:
    """Take the class names that the set has, or number its labels; both halves must agree."""
    named = [getattr(inner, "classes", None) or getattr(inner, "categories", None) for inner in opened]
    if not named[0]:
        top = max(max(_raw_labels(inner, where), default=0) for inner in opened)
        return tuple(str(label) for label in range(top + 1))
    if any(names != named[0] for names in named):
        raise DataError("train and val name different classes", where, "files are missing: get them again")
    return tuple(name if isinstance(name, str) else str(name[0]) for name in named[0])


def _labels_of(inner: Any, classes: Sequence[str], where: str) -> tuple[int, ...]:
    """List the labels without decoding an image, and refuse what is no class."""
    labels = _raw_labels(inner, where)
    strange = next((label for label in labels if not 0 <= label < len(classes)), None)
    if strange is not None or len(labels) != len(inner) or not labels:
        found = f"label {strange}" if strange is not None else f"{len(labels)} labels for {len(inner)} images"
        raise DataError(
            f"{type(inner).__name__} has {len(classes)} classes, but {found}", where, "get its files again"
        )
    return labels


def _raw_labels(inner: Any, where: str) -> tuple[int, ...]:
    """Find the labels under one of the names that torchvision's classes give them."""
    import numpy as np

    found = next(
        (getattr(inner, key) for key in ("targets", "labels", "_labels", "y") if hasattr(inner, key)), None
    )
    if found is None:
        found = [label for _, label in inner._samples]
    try:
        values = np.asarray(found).astype(np.int64)
    except (TypeError, ValueError) as error:
        name = type(inner).__name__
        raise DataError(f"{name} has images without a label", where, "get the files that have them") from error
    column = values[:, 0] if values.ndim == 2 else values  # QMNIST's first column is the class
    return tuple(column.tolist())
