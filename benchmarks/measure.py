"""How things are measured: medians of alternating runs, CPU seconds beside wall time."""

from __future__ import annotations

import resource
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Medians over the runs, in seconds."""

    cpu: float
    wall: float

    def __str__(self) -> str:
        return f"{self.cpu:.3f} / {self.wall:.3f}"


def alternate(tasks: Mapping[str, Callable[[], object]], *, runs: int = 5) -> dict[str, Cost]:
    """Run every task once in each round, so that all meet the same noise; the first round is not counted."""
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in tasks}
    for number in range(runs + 1):
        for name, task in tasks.items():
            cpu, wall = time.process_time(), time.perf_counter()
            task()
            if number:
                seen[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    return {name: _median(pairs) for name, pairs in seen.items()}


def alternate_processes(commands: Mapping[str, Sequence[str]], *, runs: int = 7) -> dict[str, Cost]:
    """The same for whole processes."""
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for number in range(runs + 1):
        for name, command in commands.items():
            before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            if number:
                seen[name].append((cpu, time.perf_counter() - wall))
    return {name: _median(pairs) for name, pairs in seen.items()}


def _median(pairs: Sequence[tuple[float, float]]) -> Cost:
    return Cost(*(statistics.median(column) for column in zip(*pairs, strict=True)))


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Write rows as a Markdown table."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[place]) for row in cells) for place in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
