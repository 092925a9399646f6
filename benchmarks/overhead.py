"""What a trainer costs a step beside a bare loop that does the same: microseconds, CPU seconds, Python calls.

Every trainer takes the same batches from the same iterable, which starts its clock when it hands over one of them
and stops it when it is asked for the one after the last: what is measured is the trainer's own loop between them,
without set-up, data or validation. ResNet-8 on 64 images of 8×8, a two-layer MLP on 64 rows; one thread.

    STEPS=60      steps that are measured in each run
    ROUNDS=7      runs of each trainer, one after the other in turns
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.measure import table
from benchmarks.trainers import TRAINERS

TITLE = "Overhead of a training step beside a bare loop"

STEPS, ROUNDS = int(os.environ.get("STEPS", "60")), int(os.environ.get("ROUNDS", "7"))
WARM = 8
"""Steps before the clock starts: torch's own caches, and the looks of what watches the first two."""


class Block(nn.Module):
    """A residual block, `[N, C, H, W]` -> `[N, K, H/s, W/s]` (He et al., 2016)."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.short: nn.Module = nn.Identity()
        if stride > 1:
            self.short = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        inner = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(inner)) + self.short(x))


def resnet8() -> nn.Module:
    """Give the smallest ResNet for tiny images, 78,042 parameters."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), Block(16, 16, 1), Block(16, 32, 2),
        Block(32, 64, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


def mlp() -> nn.Module:
    """Give two layers whose step takes about half a millisecond."""
    return nn.Sequential(nn.Linear(192, 192), nn.ReLU(), nn.Linear(192, 10))


@dataclass
class Seen:
    """What one run of a trainer took between its first and last measured step."""

    wall: float = 0.0
    cpu: float = 0.0
    calls: int = 0


class Clocked:
    """Batches that measure whoever takes them."""

    def __init__(self, pairs: list[tuple[Tensor, Tensor]], steps: int, *, count: bool = False) -> None:
        self.pairs, self.steps, self.count = pairs, steps, count
        self.seen = Seen()

    def __len__(self) -> int:
        return WARM + self.steps + 1

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        calls = 0

        def heard(_: Any, event: str, __: Any) -> None:
            nonlocal calls
            calls += event == "call"

        for number in range(len(self)):
            if number == WARM:
                if self.count:
                    sys.setprofile(heard)
                cpu, wall = time.process_time(), time.perf_counter()
            if number == WARM + self.steps:  # the last one: some ask for no more than there are
                self.seen = Seen(time.perf_counter() - wall, time.process_time() - cpu, calls)
                sys.setprofile(None)
            yield self.pairs[number % len(self.pairs)]


def _run(name: str, make: Callable[[], nn.Module], pairs: Any, *, count: bool = False, ours: bool = False) -> Seen:
    torch.manual_seed(0)
    batches = Clocked(pairs, 10 if count else STEPS, count=count)
    TRAINERS[name](make(), batches, ours=ours)
    return batches.seen


OURS = {
    "bare + tg.watch": ("bare", True),
    "fastai + ours": ("fastai", True),
    "Lightning + ours": ("Lightning", True),
    "Hugging Face + ours": ("Hugging Face", True),
}
"""Other trainers with what torchgraft has for them."""


def _measured(make: Callable[[], nn.Module], pairs: Any) -> dict[str, tuple[list[Seen], int]]:
    """Run every trainer in turns; the first round only warms up."""
    names = {**{name: (name, False) for name in TRAINERS}, **OURS}
    found: dict[str, list[Seen]] = {name: [] for name in names}
    for number in range(ROUNDS + 1):
        for name, (trainer, ours) in names.items():
            seen = _run(trainer, make, pairs, ours=ours)
            found[name] += [seen] if number else []
    calls = {name: _run(t, make, pairs, count=True, ours=ours).calls / 10 for name, (t, ours) in names.items()}
    return {name: (runs, round(calls[name])) for name, runs in found.items()}


def _rows(found: dict[str, tuple[list[Seen], int]]) -> list[tuple[object, ...]]:
    """Compare the CPU time of each run with that of the bare one of the same round."""
    plain = [seen.cpu for seen in found["bare"][0]]
    base = _median(plain)
    rows = []
    for name, (runs, calls) in found.items():
        extra = _median([seen.cpu - other for seen, other in zip(runs, plain, strict=True)])
        shown = ("–", "–") if name == "bare" else (f"{extra:+,.0f}", f"{extra / base:+.1%}")
        cpu, wall = _median([seen.cpu for seen in runs]), _median([seen.wall for seen in runs])
        rows.append((extra if name != "bare" else -1e9, name, f"{cpu:,.0f}", *shown, f"{wall:,.0f}", calls))
    return [row[1:] for row in sorted(rows, key=lambda row: row[0])]


def _median(seconds: list[float]) -> float:
    """Give the median in microseconds a step."""
    return statistics.median(seconds) / STEPS * 1e6


def run() -> str:
    """Measure both networks."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images = [(torch.randn(64, 3, 8, 8), torch.randint(0, 10, (64,))) for _ in range(4)]
    flat = [(x.flatten(1), y) for x, y in images]
    header = ("trainer", "CPU µs a step", "extra µs", "extra", "wall µs a step", "Python calls a step")
    parts = []
    for what, make, pairs in (
        ("ResNet-8, 64 images of 8×8", resnet8, images),
        ("Two-layer MLP, 64 rows", mlp, flat),
    ):
        parts += [f"{what}:", "", table(header, _rows(_measured(make, pairs))), ""]
    torch.set_num_threads(threads)
    return "\n".join([
        *parts,
        f"Medians of {ROUNDS} alternating runs of {STEPS} steps, extra beside the bare run of the same round; "
        "Python calls by `sys.setprofile`, those of C functions left out.",
        "Every row: zero_grad, forward, loss, its value read, backward, clipping by the norm, SGD with momentum, "
        "a schedule by steps. torchgraft also stops on gradients that are not finite and counts what is right; "
        "`bare + tg.watch` clips by the watch, which judges the gradients by the same read; `+ ours` is our "
        "callback in that trainer.",
    ])  # fmt: skip


if __name__ == "__main__":
    print(run())
