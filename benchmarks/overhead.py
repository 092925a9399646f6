"""What a trainer costs a step beside a bare loop that does the same: microseconds, CPU seconds, Python calls.

Every trainer takes the same batches from the same iterable, which starts its clock when it hands over one of them
and stops it when it is asked for the one after the last: what is measured is the trainer's own loop between them,
without set-up, data or validation. ResNet-8 on 64 images of 8×8, a two-layer MLP on 64 rows; one thread.

    STEPS=200     steps that are measured of each trainer
"""

from __future__ import annotations

import functools
import os
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.measure import table
from benchmarks.trainers import TRAINERS

TITLE = "Overhead of a training step beside a bare loop"

STEPS = int(os.environ.get("STEPS", "200"))
COUNTED = 10
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


class Turns:
    """Trainers in threads of their own, of which one runs at a time: each takes one step, then the next one does.

    So whatever else the machine does meets all of them alike.
    """

    def __init__(self) -> None:
        self.back = threading.Semaphore(0)
        self.runs: list[Clocked] = []

    def run(self, jobs: dict[str, Callable[[Clocked], None]], pairs: Any) -> dict[str, Clocked]:
        """Let every job train on batches that wait for their turn, to the end."""
        self.runs = [Clocked(self, name, pairs) for name in jobs]
        for one in self.runs:
            threading.Thread(target=one.train, args=(jobs[one.name],), daemon=True).start()
            self.back.acquire()
        draw, order = random.Random(0), list(self.runs)
        for _ in range(WARM + STEPS + 1):
            draw.shuffle(order)
            for one in order:
                if one.alive:
                    one.go.release()
                    self.back.acquire()
        return {one.name: one for one in self.runs}


class Clocked:
    """Batches that wait for their turn, and measure what is done with each until the next is asked for."""

    def __init__(self, turns: Turns, name: str, pairs: Any) -> None:
        self.turns, self.name, self.pairs = turns, name, pairs
        self.go = threading.Semaphore(0)
        self.alive = True
        self.times: list[float] = []

    def __len__(self) -> int:
        return WARM + STEPS + 1

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for number in range(len(self)):
            self.turns.back.release()
            self.go.acquire()
            start = time.thread_time()
            yield self.pairs[number % len(self.pairs)]
            self.times.append(time.thread_time() - start)

    def train(self, job: Callable[[Clocked], None]) -> None:
        """Run a trainer on these batches."""
        torch.set_num_threads(1)
        try:
            job(self)
        finally:
            self.alive = False
            self.turns.back.release()


class Counted:
    """Batches that count the calls of Python functions while they are taken."""

    def __init__(self, pairs: Any) -> None:
        self.pairs, self.calls = pairs, 0.0

    def __len__(self) -> int:
        return WARM + COUNTED + 1

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        calls = 0

        def heard(_: Any, event: str, __: Any) -> None:
            nonlocal calls
            calls += event == "call"

        for number in range(len(self)):
            if number == WARM:
                sys.setprofile(heard)
            if number == WARM + COUNTED:  # the last one: some ask for no more than there are
                sys.setprofile(None)
                self.calls = calls / COUNTED
            yield self.pairs[number % len(self.pairs)]


OURS = {
    "bare, once more": ("bare", False),
    "bare + tg.watch": ("bare", True),
    "fastai + ours": ("fastai", True),
    "Lightning + ours": ("Lightning", True),
    "Hugging Face + ours": ("Hugging Face", True),
}
"""Other trainers with what torchgraft has for them, and a control."""


def _rows(make: Callable[[], nn.Module], pairs: Any) -> list[tuple[object, ...]]:
    """Measure every trainer, and compare each of its steps with the bare one of the same turn."""
    names = {**{name: (name, False) for name in TRAINERS}, **OURS}
    jobs: dict[str, Callable[[Any], None]] = {}
    calls = {}
    for name, (trainer, ours) in names.items():
        torch.manual_seed(0)
        jobs[name] = functools.partial(TRAINERS[trainer], make(), ours=ours)
        counted = Counted(pairs)
        functools.partial(TRAINERS[trainer], make(), ours=ours)(counted)
        calls[name] = round(counted.calls)
    times = {name: one.times[WARM : WARM + STEPS - 1] for name, one in Turns().run(jobs, pairs).items()}
    plain = times["bare"]
    base = statistics.median(plain) * 1e6
    rows = []
    for name, own in times.items():
        extra = statistics.median(one - other for one, other in zip(own, plain, strict=True)) * 1e6
        shown = ("–", "–") if name == "bare" else (f"{extra:+,.0f}", f"{extra / base:+.1%}")
        rows.append(
            (extra if name != "bare" else -1e9, name, f"{statistics.median(own) * 1e6:,.0f}", *shown, calls[name])
        )
    return [row[1:] for row in sorted(rows, key=lambda row: row[0])]


def run() -> str:
    """Measure both networks."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images = [(torch.randn(64, 3, 8, 8), torch.randint(0, 10, (64,))) for _ in range(4)]
    flat = [(x.flatten(1), y) for x, y in images]
    header = ("trainer", "CPU µs a step", "extra µs", "extra", "Python calls a step")
    parts = []
    for what, make, pairs in (("ResNet-8, 64 images of 8×8", resnet8, images), ("MLP of two layers", mlp, flat)):
        parts += [f"{what}:", "", table(header, _rows(make, pairs)), ""]
    torch.set_num_threads(threads)
    return "\n".join([
        *parts,
        f"Medians of {STEPS} steps. All trainers take one step in turns, in a new order each time, in threads of "
        "which one runs; extra is beside the bare step of the same turn, and the bare loop runs once more to show "
        "the noise. Python calls by `sys.setprofile`, those of C functions left out.",
        "Every row: zero_grad, forward, loss, its value read, backward, clipping by the norm, SGD with momentum, "
        "a schedule by steps. torchgraft also stops on gradients that are not finite and counts what is right; "
        "`bare + tg.watch` clips by the watch, which judges the gradients by the same read; `+ ours` is our "
        "callback in that trainer.",
    ])  # fmt: skip


if __name__ == "__main__":
    print(run())
