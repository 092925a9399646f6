"""The Python functions that a script spent its time in, as cProfile counted it."""

from __future__ import annotations

import cProfile
import pstats
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from torchgraft.profile import clocks

__all__ = ["hottest"]

FUNCTIONS = 12
"""So many Python functions are told."""


def hottest(python: cProfile.Profile, seconds: float) -> tuple[tuple[str, int, float, float], ...]:
    """List the functions that take most by themselves, then all imports in one line.

    What torchgraft did meanwhile is left out.
    """
    stats: dict[Any, Any] = pstats.Stats(python).stats  # type: ignore[attr-defined]
    ours, imported = _ours(stats), _imported(stats)
    rows = []
    for place, (_, calls, itself, whole, callers) in stats.items():
        file, line, name = place
        if place in ours or place in imported or file == clocks.__file__:
            continue
        theirs = [one for caller, one in callers.items() if caller in ours or caller in imported]
        calls -= sum(one[1] for one in theirs)
        itself -= sum(one[2] for one in theirs)
        rows.append((f"{_short(file)}:{line} {name}", calls, max(itself, 0.0), min(max(whole, 0.0), seconds)))
    return (*sorted(rows, key=lambda row: -row[2])[:FUNCTIONS], *_imports(stats, imported - ours))


def _imports(stats: dict[Any, Any], imported: set[Any]) -> list[tuple[str, int, float, float]]:
    """Put all that importing took into one line: how many modules, and seconds."""
    count = sum(stats[place][1] for place in imported if place[2] == "<module>")
    seconds = sum(stats[place][2] for place in imported)
    return [("imports of modules", count, seconds, seconds)] if count else []


def _imported(stats: dict[Any, Any]) -> set[Any]:
    """Find the functions that only imports lead to, and importing itself."""
    called = defaultdict(list)
    for place, (*_, callers) in stats.items():
        for caller in callers:
            called[caller].append(place)
    importing = {place for place in stats if place[0].startswith("<frozen importlib")}
    todo = [place for place, (*_, callers) in stats.items() if not callers and place not in importing]
    reached = set(todo)
    while todo:
        more = {place for place in called[todo.pop()] if place not in reached and place not in importing}
        reached |= more
        todo += more
    return stats.keys() - reached


def _ours(stats: dict[Any, Any]) -> set[Any]:
    """Find torchgraft's own functions, and those that none but these called.

    Those that time a call of the script's are left out: what they call is the script's.
    """
    home = str(Path(__file__).parent)
    found = {place for place in stats if place[0].startswith(home) and place[0] != clocks.__file__}
    while True:
        more = {
            place
            for place, (*_, callers) in stats.items()
            if place not in found and place[2] != "<module>" and callers and callers.keys() <= found
        }
        if not more:
            return found
        found |= more


def _short(file: str) -> str:
    """Leave out where packages are installed, and the folder that one works in."""
    for home in sorted({*sys.path, str(Path.cwd())}, key=len, reverse=True):
        if home and file.startswith(home.rstrip("/") + "/"):
            return file[len(home.rstrip("/")) + 1 :]
    return file
