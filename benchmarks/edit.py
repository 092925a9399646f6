"""An edit itself, without its check: at random places of a large model, its traces there already."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

import torchgraft as tg
from benchmarks.measure import table
from torchgraft.edits import Edit, kinds
from torchgraft.errors import EditError
from torchgraft.sources.torchvision import _random

TITLE = "An edit itself, without its check, on resnet152: medians of 30, CPU / wall milliseconds"

RUNS = 30

Make = Callable[[random.Random, Mapping[str, list[str]]], tuple[str, dict[str, Any]]]

EDITS: dict[str, Make] = {
    "head, one layer": lambda d, at: ("head", {"classes": 10}),
    "head, hidden layer of 512": lambda d, at: ("head", {"classes": 10, "hidden": [512]}),
    "input, one channel": lambda d, at: ("input", {"channels": 1}),
    "replace a convolution": lambda d, at: (
        "replace",
        {"at": d.choice(at["conv"]), "with": {"nn.Conv2d": {"out_channels": 64, "kernel_size": 1}}},
    ),
    "insert a norm after a block": lambda d, at: (
        "insert",
        {"after": d.choice(at["block"]), "module": {"nn.BatchNorm2d": {}}},
    ),
    "insert SqueezeExcite after a block": lambda d, at: (
        "insert",
        {"after": d.choice(at["block"]), "module": {"block.SqueezeExcite": {}}},
    ),
    "insert around a convolution": lambda d, at: (
        "insert",
        {"around": d.choice(at["same"]), "module": {"nn.Identity": {}}, "start": "identity"},
    ),
    "append to a stage": lambda d, at: ("append", {"at": "layer2", "module": {"nn.ReLU": {}}}),
    "remove a block": lambda d, at: ("remove", {"at": d.choice(at["block"])}),
    "wrap a convolution": lambda d, at: ("wrap", {"at": d.choice(at["same"]), "with": "residual"}),
    "resize a convolution": lambda d, at: ("resize", {"at": d.choice(at["conv"]), "outputs": 77}),
    "repeat a block": lambda d, at: ("repeat", {"at": d.choice(at["later"])}),
    "share a block": lambda d, at: ("share", {"at": "layer3.5", "to": "layer3.4"}),
    "rename a block": lambda d, at: ("rename", {"at": d.choice(at["block"]), "to": "other"}),
    "tie two norms": lambda d, at: ("tie", {"at": "layer3.5.bn1.weight", "to": "layer3.4.bn1.weight"}),
    "swap one norm": lambda d, at: ("swap", {"at": "layer3.5.bn1", "to": {"nn.GroupNorm": {"num_groups": 32}}}),
    "swap all 151 norms": lambda d, at: (
        "swap",
        {"at": "**:BatchNorm2d", "to": {"nn.GroupNorm": {"num_groups": 32}}},
    ),
    "init one convolution": lambda d, at: ("init", {"at": d.choice(at["conv"]), "conv": "kaiming_normal"}),
    "freeze one stage": lambda d, at: ("freeze", {"at": "layer1"}),
    "freeze all but the head": lambda d, at: ("freeze", {"all_but": "head"}),
    "freeze the first half": lambda d, at: ("freeze", {"depth": 0.5}),
    "unfreeze all": lambda d, at: ("unfreeze", {}),
    "eval_mode of one stage": lambda d, at: ("eval_mode", {"at": "layer1"}),
    "adapter on one convolution": lambda d, at: ("adapter", {"at": d.choice(at["later"]) + ".conv1"}),
    "truncate after a stage": lambda d, at: ("truncate", {"after": "layer3"}),
}


def _places(model: nn.Module) -> dict[str, list[str]]:
    named = dict(model.named_modules())
    convs = [path for path, one in named.items() if isinstance(one, nn.Conv2d)]
    blocks = [path for path, one in named.items() if type(one).__name__ == "Bottleneck"]
    later = [path for path in blocks if not path.endswith(".0")]
    return {"conv": convs, "block": blocks, "later": later, "same": [f"{path}.conv2" for path in later]}


def _timed(g: tg.Graft, edit: Edit) -> tuple[float, float]:
    g._looks.sweep()  # as every edit does first
    g._looks.of("eval"), g._looks.of("train")
    mark = g._mark()
    cpu, wall = time.process_time(), time.perf_counter()
    g._do(edit)
    taken = (time.process_time() - cpu) * 1e3, (time.perf_counter() - wall) * 1e3
    g._back_to(mark)
    return taken


def run() -> str:
    """Measure every edit; the last line is the median over them."""
    torch.manual_seed(0)
    g = tg.load(_random("resnet152").eval(), input=(3, 224, 224))
    at, draw = _places(g.module), random.Random(0)
    rows, medians = [], []
    for name, make in EDITS.items():
        seen: list[tuple[float, float]] = []
        while len(seen) < RUNS:
            kind, settings = make(draw, at)
            try:
                seen.append(_timed(g, kinds()[kind].model_validate(settings)))
            except EditError as error:
                raise AssertionError(f"{name} was refused: {error}") from error
        cpu, wall = (statistics.median(column) for column in zip(*seen, strict=True))
        medians.append((cpu, wall))
        rows.append((name, f"{cpu:.2f} / {wall:.2f}"))
    cpu, wall = (statistics.median(column) for column in zip(*medians, strict=True))
    return table(["edit", "CPU / wall ms"], [*rows, ("median of these", f"{cpu:.2f} / {wall:.2f}")])
