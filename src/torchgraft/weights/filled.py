"""The account of a loading: what became of every tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["Filled"]


@dataclass(frozen=True)
class Filled:
    """What became of every tensor.

    Attributes:
        origin: where the weights came from.
        loaded: names of the model that hold given values now, as they were given.
        resized: names that hold given values made to fit, and how.
        left: names that keep their own values although something was given, and why.
        missing: names that nothing was given for; they keep their own values.
        unexpected: given names that have no place in the model.
        changes: what was done to the names: unwrapped, prefixes, renamed, read by the base's names.
        broken: names that hold values now which are NaN or infinite, and how many.
        made: names of tensors that edits made anew, which keep their own values, and the number of the edit.
        gone: given names of the base's tensors that edits took out.
        drawn: names that lay on meta, were not given, and were drawn by `reset_parameters` of their modules.
        doubts: what speaks against the file itself: another hash than its name says, a part of several.
    """

    origin: str
    loaded: tuple[str, ...] = ()
    resized: Mapping[str, str] = field(default_factory=dict)
    left: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    broken: Mapping[str, int] = field(default_factory=dict)
    made: Mapping[str, int] = field(default_factory=dict)
    gone: tuple[str, ...] = ()
    drawn: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Tell whether every tensor of the model was given as it is, and none was left over."""
        return self.expected and not (self.resized or self.made or self.gone or self.drawn)

    @property
    def expected(self) -> bool:
        """Tell whether nothing is amiss: what was not given edits made anew, what has no place edits took out."""
        return not (self.left or self.missing or self.unexpected or self.broken or self.doubts)

    def __str__(self) -> str:
        lines = [f"{self.origin}: {len(self.loaded)} tensors loaded", *self.doubts, *self.changes]
        lines += [f"{name}: {how}" for name, how in self.resized.items()]
        lines += [f"{name} is left as it was: {why}" for name, why in self.left.items()]
        if self.broken:
            count = sum(self.broken.values())
            lines.append(f"{count:,} values are NaN or infinite: {_some(list(self.broken))}")
        numbers = sorted({number for number in self.made.values() if number})
        by = f" by edit {' and '.join(map(str, numbers))}" if numbers else ""
        for names, what in (
            (self.missing, "not given"),
            (self.unexpected, "without a place in the model"),
            (tuple(self.made), f"made anew{by}, keep their own values"),
            (self.gone, "without a place since an edit took them out"),
            (self.drawn, "drawn anew, since they lay on meta"),
        ):
            if names:
                lines.append(f"{len(names)} {what}: {_some(names)}")
        return "\n  ".join(lines)


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(names[:4])}{', …' if names[4:] else ''}"
