"""The Python functions that a script spent its time in, as cProfile counted it."""

from __future__ import annotations

import cProfile
import pstats
import sys
from pathlib import Path
from typing import Any

from torchgraft.profile import clocks

__all__ = ["hottest"]

FUNCTIONS = 12
"""So many Python functions are told."""


def hottest(python: cProfile.Profile, seconds: float) -> tuple[tuple[str, int, float, float], ...]:
    """List the functions that take most by themselves; what torchgraft did meanwhile is left out."""
    stats: dict[Any, Any] = pstats.Stats(python).stats  # type: ignore[attr-defined]
    ours = _ours(stats)
    rows = []
    for place, (_, calls, itself, whole, callers) in stats.items():
        file, line, name = place
        if place in ours or file == clocks.__file__:
            continue
        theirs = [one for caller, one in callers.items() if caller in ours]
        calls -= sum(one[1] for one in theirs)
        itself -= sum(one[2] for one in theirs)
        rows.append((f"{_short(file)}:{line} {name}", calls, max(itself, 0.0), min(max(whole, 0.0), seconds)))
    return tuple(sorted(rows, key=lambda row: -row[2])[:FUNCTIONS])


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
