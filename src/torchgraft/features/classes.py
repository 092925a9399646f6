"""Which class is meant, and its scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from torchgraft.errors import DataError, nearest
from torchgraft.trace.tree import tensors

__all__ = ["called", "class_name", "class_numbers", "score_of", "scores_of"]


def scores_of(output: Any) -> Tensor:
    """Give the class scores `[N, classes]` of what a model gives: the first tensor of that shape.

    Raises:
        DataError: it gives none.
    """
    found = [one for one in tensors(output) if one.is_floating_point()]
    scores = next((one for one in found if one.dim() == 2), None)
    if scores is None:
        shapes = ", ".join(str(list(one.shape)) for one in found) or "nothing"
        raise DataError(
            f"the model gives {shapes}, no scores of classes [N, classes]",
            where="class",
            hint="a map of where a class is seen needs a classifier",
        )
    return scores


def class_numbers(scores: Tensor, target: int | str | None, classes: Sequence[str] = ()) -> tuple[int, ...]:
    """Give the number of the class for each image: the one asked for, or the one predicted.

    Args:
        scores: `[N, classes]`.
        target: a number from 0, or a name of `classes`; None is what is predicted.
        classes: names in the order of the scores.

    Raises:
        DataError: there is no such class.
    """
    if target is None:
        return tuple(scores.argmax(1).tolist())
    count = scores.shape[1]
    if isinstance(target, str) and target in classes:
        number = list(classes).index(target)
    elif isinstance(target, int) or target.isdecimal():
        number = int(target)
    else:
        hint = nearest(target, classes) or (
            f"one of {', '.join(classes[:8])}" if classes else f"a number from 0 to {count - 1}"
        )
        raise DataError(f"there is no class '{target}'", where="class", hint=hint)
    if not 0 <= number < count:
        raise DataError(f"there is no class {number}", where="class", hint=f"a number from 0 to {count - 1}")
    return (number,) * len(scores)


def score_of(scores: Tensor, numbers: Sequence[int]) -> Tensor:
    """Add up the score of each image's class: one number, whose gradient to an image is that of its own score."""
    return scores[range(len(scores)), list(numbers)].sum()


def class_name(number: int, classes: Sequence[str]) -> str:
    """Name a class, by its number where it has no name."""
    return classes[number] if number < len(classes) else f"class {number}"


def called(name: str) -> str:
    """Say that a name which is a bare number is that of a class."""
    return f"class {name}" if name.isdecimal() else name
