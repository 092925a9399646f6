"""Two sides compared: module by module as they are matched, tensor by tensor as they are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

from torchgraft.view.difference import Difference, Figures, ModuleChange, RecipeChange, TensorChange
from torchgraft.view.distance import distance, kept_part
from torchgraft.view.matching import matched

if TYPE_CHECKING:
    from torchgraft.edits.base import Edit
    from torchgraft.recipe import Recipe
    from torchgraft.view.sides import Held, Part, Side

__all__ = ["compare"]

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def compare(before: Side, after: Side, *, values: bool = True) -> Difference:
    """Say what differs between two models.

    Args:
        before: the first.
        after: the second.
        values: compare the numbers too, reading one tensor of each side at a time; without it, names, shapes and
            flags alone.
    """
    pairs = matched(before, after)
    modules = _Modules(before, after, pairs)
    tensors = _Tensors(before, after, pairs, values=values)
    changed = tuple(tensors.changes())
    return Difference(
        _figures(before),
        _figures(after),
        tuple(modules.changes()),
        changed,
        tuple(_recipes(before.recipe, after.recipe)),
        tensors.same,
        tensors.same_numbers,
        tensors.by_digest,
        values,
        tuple(dict.fromkeys((*before.notes, *after.notes, *modules.notes, *_drift(changed)))),
    )


def _figures(side: Side) -> Figures:
    once = [one for one in side.tensors.values() if not one.tied]
    counts = len(side.parts), len(once), side.parameters(), side.parameters(trainable=True)
    return Figures(side.title, *counts, side.macs)


class _Modules:
    """The modules of both sides, in one order."""

    def __init__(self, before: Side, after: Side, pairs: Mapping[str, str]) -> None:
        self.before, self.after = before, after
        self.pairs = pairs
        self.back = {second: first for first, second in pairs.items()}
        self.flags = before.parts[""].training == after.parts[""].training
        self.notes: tuple[str, ...] = ()
        if not self.flags:
            modes = ["training" if one.parts[""].training else "evaluation" for one in (before, after)]
            self.notes = (f"the first is in {modes[0]} mode, the second in {modes[1]} mode",)

    def changes(self) -> Iterator[ModuleChange]:
        """Give every module that differs."""
        for first, second in self._walk(""):
            change = self._change(first, second)
            if change is not None:
                yield change

    def _walk(self, path: str) -> Iterator[tuple[Part | None, Part | None]]:
        """Go through the second side; what is gone comes where it stood."""
        second = self.after.parts[path]
        first = self.before.parts.get(self.back.get(path, "\n"))
        yield first, second
        gone = self._gone(first) if first is not None else {}
        yield from self._removed(gone.get(None, []))
        for name in second.children:
            child = second.child(name)
            if child in self.after.parts:
                yield from self._walk(child)
                yield from self._removed(gone.get(child, []))

    def _gone(self, first: Part) -> dict[str | None, list[str]]:
        """Give the children that are gone, by what they stood behind."""
        found: dict[str | None, list[str]] = {}
        last: str | None = None
        siblings = {
            self.after.parts[self.pairs[first.path]].child(n)
            for n in self.after.parts[self.pairs[first.path]].children
        }
        for name in first.children:
            path = first.child(name)
            if self.pairs.get(path) in siblings:
                last = self.pairs[path]
            elif path in self.before.parts and path not in self.pairs:
                found.setdefault(last, []).append(path)
        return found

    def _removed(self, paths: list[str]) -> Iterator[tuple[Part, None]]:
        for path in paths:
            yield from ((part, None) for part in self.before.below(path) if part.path not in self.pairs)

    def _change(self, first: Part | None, second: Part | None) -> ModuleChange | None:
        if first is None or second is None:
            return self._one_sided(first, second)
        told = ModuleChange(
            first.path,
            second.path,
            (first.kind, second.kind),
            settings=_settings(first, second) if first.kind == second.kind else (),
            forward=first.kind == second.kind and first.forward != second.forward,
            order=self._reordered(first, second),
            training=(first.training, second.training) if self.flags else (False, False),
            given=(first.given, second.given),
            gave=(first.gave, second.gave),
            parameters=(self.before.parameters(first.path), self.after.parameters(second.path)),
            trainable=(
                self.before.parameters(first.path, trainable=True),
                self.after.parameters(second.path, trainable=True),
            ),
            macs=(first.macs, second.macs),
            edit=second.edit,
            modules=sum(1 for _ in self.after.below(second.path)),
            implied=self._follows(first, second),
        )
        figures: list[tuple[Any, Any]] = [told.parameters, told.trainable]
        if self.before.macs is not None and self.after.macs is not None:
            figures += [told.macs, told.given, told.gave]
        return told if told.way != "inside" or any(one[0] != one[1] for one in figures) else None

    def _one_sided(self, first: Part | None, second: Part | None) -> ModuleChange | None:
        part, side = (second, self.after) if first is None else (first, self.before)
        if part is None:
            return None
        paired = self.back if first is None else self.pairs

        def pair(mine: Any, empty: Any) -> Any:
            return (empty, mine) if first is None else (mine, empty)

        return ModuleChange(
            None if first is None else part.path,
            None if second is None else part.path,
            pair(part.kind, ""),
            given=pair(part.given, ()),
            gave=pair(part.gave, ()),
            parameters=pair(side.parameters(part.path, but=paired), 0),
            trainable=pair(side.parameters(part.path, trainable=True, but=paired), 0),
            macs=pair(part.macs, 0),
            edit=part.edit,
            modules=sum(1 for _ in side.below(part.path)),
            implied=self._with_parent(part.path, paired),
        )

    def _with_parent(self, path: str, paired: Mapping[str, str]) -> bool:
        """Tell whether what holds a module came or went as well, or is of another class now."""
        home = path.rpartition(".")[0]
        if not path or home not in paired:
            return bool(path)
        pair = (home, paired[home]) if paired is self.pairs else (paired[home], home)
        return self.before.parts[pair[0]].kind != self.after.parts[pair[1]].kind

    def _follows(self, first: Part, second: Part) -> bool:
        """Tell whether a module stands where what holds it does, under its own name."""
        home = second.path.rpartition(".")[0]
        return first.name == second.name and self.back.get(home) == first.path.rpartition(".")[0]

    def _reordered(self, first: Part, second: Part) -> bool:
        """Tell whether the order of what both hold changed, where the order is the order of the pass."""
        if second.kind != "Sequential":
            return False
        now = [second.child(name) for name in second.children]
        then = [self.pairs.get(first.child(name)) for name in first.children]
        kept = [path for path in then if path in now]
        return kept != [path for path in now if path in kept]


def _settings(first: Part, second: Part) -> tuple[tuple[str, Any, Any], ...]:
    names = {**first.settings, **second.settings}
    pairs = ((name, first.settings.get(name), second.settings.get(name)) for name in names)
    return tuple((name, old, new) for name, old, new in pairs if repr(old) != repr(new))


class _Tensors:
    """The tensors of both sides, one pair at a time."""

    def __init__(self, before: Side, after: Side, pairs: Mapping[str, str], *, values: bool) -> None:
        self.before, self.after = before, after
        self.pairs = pairs
        self.values = values
        self.same = self.same_numbers = self.by_digest = 0
        self.names = {
            one.name: other.name
            for first, second in pairs.items()
            for name, one in before.parts[first].held.items()
            if (other := after.parts[second].held.get(name)) is not None
        }

    def changes(self) -> Iterator[TensorChange]:
        """Give every tensor that differs, in the order of the second side, then what is gone."""
        back = {other: one for one, other in self.names.items()}
        for name, other in self.after.tensors.items():
            one = self.before.tensors[back[name]] if name in back else None
            change = self._pair(one, other) if one is not None else _alone(None, other)
            if change is not None:
                yield change
        yield from (_alone(one, None) for name, one in self.before.tensors.items() if name not in self.names)

    def _pair(self, one: Held, other: Held) -> TensorChange | None:
        ties = one.tied, other.tied
        if all(ties) and self.names.get(one.tied, one.tied) == other.tied:
            return None  # the same tie: it is told at its first name
        told = TensorChange(
            one.name,
            other.name,
            (one.shape, other.shape),
            (one.dtype, other.dtype),
            other.buffer,
            (one.trainable, other.trainable),
            ties,
            **self._compared(one, other),
        )
        if told.way != "moved":
            return told
        self.same += 1
        self.same_numbers += other.size
        return None

    def _compared(self, one: Held, other: Held) -> dict[str, Any]:
        if not self.values:
            return {}
        marks = self.before.digest(one.name), self.after.digest(other.name)
        if marks[0] and marks[0] == marks[1]:
            self.by_digest += 1
            return {}
        first, second = self.before.read(one.name), self.after.read(other.name)
        if first is None or second is None or first.is_meta or second.is_meta:
            return {"unknown": True}
        both = (first, second) if first.shape == second.shape else kept_part(first, second)
        if both is None:
            return {}
        statistics = _is_statistic(self.after, other) and (
            _is_statistic(self.before, one) or _is_base(self.before, self.after)
        )
        return {"distance": distance(*both), "statistics": statistics}


def _is_statistic(side: Side, one: Held) -> bool:
    """Tell whether a buffer is a running statistic of a norm whose weights training does not change."""
    home, _, name = one.name.rpartition(".")
    weights = [held for held in side.parts[home].held.values() if not held.buffer]
    return one.buffer and name in _STATISTICS and bool(weights) and not any(x.trainable for x in weights)


def _is_base(before: Side, after: Side) -> bool:
    """Tell whether one side is what the other was made from."""
    same = (before.recipe.base, before.recipe.seed) == (after.recipe.base, after.recipe.seed)
    return same and not before.recipe.edits


def _alone(one: Held | None, other: Held | None) -> TensorChange:
    known = one or other
    assert known is not None
    empty: tuple[int, ...] = ()
    return TensorChange(
        one.name if one else None,
        other.name if other else None,
        (one.shape if one else empty, other.shape if other else empty),
        (one.dtype if one else "", other.dtype if other else ""),
        known.buffer,
        (bool(one and one.trainable), bool(other and other.trainable)),
        (one.tied if one else "", other.tied if other else ""),
    )


def _drift(changes: tuple[TensorChange, ...]) -> Iterator[str]:
    """Say where a norm's statistics moved though its weights are frozen, and the same on both sides.

    Two trainings of one base, one of all and one with a frozen base, differ in the weights of their norms too.
    """
    trained = {one.name.rpartition(".")[0] for one in changes if not one.buffer and one.way != "frozen"}
    moved = dict.fromkeys(
        one.name.rpartition(".")[0]
        for one in changes
        if one.statistics
        and one.way == "changed"
        and not one.name.endswith("num_batches_tracked")
        and one.name.rpartition(".")[0] not in trained
    )
    if moved:
        yield (
            f"the running statistics of {len(moved)} frozen norm{'s'[: len(moved) != 1]} moved, such as "
            f"{next(iter(moved))}: frozen weights alone don't keep them still, freeze(still=True) does"
        )


def _recipes(before: Recipe, after: Recipe) -> Iterator[RecipeChange]:
    """Give the lines of two recipes that differ."""
    one, other = _plain(before), _plain(after)
    for name in {**one, **other}:
        if one.get(name) != other.get(name):
            yield RecipeChange(name, one.get(name), other.get(name))
    mine, theirs = [_line(edit) for edit in before.edits], [_line(edit) for edit in after.edits]
    for kind, a, b, c, d in SequenceMatcher(None, mine, theirs, autojunk=False).get_opcodes():
        if kind != "equal":
            yield from (RecipeChange("edits", line, None) for line in mine[a:b])
            yield from (RecipeChange("edits", None, line) for line in theirs[c:d])


def _plain(recipe: Recipe) -> dict[str, str]:
    """Write all but the edits as lines, each under its dotted name."""
    found: dict[str, str] = {}

    def gather(value: Any, name: str) -> None:
        if isinstance(value, dict) and value and name.count(".") < 2:
            for key, one in value.items():
                gather(one, f"{name}.{key}" if name else str(key))
        elif value not in (None, {}, []):
            found[name] = _flow(value)

    gather({key: one for key, one in recipe.brief().items() if key not in ("edits", "torchgraft")}, "")
    return found


def _line(edit: Edit) -> str:
    """Write an edit as it stands in a recipe, without what was noted when it was applied."""
    return _flow({edit.kind(): {name: one for name, one in edit.brief().items() if name not in edit.written}})


def _flow(value: Any) -> str:
    import yaml

    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6)
    text = text.strip().removesuffix("...").strip()
    return text[1:-1] if isinstance(value, dict) else text
