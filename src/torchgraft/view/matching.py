"""Which module of one model is which of another: by the recipe, by name, by order, by structure and weights.

The result does not depend on which side comes first.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torchgraft.view.sides import Part, Side

__all__ = ["matched"]

Pairs = dict[str, str]
"""Path before -> path after."""


def matched(before: Side, after: Side) -> Pairs:
    """Give the modules that are the same one in two models: path before -> path after, parents first."""
    if _rank(before) > _rank(after):
        found = {one: other for other, one in _Matching(after, before).pairs.items()}
    else:
        found = _Matching(before, after).pairs
    return {path: found[path] for path in before.parts if path in found}


def _rank(side: Side) -> tuple[str, list[str], str]:
    return side.structures[""], [f"{one.kind()} {one.brief()}" for one in side.recipe.edits], side.print_of("")


class _Matching:
    """Pairs of modules as they are found, each module in one pair at most."""

    def __init__(self, one: Side, other: Side) -> None:
        self.one, self.other = one, other
        self.pairs: Pairs = {}
        self.taken: set[str] = set()
        self._pair("", "")
        for first, second in _by_recipe(one, other).items():
            if first not in self.pairs and second not in self.taken:
                self._pair(first, second)
        done: set[str] = set()
        while rest := [pair for pair in self.pairs.items() if pair[0] not in done]:
            for first, second in rest:
                done.add(first)
                self._children(one.parts[first], other.parts[second])
        self._moved()

    def _pair(self, first: str, second: str) -> None:
        self.pairs[first] = second
        self.taken.add(second)

    def _children(self, first: Part, second: Part) -> None:
        mine = [path for path in map(first.child, first.children) if self._free(path, self.one)]
        theirs = [path for path in map(second.child, second.children) if self._free(path, self.other)]
        numbered = all(path.rpartition(".")[2].isdigit() for path in (*mine, *theirs))
        if numbered:
            found = self._aligned(mine, theirs, 0)
        else:
            found = _same(mine, theirs, _name, _name)
            found += self._renamed(mine, theirs, found)
        for pair in found:
            self._pair(*pair)

    def _free(self, path: str, side: Side) -> bool:
        held = self.pairs if side is self.one else self.taken
        return path in side.parts and path not in held

    def _renamed(self, mine: list[str], theirs: list[str], found: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Pair what is left of the children, where just one on each side is built alike."""
        gone = {path for pair in found for path in pair}
        left = [path for path in mine if path not in gone], [path for path in theirs if path not in gone]
        return _same(*left, self.one.structures.__getitem__, self.other.structures.__getitem__)

    def _aligned(self, mine: Sequence[str], theirs: Sequence[str], level: int) -> list[tuple[str, str]]:
        """Align two sequences: by weights, then structure, then class, then name, each between what is paired."""
        if not (mine and theirs):
            return []
        if level == 3:
            return _same(mine, theirs, _name, _name) or _tail(mine, theirs)
        keys = self._keys(mine, self.one, level), self._keys(theirs, self.other, level)
        blocks = SequenceMatcher(None, keys[0], keys[1], autojunk=False).get_matching_blocks()
        found: list[tuple[str, str]] = []
        a = b = 0
        for i, j, size in blocks:
            found += self._aligned(mine[a:i], theirs[b:j], level + 1)
            found += zip(mine[i : i + size], theirs[j : j + size], strict=True)
            a, b = i + size, j + size
        return found

    def _keys(self, paths: Sequence[str], side: Side, level: int) -> list[str]:
        if level == 0:  # what holds no weights is told apart by nothing: it is left to the next level
            marks = [side.print_of(path) for path in paths]
            return [
                f"{side.structures[path]} {mark}" if mark else f"{side is self.one} {path}"
                for path, mark in zip(paths, marks, strict=True)
            ]
        return [side.structures[path] if level == 1 else side.parts[path].kind for path in paths]

    def _moved(self) -> None:
        """Pair what stands elsewhere now: the same structure with the same weights."""

        def unpaired(side: Side) -> dict[str, list[str]]:
            known: dict[str, list[str]] = defaultdict(list)
            for path in side.parts:
                if self._free(path, side) and (mark := side.print_of(path)):
                    known[f"{side.structures[path]} {mark}"].append(path)
            return known

        theirs = unpaired(self.other)
        for key, paths in unpaired(self.one).items():
            for first, second in zip(paths, theirs.get(key, ()), strict=False):
                self._whole(first, second)

    def _whole(self, first: str, second: str) -> None:
        inside = zip(self.one.below(first), self.other.below(second), strict=False)
        for one, other in inside:
            if self._free(one.path, self.one) and self._free(other.path, self.other):
                self._pair(one.path, other.path)


def _name(path: str) -> str:
    return path.rpartition(".")[2]


def _same(
    mine: Sequence[str], theirs: Sequence[str], key: Callable[[str], str], their_key: Callable[[str], str]
) -> list[tuple[str, str]]:
    """Pair what has the same key, where no other on its side has it."""
    counts = Counter(map(key, mine)), Counter(map(their_key, theirs))
    places = {their_key(path): path for path in theirs}
    return [(path, places[key(path)]) for path in mine if counts[0][key(path)] == 1 and counts[1][key(path)] == 1]


def _tail(mine: Sequence[str], theirs: Sequence[str]) -> list[tuple[str, str]]:
    """Take two single ones that stand at the same place of their sequences for one another."""
    return [(mine[0], theirs[0])] if len(mine) == len(theirs) == 1 else []


def _by_recipe(one: Side, other: Side) -> Pairs:
    """Pair the modules that edits moved, where both sides have the same base."""
    if one.recipe.base != other.recipe.base:
        return {}
    mine, theirs = _origins(one), _origins(other)
    both = [(mine[name], theirs[name]) for name in mine if name in theirs]
    return {first: second for first, second in both if first != second}


def _origins(side: Side) -> Pairs:
    """Give the path of each module by its name in the base.

    Where one stands at that name and another came from it, the first is meant; but what wraps the other is new.
    """
    moved: Pairs = {}
    stays: Pairs = {}
    for path, part in side.parts.items():
        name = side.recipe.base_name(path)
        if name != path:
            moved.setdefault(name, path)
        elif part.edit is None:
            stays[name] = path
    wrapped = {name for name, path in moved.items() if path.startswith(f"{name}.")}
    return {**moved, **{name: path for name, path in stays.items() if name not in wrapped}}
