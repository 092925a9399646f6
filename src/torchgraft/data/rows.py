"""Rows of a Hugging Face set: which column is what, and what a row gives."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchgraft.data.base import Kind, Task
from torchgraft.data.columns import LABEL, TEXT
from torchgraft.data.images import decode, reason
from torchgraft.data.maskfiles import Coding, raw_of
from torchgraft.data.words import listing
from torchgraft.errors import DataError, nearest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

__all__ = ["Reader", "Roles", "RowSamples", "bytes_of", "roles"]

MASKS = ("mask", "masks", "annotation", "annotations", "label", "labels", "segmentation", "segmentation_mask",
         "semantic_mask", "label_map", "gt")  # fmt: skip


@dataclass(frozen=True)
class Roles:
    """The column of inputs, the columns of targets, and what their types say of both.

    `names` are those of the classes where the features have them.
    """

    kind: Kind
    given: str
    labels: tuple[str, ...]
    task: Task | None
    names: tuple[str, ...] | None = None


def roles(features: Mapping[str, Any], asked: Mapping[str, str], task: Task | None, where: str) -> Roles:
    """Find the columns by the types of a set's features; `image`, `text` and `label` are taken as they are asked.

    Raises:
        DataError: a column that is asked for is not there, or it can't be told which is meant.
    """
    for key in ("image", "text", "label"):
        for name in asked.get(key, "").split(","):
            if name and name not in features:
                hint = nearest(name, features) or f"it has {', '.join(features)}"
                raise DataError(f"the set has no column '{name}'", where, hint)
    labels = tuple(name for name in asked.get("label", "").split(",") if name)
    kind, given = _given(features, asked, labels, where)
    labels = labels or _labels(features, given, where)
    found, names = _told(features, labels)
    if task is not None and found == "mask" and task != "mask":
        raise DataError(f"column '{labels[0]}' holds images, no {task}", where, "name another: label=COLUMN")
    return Roles(kind, given, labels, task or found, names)


def _type(feature: Any) -> str:
    """Name the type of a feature: `Image`, `ClassLabel`, `string`, `float`, `int`, `bool`, `List of …`."""
    name = type(feature).__name__
    if name in ("List", "LargeList", "Sequence"):
        return f"List of {_type(feature.feature)}"
    if name != "Value":
        return name
    return next(
        (word for word in ("string", "float", "uint", "int", "bool") if word in feature.dtype), feature.dtype
    )


def _given(
    features: Mapping[str, Any], asked: Mapping[str, str], labels: Sequence[str], where: str
) -> tuple[Kind, str]:
    """Find the column of images or else of texts."""
    if "image" in asked:
        return "image", asked["image"]
    if "text" in asked:
        return "text", asked["text"]
    images = [name for name, one in features.items() if _type(one) == "Image" and name not in labels]
    plain = [name for name in images if name.lower() not in MASKS] or images
    if plain:
        return "image", plain[0]
    texts = [name for name, one in features.items() if _type(one) == "string" and name not in labels]
    known = [name for name in TEXT if name in texts] or [name for name in texts if name.lower() not in LABEL]
    if len(known) == 1 or (known and known[0] in TEXT):
        return "text", known[0]
    raise DataError(
        f"no column holds images, and it can't be told which holds the texts: {_described(features)}",
        where,
        "say which: ?text=COLUMN or ?image=COLUMN",
    )


def _labels(features: Mapping[str, Any], given: str, where: str) -> tuple[str, ...]:
    """Find the columns of targets: by type first, then by name."""
    left = {name: _type(one) for name, one in features.items() if name != given}
    masks = [name for name, kind in left.items() if kind == "Image"]
    classes = [name for name, kind in left.items() if kind in ("ClassLabel", "List of ClassLabel")]
    named = [name for name in LABEL if name in left]
    others = [name for name, kind in left.items() if kind in ("string", "int", "uint", "float", "bool")]
    for found in (masks, classes, named, others):
        chosen = [name for name in found if name in LABEL or name.lower() in MASKS] or found
        if len(chosen) == 1 or (chosen and chosen[0] in named):
            return (chosen[0],)
        if found:
            break
    raise DataError(
        f"it can't be told which column is the label: {_described(features)}", where, "say which: ?label=COLUMN"
    )


def _described(features: Mapping[str, Any]) -> str:
    return listing([f"{name} ({_type(one)})" for name, one in features.items()])


def _told(features: Mapping[str, Any], labels: Sequence[str]) -> tuple[Task | None, tuple[str, ...] | None]:
    """Say what the types of the columns make of the task, and how classes are called."""
    kind, first = _type(features[labels[0]]), features[labels[0]]
    if len(labels) > 1:
        return None, None
    if kind == "Image":
        return "mask", None
    if kind == "ClassLabel":
        return "classes", tuple(first.names)
    if kind == "List of ClassLabel":
        return "labels", tuple(first.feature.names)
    return ("regression", None) if kind == "List of float" else (None, None)


@dataclass(frozen=True)
class Reader:
    """Makes input and target of a row. `mode` is that of all images; `coding` is for masks."""

    roles: Roles
    task: Task
    classes: tuple[str, ...]
    mode: str = "RGB"
    coding: Coding | None = None
    places: Mapping[str, int] = field(default_factory=dict)

    def given(self, row: Mapping[str, Any]) -> Any:
        """Give the input of a row.

        Raises:
            DataError: there is none, or it can't be decoded.
        """
        value = row[self.roles.given]
        if self.roles.kind == "text":
            if not isinstance(value, str) or not value.strip():
                raise DataError("no text")
            return value
        try:
            image = decode(bytes_of(value))
        except Exception as error:  # Pillow's decoders raise nearly anything on broken bytes
            raise DataError(reason(error)) from error
        return image if image.mode == self.mode else image.convert(self.mode)

    def target(self, row: Mapping[str, Any]) -> Any:
        """Give the target of a row.

        Raises:
            DataError: there is none, or it is no class.
        """
        values = [row[name] for name in self.roles.labels]
        if any(value is None for value in values):
            raise DataError("no label")
        if self.task == "mask":
            return self.mask(values[0])
        if self.task == "regression":
            return tuple(float(value) for value in (values[0] if isinstance(values[0], list) else values))
        if self.task == "labels":
            return self._several(values)
        return self._class(values[0])

    def mask(self, value: Any) -> NDArray[np.uint8]:
        """Decode a mask, uint8 [H, W].

        Raises:
            DataError: it can't be decoded.
        """
        assert self.coding is not None
        try:
            return self.coding.coded(raw_of(opened(bytes_of(value))))
        except Exception as error:  # as above
            raise DataError(f"its mask: {reason(error)}") from error

    def _several(self, values: Sequence[Any]) -> tuple[int, ...]:
        if len(self.roles.labels) > 1:
            return tuple(int(bool(value)) for value in values)
        return tuple(int(place in values[0]) for place in range(len(self.classes)))

    def _class(self, value: Any) -> int:
        """Number a class: a ClassLabel has its number already, and -1 where nobody said."""
        if self.roles.names is not None:
            if not 0 <= value < len(self.classes):
                raise DataError(
                    "no label" if value == -1 else f"label {value} is none of {len(self.classes)} classes"
                )
            return int(value)
        name = str(value)
        if name not in self.places:
            raise DataError(f"label '{name}' is none of the classes")
        return self.places[name]


def bytes_of(value: Any) -> bytes | Path:
    """Give what an undecoded image of a row holds.

    Raises:
        DataError: there is no image.
    """
    if isinstance(value, Mapping) and value.get("bytes") is not None:
        return bytes(value["bytes"])
    if isinstance(value, Mapping) and value.get("path"):
        return Path(value["path"])
    raise DataError("no image")


def opened(source: bytes | Path) -> Image.Image:
    """Open an image as it stands, its palette kept."""
    from PIL import Image

    image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
    image.load()
    return image


class RowSamples:
    """Some rows of a set, decoded when asked for, or held in memory where `images` has them."""

    def __init__(
        self, table: Any, rows: Sequence[int], reader: Reader, labels: Sequence[Any], images: Sequence[Any] = ()
    ) -> None:
        self.table = table
        self.rows = tuple(rows)
        self.reader = reader
        self.labels: Sequence[Any] = tuple(labels)
        self.images = tuple(images)
        self.pixels: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        number = self.rows[index]
        held = self.images[index] if self.images else None
        row = self.table[number] if held is None or not self.labels else {}
        try:
            given = self.reader.given(row) if held is None else self._held(held)
            return given, self.labels[index] if self.labels else self.reader.target(row)
        except DataError as error:
            raise DataError(f"row {number} can't be read: {error.what}", hint="leave it out of the set") from error

    def _held(self, image: Any) -> Any:
        return image.copy() if image.mode == self.reader.mode else image.convert(self.reader.mode)
