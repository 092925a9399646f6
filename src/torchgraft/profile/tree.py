"""The parts of a run as lines of a tree: each module with all that is inside it, opened where the time goes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torchgraft.profile.record import Part, Run

__all__ = ["Line", "lines"]

OPENED = 24
"""So many lines a tree has at most, about."""

SMALL = 0.004
"""The share of a step below which lines are folded into one."""

TIMES = ("forward", "backward", "products", "moving", "between", "flops", "bytes")


@dataclass(frozen=True)
class Line:
    """One line: a module with all inside it, or several small ones.

    Attributes:
        path: of the module; that of the parent where several are folded.
        label: what is shown.
        depth: how far it is indented.
        whole: the sums over the module and all inside it.
        held: bytes at the peak.
        share: of the step's seconds.
    """

    path: str
    label: str
    depth: int
    whole: Part
    held: int
    share: float


def lines(run: Run, limit: int = OPENED) -> list[Line]:
    """Give the lines of a run: what has the largest share is opened, again and again, up to `limit` lines."""
    whole = _whole(run.parts)
    inside = _inside(run.parts)
    held = _held(run)
    opened, count = {""}, len(inside.get("", ()))
    while True:
        shut = [path for path in whole if path not in opened and inside.get(path) and _up(path, whole) in opened]
        largest = max(shut, key=lambda path: whole[path].seconds, default=None)
        if largest is None or whole[largest].seconds < 0.04 * run.seconds:
            break
        if count + len(inside[largest]) > limit:
            break
        opened.add(largest)
        count += len(inside[largest])
    found: list[Line] = []
    _add(found, "", 0, run, whole, inside, held, opened)
    return found


def _add(
    found: list[Line],
    path: str,
    depth: int,
    run: Run,
    whole: Mapping[str, Part],
    inside: Mapping[str, Sequence[str]],
    held: Mapping[str, int],
    opened: set[str],
) -> None:
    """Add what is inside a module, what is small last and as one."""
    own = next((part for part in run.parts if part.path == path), Part(path, ""))
    small = [one for one in inside.get(path, ()) if whole[one].seconds < SMALL * run.seconds]
    small = [one for one in small if not whole[one].note.startswith("edit")]
    if len(small) < 2:
        small = []
    for one in inside.get(path, ()):
        if one in small:
            continue
        label = one.removeprefix(f"{path}.") if path else one
        found.append(Line(one, label, depth, whole[one], held.get(one, 0), whole[one].seconds / run.seconds))
        if one in opened:
            _add(found, one, depth + 1, run, whole, inside, held, opened)
    if small:
        parts = [whole[one] for one in small]
        size = sum(held.get(one, 0) for one in small)
        several = _sum(parts, path, "")
        found.append(Line(path, f"{len(small)} more", depth, several, size, several.seconds / run.seconds))
    if own.seconds >= SMALL * run.seconds:
        label = "its own forward" if path else "the model's own forward"
        size = held.get(path, 0) - sum(held.get(one, 0) for one in inside.get(path, ()))
        found.append(Line(path, label, depth, own, size, own.seconds / run.seconds))


def _whole(parts: Sequence[Part]) -> dict[str, Part]:
    """Add up each module with all inside it."""
    paths = {part.path for part in parts}
    gathered: dict[str, list[Part]] = defaultdict(list)
    for part in parts:
        path: str | None = part.path
        while path is not None:
            gathered[path].append(part)
            path = _up(path, paths)
    return {
        part.path: replace(_sum(gathered[part.path], part.path, part.kind, part.calls), note=part.note)
        for part in parts
    }


def _sum(parts: Sequence[Part], path: str, kind: str, calls: int = 0) -> Part:
    sums = {name: sum(getattr(part, name) for part in parts) for name in TIMES}
    by: dict[str, float] = defaultdict(float)
    for part in parts:
        by[part.bound] += part.seconds
    bound = max(by, key=lambda name: by[name]) if by else ""
    return Part(path, kind, calls, **sums, bound=bound)


def _inside(parts: Sequence[Part]) -> dict[str, list[str]]:
    paths = {part.path for part in parts}
    found: dict[str, list[str]] = defaultdict(list)
    for part in parts:
        up = _up(part.path, paths)
        if up is not None:
            found[up].append(part.path)
    return found


def _up(path: str, paths: Mapping[str, Part] | set[str]) -> str | None:
    """Give the path of the module that one is in; None for the model itself. Several models share a root ''."""
    while path:
        path = path.rpartition(".")[0]
        if path in paths or not path:
            return path
    return None


def _held(run: Run) -> dict[str, int]:
    """Add up what each module and all inside it hold at the peak."""
    paths = {part.path for part in run.parts}
    found: dict[str, int] = defaultdict(int)
    for path, _, size in run.peak.holders if run.peak is not None else ():
        up: str | None = path if path in paths else None
        while up is not None:
            found[up] += size
            up = _up(up, paths)
    return found
