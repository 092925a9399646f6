"""What targets from Python are: told by their type and shape, or by the user."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torchgraft.data.base import NOT_JUDGED, Task
from torchgraft.data.words import natural
from torchgraft.errors import DataError, nearest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Told", "mask_of", "tell"]


@dataclass(frozen=True)
class Told:
    """Task, names, and the labels of each half; those of masks are empty."""

    task: Task
    classes: tuple[str, ...]
    halves: tuple[tuple[Any, ...], ...]
    notes: tuple[str, ...] = ()


def tell(halves: Sequence[Sequence[Any]], *, task: Task | None, classes: Sequence[str] | None, where: str) -> Told:
    """Read the targets of one or two halves.

    Words and whole numbers [N] are classes, 0 and 1 of shape [N, k] are labels, other floats [N] or [N, k] are
    quantities, whole numbers [N, H, W] are masks.

    Raises:
        DataError: they are none of these, do not fit the task that is asked for, or have no name.
    """
    arrays = [_array(half, where) for half in halves]
    found = task or _task(arrays, where)
    return _READERS[found](arrays, tuple(classes) if classes is not None else None, where)


def mask_of(target: Any) -> NDArray[np.uint8]:
    """Make a mask, uint8 [H, W], of what stands for one.

    Raises:
        DataError: it is of another shape, or a number lies outside 0 … 255.
    """
    import numpy as np

    array = np.asarray(target)
    if array.ndim == 3 and 1 in (array.shape[0], array.shape[-1]):
        array = array[0] if array.shape[0] == 1 else array[..., 0]
    if array.ndim != 2 or array.size == 0 or array.min() < 0 or array.max() > NOT_JUDGED:
        raise DataError(f"a mask is [H, W] of 0 to {NOT_JUDGED}, not {array.dtype} {list(array.shape)}")
    return array.astype(np.uint8)


def _array(half: Sequence[Any], where: str) -> NDArray[Any]:
    """Lay targets out as one array; masks of several sizes as an array of arrays."""
    import numpy as np

    if not isinstance(half, np.ndarray):
        half = half.detach().cpu().numpy() if hasattr(half, "detach") else [_plain(one) for one in half]
    try:
        array = np.asarray(half)
    except ValueError:
        array = np.empty(len(half), dtype=object)
        array[:] = list(half)
    if array.size == 0:
        raise DataError("there are no targets", where, "give one for each input")
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def _plain(one: Any) -> Any:
    import numpy as np

    return np.asarray(one) if hasattr(one, "__array__") or hasattr(one, "detach") else one


def _task(arrays: Sequence[NDArray[Any]], where: str) -> Task:
    """Tell the task by type and shape."""
    import numpy as np

    ranks = {_rank(array) for array in arrays}
    floating = any(array.dtype.kind == "f" for array in arrays)
    if ranks == {1}:
        return "regression" if floating else "classes"
    if ranks == {2}:
        if all(np.isin(array, (0, 1)).all() for array in arrays):
            return "labels"
        if floating:
            return "regression"
    if ranks <= {3, 4} and not floating:
        return "mask"
    shapes = " and ".join(f"{array.dtype} {list(array.shape)}" for array in arrays)
    raise DataError(
        f"targets {shapes} are no classes [N], labels [N, k] of 0 and 1, quantities or masks [N, H, W]",
        where,
        "make class numbers of them, or say the task",
    )


def _rank(array: NDArray[Any]) -> int:
    """Count the dimensions, those of the masks within an array of arrays included."""
    return array.ndim + (array[0].ndim if array.dtype == object and hasattr(array[0], "ndim") else 0)


def _classes(arrays: Sequence[NDArray[Any]], names: tuple[str, ...] | None, where: str) -> Told:
    import numpy as np

    if any(array.ndim != 1 for array in arrays):
        raise DataError("classes are one number or word a sample", where, "task=labels takes several")
    if any(array.dtype.kind not in "iubf" for array in arrays):
        return _of_words(arrays, names, where)
    whole = [array.astype(np.int64) for array in arrays]
    if any((array != number).any() for array, number in zip(arrays, whole, strict=True)):
        raise DataError("a class has a fraction", where, "task=regression takes quantities")
    low, high = min(int(one.min()) for one in whole), max(int(one.max()) for one in whole)
    distinct = len(np.unique(np.concatenate(whole)))
    if low < 0 or (names is not None and high >= len(names)):
        count = f"{len(names)} classes" if names is not None else "classes"
        raise DataError(
            f"labels run from {low} to {high}, but {count} are numbered from 0", where, "correct the labels"
        )
    if names is None and high + 1 > 2 * distinct + 8:
        raise DataError(
            f"{distinct} different labels run up to {high}", where, "number them from 0, or give words as labels"
        )
    note = ("no label is 0, so class 0 stays empty: labels that run from 1 want 1 subtracted",)
    return Told(
        "classes",
        names or tuple(str(number) for number in range(max(high, 1) + 1)),
        tuple(tuple(one.tolist()) for one in whole),
        note if low == 1 and names is None else (),
    )


def _of_words(arrays: Sequence[NDArray[Any]], names: tuple[str, ...] | None, where: str) -> Told:
    """Number words in natural order, or as they are named."""
    for array in arrays:
        none = next((place for place, one in enumerate(array) if one is None), None)
        if none is not None:
            raise DataError(f"target {none} is None", where, "leave such samples out")
    words = [[str(one) for one in array] for array in arrays]
    known = names or tuple(sorted({word for half in words for word in half}, key=natural))
    places = {name: place for place, name in enumerate(known)}
    odd = next((word for half in words for word in half if word not in places), None)
    if odd is not None:
        raise DataError(f"'{odd}' is none of the classes", where, nearest(odd, known))
    if len(known) < 2:
        raise DataError(f"there is one class only, '{known[0]}'", where, "add samples of another class")
    return Told("classes", known, tuple(tuple(places[word] for word in half) for half in words))


def _labels(arrays: Sequence[NDArray[Any]], names: tuple[str, ...] | None, where: str) -> Told:
    import numpy as np

    table = [array[:, None] if array.ndim == 1 else array for array in arrays]
    if any(one.ndim != 2 or not np.isin(one, (0, 1)).all() for one in table):
        raise DataError("labels are 0 and 1 of shape [N, k]", where, "a column for each label")
    named = _named(table, names, "label", where)
    return Told("labels", named, tuple(tuple(map(tuple, one.astype(int).tolist())) for one in table))


def _regression(arrays: Sequence[NDArray[Any]], names: tuple[str, ...] | None, where: str) -> Told:
    import numpy as np

    table = [array[:, None] if array.ndim == 1 else array for array in arrays]
    if any(one.ndim != 2 or one.dtype.kind not in "iubf" for one in table):
        raise DataError("quantities are numbers of shape [N] or [N, k]", where)
    odd = next((place for one in table for place in np.argwhere(~np.isfinite(one.astype(float)))), None)
    if odd is not None:
        raise DataError(f"target {odd[0]} is not finite", where, "leave such samples out")
    named = _named(table, names, "quantity", where)
    return Told("regression", named, tuple(tuple(map(tuple, one.astype(float).tolist())) for one in table))


def _named(table: Sequence[NDArray[Any]], names: tuple[str, ...] | None, word: str, where: str) -> tuple[str, ...]:
    """Check that there is a name for each column, the same number in both halves."""
    widths = {one.shape[1] for one in table}
    width = widths.pop()
    if widths or (names is not None and len(names) != width):
        counts = ", ".join(str(one.shape[1]) for one in table)
        given = f", and {len(names)} names" if names is not None else ""
        raise DataError(f"targets have {counts} columns{given}", where, "give both halves the same columns")
    return names or tuple(f"{word} {number}" if width > 1 else word for number in range(width))


def _mask(arrays: Sequence[NDArray[Any]], names: tuple[str, ...] | None, where: str) -> Told:
    import numpy as np

    values = np.unique(np.concatenate([np.unique(mask_of(one)) for array in arrays for one in array]))
    top = int(max((value for value in values if value != NOT_JUDGED), default=0))
    if top < 1 or (names is not None and top >= len(names)):
        count = (
            f", but there are {len(names)} classes" if names is not None else ": there is nothing to tell apart"
        )
        raise DataError(
            f"masks have numbers up to {top}{count}", where, f"{NOT_JUDGED} stands for what does not count"
        )
    return Told("mask", names or tuple(str(number) for number in range(top + 1)), tuple(() for _ in arrays))


_READERS: dict[Task, Callable[..., Told]] = {
    "classes": _classes,
    "labels": _labels,
    "regression": _regression,
    "mask": _mask,
}
