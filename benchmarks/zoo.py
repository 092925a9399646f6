"""The classifiers that benchmarks go over: all of torchvision's, and timm's (one of each family, or all)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import timm
import torch
from torch import nn
from torchvision import models

from torchgraft.sources.torchvision import _random

ALL = "TORCHGRAFT_BENCH_ALL"
"""Set this to go over all models of timm instead of one of each family."""


@dataclass(frozen=True)
class Classifier:
    """A model by name: how it is built, and the image that it takes."""

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]


def torchvision() -> Iterator[Classifier]:
    """Give the 80 classifiers of torchvision, on meta where they can be."""
    for name in models.list_models(module=models):
        size = 299 if name == "inception_v3" else 224
        yield Classifier(name, lambda name=name: built(name), (3, size, size))


def built(name: str) -> nn.Module:
    """Build a classifier of torchvision, on meta where it can be."""
    return _on_meta(lambda: _random(name))


def timm_models() -> Iterator[Classifier]:
    """Give timm's models that have a classifier: the first of each family, or all."""
    seen: set[str] = set()
    for name in timm.list_models():
        family = timm.models._registry._model_to_module.get(name, name)
        if family in seen and not os.environ.get(ALL):
            continue
        settings = timm.get_pretrained_cfg(name)
        if settings is None or not settings.num_classes or not settings.classifier:
            continue
        seen.add(family)
        yield Classifier(name, lambda name=name: _on_meta(lambda: _timm(name)), tuple(settings.input_size))


def named(name: str) -> Classifier:
    """Give a model of timm by name."""
    settings = timm.get_pretrained_cfg(name)
    shape = tuple(settings.input_size) if settings is not None else (3, 224, 224)
    return Classifier(name, lambda: _on_meta(lambda: _timm(name)), shape)


def _timm(name: str) -> nn.Module:
    made: nn.Module = timm.create_model(name, pretrained=False)
    return made


def _on_meta(build: Callable[[], nn.Module]) -> nn.Module:
    try:
        with torch.device("meta"):
            return build()
    except (RuntimeError, NotImplementedError):  # some read values while they are built
        return build()
