"""Alike blocks in a row become one: the same kind, settings, shapes, parameters and wiring."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

from torchgraft.graph.drawing import Box, Edge
from torchgraft.graph.holdings import Holdings

__all__ = ["folded", "span"]

_Links = dict[str, dict[str, tuple[str, int]]]
"""For every box its neighbours on one side, and what goes between: shape and number."""


def folded(
    boxes: Sequence[Box], edges: Sequence[Edge], holdings: Holdings, names: Callable[[Box], object]
) -> tuple[Sequence[Box], Sequence[Edge]]:
    """Fold the boxes of one level.

    Args:
        boxes: in the order of the pass.
        edges: between them.
        holdings: what their modules hold.
        names: gives the names of all operations of a box's call.
    """
    into: _Links = defaultdict(dict)
    out: _Links = defaultdict(dict)
    for edge in edges:
        into[edge.target][edge.source] = out[edge.source][edge.target] = (edge.shape, edge.times)
    stands: dict[str, Box] = {}
    for run in _runs(boxes, into, out, lambda one, other: _alike(one, other, holdings, names)):
        first = _first(run)
        stands |= {box.id: first for box in run}
    if not stands:
        return boxes, edges
    kept = {stands.get(box.id, box).id: stands.get(box.id, box) for box in boxes}
    return list(kept.values()), _rewired(edges, stands)


def _rewired(edges: Sequence[Edge], stands: dict[str, Box]) -> list[Edge]:
    """Lead the edges of a run to the box that stands for it; those inside of it are gone."""
    kept: dict[tuple[str, str], Edge] = {}
    firsts = {box.id for box in stands.values()}
    for edge in edges:
        source = stands[edge.source].id if edge.source in stands else edge.source
        target = stands[edge.target].id if edge.target in stands else edge.target
        if source != target or source not in firsts:
            kept.setdefault((source, target), replace(edge, source=source, target=target))
    return list(kept.values())


def _runs(boxes: Sequence[Box], into: _Links, out: _Links, alike: Callable[[Box, Box], bool]) -> list[list[Box]]:
    """Give the runs of two or more."""
    runs: list[list[Box]] = []
    start = 0
    while start < len(boxes):
        end = start + 1
        while (
            end < len(boxes)
            and _joins(boxes[start:end], boxes[end], into, out)
            and alike(boxes[start], boxes[end])
        ):
            end += 1
        run = _trimmed(boxes[start:end], out)
        if len(run) > 1 and (run[0].boxes or len(run) > 2):
            runs.append(run)
        start += max(len(run), 1)
    return runs


def _joins(run: Sequence[Box], box: Box, into: _Links, out: _Links) -> bool:
    """Tell whether a box follows the last of a run as that did the one before, or stands beside all."""
    last = run[-1]
    if last.id not in into[box.id]:
        beside = into[box.id] == into[last.id] and out[box.id] == out[last.id]
        return beside and (len(run) < 2 or run[-2].id not in into[last.id])
    others = _without(into[box.id], last.id)
    if len(run) > 1:
        return run[-2].id in into[last.id] and _without(into[last.id], run[-2].id) == others
    return _enters(into[last.id], others)


def _enters(held: dict[str, tuple[str, int]], others: dict[str, tuple[str, int]]) -> bool:
    """Tell whether the first of a run gets what the others get, and one thing more."""
    more = [name for name, one in held.items() if one != others.get(name)]
    return others.keys() <= held.keys() and len(more) <= 1 and all(
        name not in others or held[name][1] == others[name][1] + 1 for name in more
    )  # fmt: skip


def _trimmed(run: Sequence[Box], out: _Links) -> list[Box]:
    """Cut a run where one of it goes elsewhere than the others do."""
    if len(run) < 2 or run[1].id not in out[run[0].id]:
        return list(run)
    others = _without(out[run[0].id], run[1].id).keys()
    end = 1
    while end < len(run) and _without(out[run[end - 1].id], run[end].id).keys() == others:
        end += 1
    while end > 1 and not others <= out[run[end - 1].id].keys():
        end -= 1
    return list(run[:end])


def _without(links: dict[str, tuple[str, int]], name: str) -> dict[str, tuple[str, int]]:
    return {one: held for one, held in links.items() if one != name}


def _alike(one: Box, other: Box, holdings: Holdings, names: Callable[[Box], object]) -> bool:
    """Tell whether two boxes are the same but for their names."""
    again = one.path == other.path  # then its parameters were counted at the first call
    if one.role != "module" or _plain(one, again) != _plain(other, again):
        return False
    if not _numbered_alike(one.label, other.label) or holdings.weights(one.path) != holdings.weights(other.path):
        return False
    return names(one) == names(other) and _inside(one, again) == _inside(other, again)


def _plain(box: Box, again: bool) -> tuple[object, ...]:
    words = (box.kind, box.role, box.detail, box.state, box.mark, box.edit, box.times, box.macs)
    return (*words, box.given, box.gave, len(box.boxes), 0 if again else box.parameters)


def _inside(box: Box, again: bool) -> list[object]:
    """Write what is in a box without its place."""
    place = {child.id: number for number, child in enumerate(box.boxes)}
    ends = [(place.get(e.source, -1), place.get(e.target, -1), e.shape, e.times, e.mark) for e in box.edges]
    return [ends, *((child.label, _plain(child, again), _inside(child, again)) for child in box.boxes)]


def _numbered_alike(one: str, other: str) -> bool:
    """Tell whether two names differ in their numbers alone."""
    return one == other or re.sub(r"\d+", "0", one) == re.sub(r"\d+", "0", other)


def _first(run: Sequence[Box]) -> Box:
    """Give the box that stands for a run."""
    first = run[0]
    paths = tuple(dict.fromkeys(box.path for box in run))
    if len(paths) == 1:
        note = f"one module, called {len(run)} times in a row"
        return replace(first, times=len(run), folded=paths, notes=(note, *first.notes), call=1, calls=1)
    return replace(first, label=span(run), times=sum(box.times for box in run), folded=paths)


def span(run: Sequence[Box]) -> str:
    """Write the names of a run as one: `0–3`, `block1–4`."""
    first, last = run[0].label, run[-1].label
    prefix = first.rstrip("0123456789")
    ends = last.removeprefix(prefix) if last.startswith(prefix) else last
    return first if first == last else f"{first}–{ends}"
