"""What training and evaluation leave behind: plain data, read by the report, the store and the command line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from torchgraft.schema import Schema

__all__ = ["LOWER", "Epoch", "Evaluation", "GuessedMask", "History", "Kind", "figure_name", "is_share", "shown"]

LOWER = frozenset({"loss", "rmse", "mae"})
"""Figures of which less is better."""

_NAMES = {
    "accuracy": "accuracy",
    "top5": "top-5 accuracy",
    "f1": "macro F1",
    "average_precision": "mean average precision",
    "exact_match": "exact match",
    "mean_iou": "mean IoU",
    "pixel_accuracy": "pixel accuracy",
    "iou": "IoU",
    "precision": "precision",
    "recall": "recall",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R²",
}
_QUANTITIES = LOWER | {"r2"}


def figure_name(name: str) -> str:
    """Give the words of a figure: `RMSE`, `mean IoU`; `colour: accuracy` of an output by name."""
    output, _, own = name.rpartition(".")
    words = _NAMES.get(own, own.replace("_", " "))
    return f"{output}: {words}" if output else words


def is_share(name: str) -> bool:
    """Tell whether a figure is a share of 1, which reads best as per cent."""
    own = name.rpartition(".")[2]
    return own in _NAMES and own not in _QUANTITIES


def shown(name: str, value: float) -> str:
    """Write the value of a figure: `97.2%`, `0.4113`."""
    if not math.isfinite(value):
        return "–"
    return f"{value:.1%}" if is_share(name) else f"{value:.4g}"


Kind = Literal["classes", "labels", "regression", "mask", "several"]
"""What the outputs of a model are for; `several` where there are some by name, each with a task of its own."""


class Epoch(Schema):
    """The figures of one epoch; losses are means over samples.

    Attributes:
        number: from 1.
        train_loss: mean over the training samples, as the weights were when each was seen.
        val_loss: mean over the validation samples, at the end of the epoch.
        train: figures of the training samples by name, such as `accuracy`, a share of 1.
        val: figures of the validation samples; the first is what states are judged by.
        lr: the largest learning rate at the start of the epoch.
        seconds: that the epoch took.
    """

    number: int
    train_loss: float
    val_loss: float
    train: dict[str, float] = Field(default_factory=dict)
    val: dict[str, float] = Field(default_factory=dict)
    lr: float
    seconds: float

    @model_validator(mode="before")
    @classmethod
    def _older(cls, value: Any) -> Any:
        """Read what was written when there was accuracy alone."""
        if not isinstance(value, Mapping) or "val_accuracy" not in value:
            return value
        rest = {name: one for name, one in value.items() if name not in ("train_accuracy", "val_accuracy")}
        known = value.get("train_accuracy")
        rest["train"] = {} if known is None else {"accuracy": known}
        return {**rest, "val": {"accuracy": value["val_accuracy"]}}

    @property
    def train_accuracy(self) -> float:
        """The share of the training samples that were right; nan where there is no such figure."""
        return self.train.get("accuracy", float("nan"))

    @property
    def val_accuracy(self) -> float:
        """The share of the validation samples that are right; nan where there is no such figure."""
        return self.val.get("accuracy", float("nan"))


class History(Schema):
    """The epochs of one run and how it ended.

    Attributes:
        epochs: that were finished.
        best: the number of the epoch with the best figure on the validation samples.
        metric: the name of that figure.
        higher: whether more of it is better.
        ended: `early` where it got no better any more.
        seconds: that the whole run took, those before a stop included.
        skipped: samples that could not be read on the way, each as 'place: why'.
        task: what was trained for, as of an `Evaluation`; None where an older torchgraft did not say.
    """

    epochs: tuple[Epoch, ...] = ()
    best: int = 0
    metric: str = "accuracy"
    higher: bool = True
    ended: Literal["finished", "interrupted", "early"] = "finished"
    seconds: float = 0.0
    skipped: tuple[str, ...] = ()
    task: Kind | None = None


class GuessedMask(Schema):
    """What one sample was taken for, pixel by pixel.

    Attributes:
        index: of the sample in its set.
        iou: mean over the classes that occur in it, in truth or as predicted.
        size: (height, width), in pixels.
        truth: the classes of its pixels, row by row, a byte each; 255 where none is judged.
        guess: the predicted ones.
    """

    index: int
    iou: float
    size: tuple[int, int]
    truth: bytes
    guess: bytes


class Evaluation(Schema):
    """A model judged on labelled samples it was not trained on.

    Attributes:
        task: what its outputs are for; `several` where there are some by name, each with a task of its own.
        classes: names of the classes, labels or quantities, as many as there are outputs.
        loss: mean over samples.
        figures: by name; the first is what states are judged by.
        count: how many samples were judged.
        indices: which of the set these are, in the order of what stands below.
        targets: the class of each sample.
        predictions: the class that it was taken for.
        confidence: the probability of that class.
        confusion: `confusion[t][p]` counts samples of class t that were taken for class p.
        each: figures of each class, label or quantity, by name.
        truths: the quantities of each sample.
        guesses: what was predicted for them.
        masks: what the worst samples of a segmentation were taken for.
    """

    task: Kind = "classes"
    classes: tuple[str, ...]
    loss: float
    figures: dict[str, float] = Field(default_factory=dict)
    count: int = 0
    indices: tuple[int, ...] = ()
    targets: tuple[int, ...] = ()
    predictions: tuple[int, ...] = ()
    confidence: tuple[float, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()
    each: tuple[dict[str, float], ...] = ()
    truths: tuple[tuple[float, ...], ...] = ()
    guesses: tuple[tuple[float, ...], ...] = ()
    masks: tuple[GuessedMask, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _older(cls, value: Any) -> Any:
        """Read what was written when there was accuracy alone."""
        if not isinstance(value, Mapping) or "accuracy" not in value:
            return value
        rest = {name: one for name, one in value.items() if name != "accuracy"}
        return {**rest, "figures": {"accuracy": value["accuracy"]}, "count": len(value.get("targets", ()))}

    @property
    def accuracy(self) -> float:
        """The share of the samples that are right; nan where there is no such figure."""
        return self.figures.get("accuracy", math.nan)

    @property
    def main(self) -> str:
        """The name of the figure that states are judged by, `loss` where there is no other."""
        return next(iter(self.figures), "loss")
