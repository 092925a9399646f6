"""Which places a plan asks for, and whether they can be had."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from torchgraft.errors import TrainError, nearest
from torchgraft.train.news.curves import Curves, Place
from torchgraft.train.watch import Watch

__all__ = ["check_places", "news_of"]


def _wandb(folder: Path, name: str) -> Place:
    from torchgraft.train.news.wandb import WeightsAndBiases

    return WeightsAndBiases(folder, name)


def _mlflow(folder: Path, name: str) -> Place:
    from torchgraft.train.news.mlflow import MLflow

    return MLflow(folder, name)


PLACES: dict[str, Callable[[Path, str], Place]] = {"mlflow": _mlflow, "wandb": _wandb}
"""What `train.log` may name."""


def check_places(log: Sequence[str]) -> None:
    """Tell what can't be had before anything is trained.

    Raises:
        TrainError: there is no such place, or its package is not installed.
    """
    for name in log:
        if name not in PLACES:
            known = ", ".join(PLACES)
            raise TrainError(
                f"there is no place '{name}' for figures",
                where="train.log",
                hint=nearest(name, PLACES) or f"one of {known}; TensorBoard gets them always",
            )
        if importlib.util.find_spec(name) is None:
            raise TrainError(
                f"{name} is not installed", where="train.log", hint=f"pip install 'torchgraft[{name}]'"
            )


@contextmanager
def news_of(log: Sequence[str], folder: Path, name: str, recipe: str) -> Iterator[Watch]:
    """Give what writes the figures of a training: TensorBoard always, and the places that a plan names.

    Args:
        log: of the plan.
        folder: of the outcome: event files go to `folder/tensorboard/name`.
        name: of the training; a resumed one has that of the first.
        recipe: as YAML.

    Raises:
        TrainError: there is no such place, or its package is not installed.
    """
    from torchgraft.train.news.tensorboard import TensorBoard

    check_places(log)
    home = folder / "tensorboard" / name
    curves = Curves([TensorBoard(home), *(PLACES[one](home, name) for one in log)], recipe)
    try:
        yield curves.watch()
    finally:
        curves.close(finished=False)  # where an error ended it; else they are closed
