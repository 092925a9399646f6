"""Building a model and loading its weights from a safetensors file: time and peak memory."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import table

TITLE = "Building vit_l_16 (304 million parameters, 1.2 GB) and loading it from a safetensors file"

NAME = "vit_l_16"
KINDS = ("load_file alone", "torchgraft, built and loaded", "built, then load_state_dict")

_PEAK = """
import gc, sys
from benchmarks.load import task, touch
from torchgraft.sources import parse_source
parse_source("torchvision:alexnet").bare.skeleton()  # imports are no cost of a load
gc.collect()
def peak():  # of this process alone: ru_maxrss is handed on from the one that started it
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
before = peak()
kept = task(sys.argv[1], sys.argv[2])()
if sys.argv[3] == "touched":
    touch(kept)
print(peak() - before)
"""


def task(kind: str, path: str) -> Callable[[], Mapping[str, Any]]:
    """Give a way to have the weights: each gives the tensors by name."""
    from safetensors.torch import load_file
    from torchvision import models

    from torchgraft.sources import parse_source

    def usual() -> Mapping[str, Any]:
        module = models.get_model(NAME, weights=None)
        module.load_state_dict(load_file(path))
        return module.state_dict()

    made: dict[str, Callable[[], Mapping[str, Any]]] = {
        KINDS[0]: lambda: load_file(path),
        KINDS[1]: lambda: parse_source(f"file:{path}@{NAME}").load().module.state_dict(),
        KINDS[2]: usual,
    }
    return made[kind]


def touch(tensors: Mapping[str, Any]) -> float:
    """Read every value once, as the first forward pass does."""
    return float(sum(float(one.sum()) for one in tensors.values()))


def _by_turns(
    tasks: Mapping[str, Callable[[], object]], prepare: Callable[[], None], *, runs: int
) -> dict[str, tuple[float, float]]:
    """Give medians of CPU and wall seconds; what a task before left behind is freed before the clock runs."""
    seen: dict[str, list[tuple[float, float]]] = {kind: [] for kind in tasks}
    for number in range(runs + 1):
        for kind, one in tasks.items():
            gc.collect()
            prepare()
            cpu, wall = time.process_time(), time.perf_counter()
            one()
            if number:
                seen[kind].append((time.process_time() - cpu, time.perf_counter() - wall))
    return {
        kind: (median(pair[0] for pair in pairs), median(pair[1] for pair in pairs))
        for kind, pairs in seen.items()
    }


def _forget(path: Path) -> None:
    """Let the system drop the file from its cache, so that it must be read from the disk."""
    with path.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _peak(kind: str, path: Path, how: str) -> float:
    command = [sys.executable, "-W", "ignore", "-c", _PEAK, kind, str(path), how]
    runs = [int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) for _ in range(3)]
    return sorted(runs)[1] * 1024 / path.stat().st_size


def run() -> str:
    """Measure time in this process by turns, memory in processes of their own."""
    from safetensors.torch import save_file
    from torchvision import models

    with tempfile.TemporaryDirectory() as home:
        path = Path(home) / "weights.safetensors"
        save_file(models.get_model(NAME, weights=None).state_dict(), path)
        gc.collect()
        tasks = {kind: task(kind, str(path)) for kind in KINDS}
        whole = {kind: lambda one=one: touch(one()) for kind, one in tasks.items()}
        lazy = _by_turns(tasks, lambda: None, runs=9)
        warm = _by_turns(whole, lambda: None, runs=9)
        cold = _by_turns(whole, lambda: _forget(path), runs=3)
        rows = [
            (
                kind,
                "{:.3f} / {:.3f}".format(*lazy[kind]),
                "{:.3f} / {:.3f}".format(*warm[kind]),
                f"{warm[kind][0] / warm[KINDS[0]][0]:.2f}",
                f"{cold[kind][1]:.2f}",
                f"{cold[kind][1] / cold[KINDS[0]][1]:.2f}",
                f"{_peak(kind, path, 'lazy'):.2f}",
                f"{_peak(kind, path, 'touched'):.2f}",
            )
            for kind in KINDS
        ]
    head = (
        "",
        "until it returns, CPU / wall s",
        "until every value was read once",
        "its CPU, in times of load_file",
        "the same, the file in no cache, wall s",
        "in times of load_file",
        "peak memory, in times of the weights",
        "once every value was read",
    )
    return table(head, rows)
