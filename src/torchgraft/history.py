"""What training and evaluation leave behind: plain data, read by the report, the store and the command line."""

from __future__ import annotations

from typing import Literal

from torchgraft.schema import Schema

__all__ = ["Epoch", "Evaluation", "History"]


class Epoch(Schema):
    """The figures of one epoch; losses are means over samples, accuracies are shares of 1."""

    number: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    lr: float
    seconds: float


class History(Schema):
    """The epochs of one run and how it ended; `best` numbers the epoch of the best validation accuracy."""

    epochs: tuple[Epoch, ...] = ()
    best: int = 0
    ended: Literal["finished", "interrupted"] = "finished"
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
