"""What training and evaluation leave behind: plain data, read by the report, the store and the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from torchgraft.schema import Schema

__all__ = ["LOWER", "Epoch", "Evaluation", "History"]

LOWER = frozenset({"loss", "rmse", "mae"})
"""Figures of which less is better."""


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
        rest["train"] = {"accuracy": value.get("train_accuracy")}
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
    """

    epochs: tuple[Epoch, ...] = ()
    best: int = 0
    metric: str = "accuracy"
    higher: bool = True
    ended: Literal["finished", "interrupted", "early"] = "finished"
    seconds: float = 0.0


class Evaluation(Schema):
    """A model judged on labelled samples it was not trained on.

    `confusion[t][p]` counts samples of class t that were taken for class p; `confidence` is the probability
    of the predicted class, sample by sample.
    """

    classes: tuple[str, ...]
    accuracy: float
    loss: float
    confusion: tuple[tuple[int, ...], ...]
    targets: tuple[int, ...]
    predictions: tuple[int, ...]
    confidence: tuple[float, ...]
