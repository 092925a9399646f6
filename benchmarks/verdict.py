"""The verdict after one edit, from memory and from scratch, and what a check holds beside the weights."""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import time

import torch
from torch import nn

import torchgraft as tg
from benchmarks.measure import table
from torchgraft.rules import judge
from torchgraft.sources.torchvision import _random

TITLE = (
    "Verdict after one edit (both modes, all rules for errors): medians over 30 places, CPU / wall milliseconds"
)

MODELS = ("resnet152", "vit_l_16", "swin_b")
PLACES = 30


def _places(g: tg.Graft) -> list[str]:
    """Draw layers that are called once."""
    run = g.trace()
    fit = [
        path
        for path in sorted(run.called)
        if run.kinds[path] in ("Conv2d", "Linear") and len(run.calls_of(path)) == 1
    ]
    return random.Random(0).sample(fit, PLACES)


def _timed(act: object) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    act()  # type: ignore[operator]
    return (time.process_time() - cpu) * 1e3, (time.perf_counter() - wall) * 1e3


def _median(pairs: list[tuple[float, float]]) -> str:
    return " / ".join(f"{statistics.median(column):.1f}" for column in zip(*pairs, strict=True))


def _row(name: str) -> tuple[str, ...]:
    torch.manual_seed(0)
    with torch.device("meta"):
        model = _random(name)
    g = tg.load(model.eval(), input=(3, 224, 224))
    first = _timed(g.evidence)
    known: list[tuple[float, float]] = []
    scratch: list[tuple[float, float]] = []
    for path in _places(g):
        new = nn.Sequential(model.get_submodule(path), nn.ReLU())
        g._looks.sweep()  # as every edit does first
        g._do(tg.edits.kinds()["replace"].of(path, new))
        known.append(_timed(lambda: judge(g.evidence(quick=True), errors=True)))
        scratch.append(_timed(lambda: (g.trace(cached=False), g.trace(train=True, cached=False))))
        assert g.trace() == g.trace(cached=False)
        g.undo()
    return name, f"{first[0]:.0f} / {first[1]:.0f}", _median(known), _median(scratch)


_MEMORY = """
import gc, resource, torch, torchgraft as tg
from torchgraft.sources.torchvision import _random
tg.load(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)), input=(3, 8, 8)).evidence()
model = _random({name!r}).eval()
gc.collect()
def resident():
    return int(open('/proc/self/statm').read().split()[1]) * resource.getpagesize()
before = resident()
g = tg.load(model, input=(3, 224, 224))
g.evidence()
after = resident()
weights = sum(p.numel() * p.element_size() for p in model.parameters())
print(weights, max(after - before, 0))
"""


def _memory(name: str) -> tuple[str, ...]:
    command = [sys.executable, "-c", _MEMORY.format(name=name)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    weights, held = map(int, done.stdout.split())
    return name, f"{weights / 2**20:.0f}", f"{held / 2**20:.1f}", f"{held / weights:.1%}"


def run() -> str:
    """Measure both."""
    rows = [_row(name) for name in MODELS]
    verdicts = table(["model", "first check (3 passes)", "after one edit", "the same from scratch"], rows)
    held = table(["model", "weights, MiB", "a check holds, MiB", "share"], [_memory(name) for name in MODELS])
    return f"{verdicts}\n\n{held}"
