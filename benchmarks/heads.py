"""Heads found and replaced, right in evaluation and in training mode, over all classifiers of torchvision."""

from __future__ import annotations

import torch
from torch import nn
from torchvision import models

import torchgraft as tg
from benchmarks.measure import table
from torchgraft.errors import TorchgraftError
from torchgraft.sources.torchvision import _random
from torchgraft.trace import trace

TITLE = "Head replaced by one of 7 classes, right in both modes, of torchvision's classifiers"


def built(name: str) -> nn.Module:
    """Build a classifier of torchvision, on meta where it can be."""
    try:
        with torch.device("meta"):
            return _random(name)
    except (RuntimeError, NotImplementedError):  # RegNets read values while they are built
        return _random(name)


def _right(model: nn.Module, size: int) -> bool:
    runs = [trace(model, torch.empty(2, 3, size, size), train=train) for train in (False, True)]
    return all(run.mismatch is None and set(run.output_shapes()) == {(2, 7)} for run in runs)


def _by_name(model: nn.Module) -> None:
    """What people do first: assign to the attribute that their tutorial names."""
    name = next(name for name in ("fc", "classifier", "head", "heads") if hasattr(model, name))
    old = getattr(model, name)
    width = old.in_features if isinstance(old, nn.Linear) else list(old.modules())[-1].in_features
    setattr(model, name, nn.Linear(width, 7, device="meta"))


def _last_linear(model: nn.Module) -> None:
    path, old = [(path, one) for path, one in model.named_modules() if isinstance(one, nn.Linear)][-1]
    home, _, name = path.rpartition(".")
    setattr(model.get_submodule(home), name, nn.Linear(old.in_features, 7, device="meta"))


def _traced(model: nn.Module, size: int) -> nn.Module:
    return tg.load(model, input=(3, size, size)).head(7).module


def run() -> str:
    """Count the models on which each way is right."""
    ways = {"by attribute name": 0, "the last nn.Linear": 0, "torchgraft": 0}
    names = models.list_models(module=models)
    for name in names:
        size = 299 if name == "inception_v3" else 224
        for way, change in (("by attribute name", _by_name), ("the last nn.Linear", _last_linear)):
            model = built(name)
            try:
                change(model)
                ways[way] += _right(model, size)
            except (AttributeError, IndexError, StopIteration):
                pass
        try:
            ways["torchgraft"] += _right(_traced(built(name), size), size)
        except TorchgraftError as error:
            print(name, error)
    return table(["way", "right"], [(way, f"{count} of {len(names)}") for way, count in ways.items()])
