"""What real probes write down. Plain data: rules read it without torch."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Broke", "Criterion", "Gradient", "Labels", "Norm", "Place", "Seen", "Spread"]


@dataclass(frozen=True)
class Place:
    """An operation, and the module whose forward called it."""

    op: str
    path: str


@dataclass(frozen=True)
class Broke:
    """Where a real pass broke off.

    `stage` is copy, evaluation, forward, loss, backward, or the same with "second " before it.
    """

    stage: str
    path: str
    op: str
    error: str
    message: str


@dataclass(frozen=True)
class Labels:
    """Targets: `whole` says that every value is a whole number, `sums` that every row adds up to 1."""

    shape: tuple[int, ...]
    dtype: str
    low: float
    high: float
    whole: bool
    distinct: int
    sums: bool

    @property
    def is_float(self) -> bool:
        """Tell whether the values are floating point numbers."""
        return "float" in self.dtype


@dataclass(frozen=True)
class Criterion:
    """A loss function of torch that was called, with what it was given.

    Attributes:
        name: as in torch.nn.functional.
        path: the module that called it; empty for a loss outside of the model.
        scores: the shape of its input.
        kind: probabilities, log-probabilities, unit (each in 0 … 1) or raw, told by the values.
        classes: how many classes the input has.
        labels: its targets.
        ignore: the label that is left out.
        swapped: the targets depend on what is trained, and the input does not.
    """

    name: str
    path: str
    scores: tuple[int, ...]
    kind: str
    classes: int
    labels: Labels
    ignore: int = -100
    swapped: bool = False

    @property
    def by_index(self) -> bool:
        """Tell whether the targets are class numbers."""
        return self.name in ("cross_entropy", "nll_loss") and not self.labels.is_float

    @property
    def fits(self) -> bool:
        """Tell whether the targets have the layout of class numbers: the scores' shape without the classes."""
        return self.labels.shape == (*self.scores[:1], *self.scores[2:]) if len(self.scores) > 1 else True

    @property
    def out_of_range(self) -> bool:
        """Tell whether a class number is none of the input's classes."""
        known = self.by_index and self.fits and self.labels.distinct > 0
        return known and (self.labels.low < 0 or self.labels.high >= self.classes)


@dataclass(frozen=True)
class Spread:
    """Two shapes of a loss that were broadcast to a third."""

    op: str
    shapes: tuple[tuple[int, ...], ...]
    out: tuple[int, ...]


@dataclass(frozen=True)
class Gradient:
    """The gradient of a parameter: its norm, None where there is no gradient; `later` is that of a second step.

    Before the second step all parameters were moved a little, so a head of zeros lets gradients through then.
    """

    name: str
    norm: float | None
    later: float | None
    matrix: bool


@dataclass(frozen=True)
class Seen:
    """A tensor that went in or came out: its range, and what is odd about it.

    Attributes:
        shape: batch included.
        dtype: such as float32.
        low: least finite value.
        high: greatest finite value.
        odd: how many values are NaN or infinite.
        whole: every value is a whole number.
        flat: how many samples have one value only.
        equal: all samples are the same.
    """

    shape: tuple[int, ...]
    dtype: str
    low: float
    high: float
    odd: int
    whole: bool
    flat: int
    equal: bool


@dataclass(frozen=True)
class Norm:
    """A trained BatchNorm and what reaches it, medians over the channels.

    Attributes:
        path: where it is.
        scale: standard deviation of the batch over that of training.
        offset: how many standard deviations of training the mean lies away.
    """

    path: str
    scale: float
    offset: float
