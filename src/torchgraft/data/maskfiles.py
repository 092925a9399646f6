"""Masks in image files: which number or colour of a pixel is which class."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchgraft.data.base import NOT_JUDGED
from torchgraft.data.images import KEPT_BYTES, reason
from torchgraft.data.words import listing
from torchgraft.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

__all__ = ["Coding", "MaskLook", "code", "counts_of", "look_at_masks", "raw_of", "read_names"]

_COLOURED = 2**24
"""Added to a colour, 0xRRGGBB, so that no colour is taken for a number."""
_MOST = 64
"""A set with more colours than this is no set of masks: JPEG blurs them, and photographs have thousands."""


@dataclass(frozen=True)
class MaskLook:
    """What one reading of a mask found: its (height, width), pixels by value, why it can't be read."""

    size: tuple[int, int] = (0, 0)
    counts: Mapping[int, int] | None = None
    why: str = ""
    raw: Any = None


@dataclass(frozen=True)
class Coding:
    """The class that each value of a pixel stands for: numbers 0 … 255, or colours."""

    classes: tuple[str, ...]
    table: Mapping[int, int]
    notes: tuple[str, ...] = ()

    def coded(self, raw: NDArray[Any]) -> NDArray[np.uint8]:
        """Turn values [H, W] into class numbers [H, W].

        Raises:
            DataError: a value that no class has.
        """
        import numpy as np

        values, places = np.unique(raw, return_inverse=True)
        odd = [int(value) for value in values if int(value) not in self.table]
        if odd:
            raise DataError(f"the mask has {_shown(odd[0])}, which is no class", hint="restore the file")
        numbers = np.array([self.table[int(value)] for value in values], dtype=np.uint8)
        coded: NDArray[np.uint8] = numbers[places].reshape(raw.shape)
        return coded

    def pixels(self, looks: Iterable[MaskLook]) -> tuple[int, ...]:
        """Count the pixels of each class in masks that were looked at."""
        found = [0] * len(self.classes)
        for look in looks:
            for value, count in (look.counts or {}).items():
                if self.table[value] < len(found):
                    found[self.table[value]] += count
        return tuple(found)


def raw_of(image: Image.Image) -> NDArray[Any]:
    """Give the values [H, W] of a mask: numbers as they stand, indices into a palette, or colours.

    Raises:
        ValueError: the pixels are neither.
    """
    import numpy as np

    if image.mode in ("L", "P", "1"):
        return np.array(image, dtype=np.uint8)
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > NOT_JUDGED:
            raise ValueError(
                f"its numbers run from {values.min()} to {values.max()}, not within 0 to {NOT_JUDGED}"
            )
        return values.astype(np.uint8)
    if image.mode in ("F", "LAB", "YCbCr", "CMYK"):
        raise ValueError(f"pixels of mode {image.mode} are no class numbers")
    red, green, blue = np.moveaxis(np.asarray(image.convert("RGB")).astype(np.int32), -1, 0)
    colours: NDArray[Any] = _COLOURED + (red << 16) + (green << 8) + blue
    return colours


def counts_of(raw: NDArray[Any]) -> dict[int, int]:
    """Count the pixels of each value."""
    import numpy as np

    values, counts = np.unique(raw, return_counts=True)
    if len(values) > _MOST * 4:
        raise ValueError(
            f"it has {len(values)} colours; a mask has one a class, and JPEG keeps none: save it as PNG"
        )
    return {int(value): int(count) for value, count in zip(values, counts, strict=True)}


def look_at_masks(paths: Sequence[Path]) -> list[MaskLook]:
    """Decode every mask on a few threads; the values are kept where all are small enough together."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        looks = list(pool.map(_look, paths))
    held = sum(look.size[0] * look.size[1] for look in looks)
    return looks if held * 4 <= KEPT_BYTES else [replace(look, raw=None) for look in looks]


def _look(path: Path) -> MaskLook:
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
            raw = raw_of(image)
        counts = counts_of(raw)
    except Exception as error:  # Pillow's decoders raise nearly anything on a broken file
        return MaskLook(why=reason(error, path))
    return MaskLook((raw.shape[0], raw.shape[1]), counts, raw=raw)


def code(looks: Iterable[MaskLook], names: Mapping[int, str] | None, where: str) -> Coding:
    """Find what the values of a set of masks stand for.

    Args:
        looks: of every mask that could be read.
        names: of classes by value, where a file names them.
        where: what the user called the set.

    Raises:
        DataError: numbers beside colours, too many colours, or a value that has no name.
    """
    counts: Counter[int] = Counter()
    for look in looks:
        counts.update(look.counts or {})
    values = set(counts)
    if _are_greys(values):
        grey = _code_numbers({value & 255 for value in values}, names, where)
        return replace(grey, table={**{_COLOURED + number * 0x10101: c for number, c in grey.table.items()}})
    if min(values) >= _COLOURED:
        return _code_colours(values, names, where)
    if max(values) >= _COLOURED:
        raise DataError("some masks have class numbers, others have colours", where, "save all of them alike")
    return _code_numbers(values, names, where)


def _are_greys(values: set[int]) -> bool:
    """Whether every colour is a grey: numbers that were saved in three channels."""
    return all(value >= _COLOURED and (value - _COLOURED) == (value & 255) * 0x10101 for value in values)


def _code_colours(values: set[int], names: Mapping[int, str] | None, where: str) -> Coding:
    if names is not None:
        _all_named(values, names, where)
        return Coding(tuple(names.values()), {value: place for place, value in enumerate(names)})
    if len(values) > _MOST:
        raise DataError(
            f"the masks have {len(values)} colours, more than classes",
            where,
            "save them as PNG: JPEG blurs the edges; or name the colours in classes.txt: 'name red green blue'",
        )
    if len(values) < 2:
        raise DataError("the masks have one colour only", where, "there is nothing to tell apart")
    order = sorted(values)
    classes = tuple(_shown(value) for value in order)
    note = f"the {len(order)} colours of the masks are the classes; classes.txt names them: 'name red green blue'"
    return Coding(classes, {value: place for place, value in enumerate(order)}, (note,))


def _code_numbers(values: set[int], names: Mapping[int, str] | None, where: str) -> Coding:
    """Number the classes as the masks do; 255 is not judged, but in masks of nothing but 0 and 255."""
    found = sorted(values - {NOT_JUDGED})
    if values == {0, NOT_JUDGED} and (names is None or len(names) == 2):
        note = "masks of 0 and 255 are taken as background and foreground"
        named = ("background", "foreground") if names is None else tuple(names.values())
        return Coding(named, {0: 0, NOT_JUDGED: 1}, (note,))
    if len(found) < 2 and names is None:
        only = f"is {found[0]}" if found else "is 255, which is not judged"
        raise DataError(f"every pixel of the masks {only}", where, "there is nothing to tell apart")
    if names is not None:
        _all_named(values - {NOT_JUDGED}, names, where)
        places = {value: place for place, value in enumerate(names)}
        return Coding(tuple(names.values()), {NOT_JUDGED: NOT_JUDGED, **places})
    top = found[-1]
    if top + 1 <= 2 * len(found):
        classes = tuple(str(number) for number in range(top + 1))
        return Coding(classes, {**{number: number for number in range(top + 1)}, NOT_JUDGED: NOT_JUDGED})
    note = f"the numbers {listing([str(number) for number in found])} of the masks are the classes, in their order"
    table = {number: place for place, number in enumerate(found)}
    return Coding(tuple(map(str, found)), {**table, NOT_JUDGED: NOT_JUDGED}, (note,))


def _all_named(values: set[int], names: Mapping[int, str], where: str) -> None:
    odd = sorted(values - set(names))
    if odd:
        raise DataError(
            f"the masks have {_shown(odd[0])}, a value that none of the {len(names)} named classes has",
            where,
            f"name it; {NOT_JUDGED} stands for pixels that do not count",
        )


def _shown(value: int) -> str:
    return f"#{value - _COLOURED:06x}" if value >= _COLOURED else str(value)


def read_names(path: Path, where: str) -> dict[int, str]:
    """Read names of classes, one a line: by place from 0, or `name red green blue`.

    Raises:
        DataError: a line that says something else, or a class named twice.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} can't be read: {error}", where, "save it as text in UTF-8") from error
    names: dict[int, str] = {}
    for number, line in enumerate((line.strip() for line in lines), 1):
        if not line or line.startswith("#"):
            continue
        value, name = _named(line, len(names))
        if value in names or name in names.values():
            raise DataError(f"line {number} of {path.name} names a class twice: {line}", where, "mend the line")
        names[value] = name
    if len({value >= _COLOURED for value in names}) != 1 or not 2 <= len(names) <= NOT_JUDGED:
        what = f"{path.name} names {len(names)} classes, or colours for some only"
        raise DataError(what, where, "one a line: 'name', or 'name red green blue'")
    return names


def _named(line: str, place: int) -> tuple[int, str]:
    """Read one line: a name alone has the next number."""
    numbers = re.search(r"(\d{1,3})[\s,]+(\d{1,3})[\s,]+(\d{1,3})", line)
    if numbers is None or any(int(part) > 255 for part in numbers.groups()):
        return place, line
    red, green, blue = map(int, numbers.groups())
    name = " ".join((line[: numbers.start()] + line[numbers.end() :]).replace(",", " ").split())
    return _COLOURED + (red << 16) + (green << 8) + blue, name or f"#{red:02x}{green:02x}{blue:02x}"
