"""Heads found and replaced, right in both modes, over torchvision's and timm's classifiers."""

from __future__ import annotations

import torch
from torch import nn

import torchgraft as tg
from benchmarks.measure import table
from benchmarks.zoo import built, timm_models, torchvision
from torchgraft.errors import TorchgraftError
from torchgraft.trace import trace

__all__ = ["TITLE", "built", "run"]

TITLE = "Head replaced by one of 7 classes, right in both modes, of torchvision's and timm's classifiers"


def _right(model: nn.Module, shape: tuple[int, ...]) -> bool:
    runs = [trace(model, torch.empty(2, *shape), train=train) for train in (False, True)]
    return all(run.mismatch is None and set(run.output_shapes()) == {(2, 7)} for run in runs)


def _by_name(model: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """What people do first: assign to the attribute that their tutorial names."""
    name = next(name for name in ("fc", "classifier", "head", "heads") if hasattr(model, name))
    old = getattr(model, name)
    width = old.in_features if isinstance(old, nn.Linear) else list(old.modules())[-1].in_features
    setattr(model, name, nn.Linear(width, 7, device="meta"))
    return model


def _last_linear(model: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    path, old = [(path, one) for path, one in model.named_modules() if isinstance(one, nn.Linear)][-1]
    home, _, name = path.rpartition(".")
    setattr(model.get_submodule(home), name, nn.Linear(old.in_features, 7, device="meta"))
    return model


def _reset(model: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """What timm's models do themselves."""
    model.reset_classifier(7)
    return model


def _traced(model: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    return tg.load(model, input=shape).head(7).module


_WAYS = {
    "by attribute name": _by_name,
    "the last nn.Linear": _last_linear,
    "timm's reset_classifier": _reset,
    "torchgraft": _traced,
}


def run() -> str:
    """Count the models on which each way is right."""
    zoos = {"torchvision": list(torchvision()), "timm": list(timm_models())}
    right = {way: dict.fromkeys(zoos, 0) for way in _WAYS}
    for source, zoo in zoos.items():
        for one in zoo:
            for way, change in _WAYS.items():
                try:
                    right[way][source] += _right(change(one.build(), one.shape), one.shape)
                except (AttributeError, IndexError, StopIteration):
                    pass
                except TorchgraftError as error:
                    print(one.name, error)
    columns = [f"{source} (of {len(zoo)})" for source, zoo in zoos.items()]
    return table(["way", *columns], [(way, *counts.values()) for way, counts in right.items()])
