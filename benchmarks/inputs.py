"""Input channels 3→1 and 3→6, right in both modes, over torchvision's and timm's classifiers."""

from __future__ import annotations

import torch
from torch import nn

import torchgraft as tg
from benchmarks.measure import table
from benchmarks.zoo import Classifier, timm_models, torchvision
from torchgraft.errors import TorchgraftError
from torchgraft.trace import trace

TITLE = "Input of 1 and of 6 channels, right in both modes, of torchvision's and timm's classifiers"

GOALS = (1, 6)


def _right(model: nn.Module, shape: tuple[int, ...], wanted: list[list[tuple[int, ...]]]) -> bool:
    runs = [trace(model, torch.empty(2, *shape), train=train) for train in (False, True)]
    return all(run.mismatch is None for run in runs) and [run.output_shapes() for run in runs] == wanted


def _done(one: Classifier, channels: int) -> bool:
    graft = tg.load(one.build(), input=one.shape)
    wanted = [graft.trace(train=train).output_shapes() for train in (False, True)]
    try:
        graft.input(channels=channels)
    except TorchgraftError as error:
        print(one.name, channels, error)
        return False
    return _right(graft.module, (channels, *one.shape[1:]), wanted)


def run() -> str:
    """Count the models that take other channels after one edit."""
    rows = []
    for title, zoo in (("torchvision", list(torchvision())), ("timm", list(timm_models()))):
        right = [sum(_done(one, channels) for one in zoo) for channels in GOALS]
        rows.append((title, len(zoo), *right))
    return table(["models", "of them", "3→1", "3→6"], rows)
