"""The grammar of selectors: globs over dotted paths, slices of children, class names; `not` and `&`."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

__all__ = ["Children", "Entry", "Selector", "entry_of"]

Children = Callable[[str], Sequence[str]]
"""Gives the names of a module's children in their order, by its path."""

Bracket = int | slice
_BRACKET = re.compile(r"\[(-\d+|-?\d*:-?\d*(?::-?\d*)?)\]$")
"""A slice, or a negative index; any other bracket is a class of characters, as in a shell."""


@dataclass(frozen=True)
class Selector:
    """A dotted glob over paths with slices and a class name: `layer[34].**:Conv2d`, `blocks[3:].attn`."""

    text: str

    @cached_property
    def _halves(self) -> tuple[str, str]:
        depth = 0
        for place, sign in enumerate(self.text):
            depth += {"[": 1, "]": -1}.get(sign, 0)
            if sign == ":" and depth == 0:
                return self.text[:place], self.text[place + 1 :]
        return self.text, ""

    @property
    def path(self) -> str:
        """The glob over the path, `**` where only a class is given."""
        return self._halves[0] or "**"

    @property
    def kind(self) -> str:
        """The class name asked for, or nothing."""
        return self._halves[1]

    @cached_property
    def _parts(self) -> tuple[tuple[str, tuple[Bracket, ...]], ...]:
        return tuple(_part(text) for text in self.path.split("."))

    def takes(self, path: str, types: Iterable[str] = (), children: Children = lambda _: ()) -> bool:
        """Tell whether a module or parameter of this path and these class names is meant.

        Args:
            path: of the module or parameter.
            types: names of its class and of the bases of that.
            children: the tree that slices are taken in.
        """
        if self.kind and self.kind not in types:
            return False
        if self.path == "**":
            return True
        return _fits(self._parts, path.split(".") if path else [], 0, children)

    def __str__(self) -> str:
        return self.text


def _part(text: str) -> tuple[str, tuple[Bracket, ...]]:
    """Take the slices off the end of one part of a path: `blocks[3:][-1]` -> `blocks`, (3:, -1)."""
    brackets: list[Bracket] = []
    while (found := _BRACKET.search(text)) is not None:
        inside = found[1]
        numbers = [int(number) if number else None for number in inside.split(":")]
        brackets.insert(0, slice(*numbers) if ":" in inside else int(inside))
        text = text[: found.start()]
    return text, tuple(brackets)


def _fits(
    pattern: Sequence[tuple[str, tuple[Bracket, ...]]], parts: Sequence[str], at: int, children: Children
) -> bool:
    if not pattern:
        return at == len(parts)
    glob, brackets = pattern[0]
    if glob == "**" and not brackets:
        return any(_fits(pattern[1:], parts, start, children) for start in range(at, len(parts) + 1))
    if glob or not brackets:
        if at >= len(parts) or not fnmatch.fnmatchcase(parts[at], glob):
            return False
        at += 1
    ends = _taken(brackets, parts, at, children)
    return ends is not None and _fits(pattern[1:], parts, ends, children)


def _taken(brackets: Sequence[Bracket], parts: Sequence[str], at: int, children: Children) -> int | None:
    """Give the place in a path behind what the brackets take; None: they take something else."""
    pending: Sequence[str] | None = None
    for bracket in brackets:
        names = list(children(".".join(parts[:at]))) if pending is None else list(pending)
        if isinstance(bracket, slice):
            pending = names[bracket] if bracket.step != 0 else []
            continue
        if at >= len(parts) or not -len(names) <= bracket < len(names) or parts[at] != names[bracket]:
            return None
        at, pending = at + 1, None
    if pending is None:
        return at
    return at + 1 if at < len(parts) and parts[at] in pending else None


@dataclass(frozen=True)
class Entry:
    """One entry of a list of selectors: terms that must all hold, each taken as it is or negated.

    Attributes:
        text: as it was written.
        terms: (negated, selector or role).
    """

    text: str
    terms: tuple[tuple[bool, str], ...]

    @property
    def takes_away(self) -> bool:
        """Whether it is one negated term, which is taken away from what the others select."""
        return len(self.terms) == 1 and self.terms[0][0]


def entry_of(text: str) -> Entry:
    """Read `layer3 & not norms`."""
    terms = [term.strip() for term in text.split("&")]
    return Entry(text, tuple((term.startswith("not "), term.removeprefix("not ").strip()) for term in terms))
