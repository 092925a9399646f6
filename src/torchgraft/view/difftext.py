"""A difference in words: recipe, modules, work, tensors folded where they are many, and the sums."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

from torchgraft.params.groups import aligned
from torchgraft.view.difference import Difference, ModuleChange, RecipeChange, TensorChange

__all__ = ["FOLDED", "Line", "text"]

Line = tuple[Literal["", "+", "-", "~", ">", "!", "#"], str]
"""A line with what it is: added, removed, changed, moved, a note, a heading, or plain."""

FOLDED = 12
"""Above so many lines a part is folded by module."""

_LONG = 110
"""So many characters of an edit are shown; --json has all."""

_SIGNS: dict[str, Any] = {
    "added": "+", "removed": "-", "changed": "~", "moved": ">", "reshaped": "~", "retyped": "~", "tied": "~",
    "frozen": "~", "unfrozen": "~", "unknown": "~",
}  # fmt: skip


def text(told: Difference, *, limit: int = FOLDED) -> list[Line]:
    """Give a difference line by line.

    Args:
        told: what differs.
        limit: fold modules, and tensors, where they would take more lines.
    """
    lines: list[Line] = [("#", f"{told.before.title} → {told.after.title}")]
    parts = (
        ("recipe", _recipe(told.recipe)),
        ("modules", _modules(told.modules, limit)),
        ("work", _work(told)),
        ("tensors", _tensors(told.tensors, limit)),
    )
    for heading, part in parts:
        if part:
            lines += [("", ""), ("#", heading), *part]
    notes = [("!", f"! {note}") for note in told.notes]
    return [*lines, ("", ""), *([*notes, ("", "")] if notes else []), *_sums(told)]  # type: ignore[list-item]


# the recipe


def _recipe(changes: Sequence[RecipeChange]) -> list[Line]:
    found: list[Line] = []
    for one in changes:
        if one.before is not None and one.after is not None:
            found.append(("~", f"~ {one.line}: {one.before} → {one.after}"))
        else:
            sign: Any = "+" if one.before is None else "-"
            said = (one.after if one.before is None else one.before) or ""
            found.append((sign, f"{sign} {_short(said) if one.line == 'edits' else f'{one.line}: {said}'}"))
    return found


def _short(said: str) -> str:
    return said if len(said) <= _LONG else f"{said[: _LONG - 2]} …"


# modules


def _modules(changes: Sequence[ModuleChange], limit: int) -> list[Line]:
    shown = [one for one in changes if one.way != "inside" and not (one.implied and one.way != "changed")]
    rows = _in_rows(shown)
    if len(rows) > limit:
        rows = _by_home(shown, limit)
    written = [(f"{_SIGNS[way]} {name}", what, size, note) for way, name, what, size, note in rows]
    lines = aligned(written, left=(0, 1, 3)) if written else iter(())
    found: list[Line] = [(_SIGNS[row[0]], line) for row, line in zip(rows, lines, strict=True)]
    return [*found, *_other_shapes(changes)]


_Row = tuple[str, str, str, str, str]
"""What became of it, its name, what it is, how many parameters came or went, and what else is to say."""


def _in_rows(changes: Sequence[ModuleChange]) -> list[_Row]:
    """Write a row for each module; those that differ by one number in their paths alone share one."""
    counts = Counter(pattern for one in changes for pattern in _patterns(one))
    groups: dict[Any, list[ModuleChange]] = {}
    for place, one in enumerate(changes):
        widest = max(_patterns(one), key=counts.__getitem__, default=None)
        groups.setdefault(place if widest is None else widest, []).append(one)
    return [_row(group) for group in groups.values()]


def _patterns(one: ModuleChange) -> list[Any]:
    """Say what others must share with a module to be told with it, for each number in its path."""
    parts = one.path.split(".")
    delta = one.parameters[1] - one.parameters[0]
    told = (one.way, one.kind, one.modules, one.settings, one.forward, one.order, one.training, one.edit, delta)
    was = "" if one.before is None or one.after is None or one.before == one.after else one.before
    return [
        (*told, _starred(parts, place), _starred(was.split("."), place))
        for place, part in enumerate(parts)
        if part.isdigit()
    ]


def _starred(parts: Sequence[str], place: int) -> str:
    return ".".join("*" if number == place else part for number, part in enumerate(parts))


def _row(group: list[ModuleChange]) -> _Row:
    one = group[0]
    delta = sum(each.parameters[1] - each.parameters[0] for each in group)
    name = _common([each.path for each in group]) or "(the model)"
    return one.way, name, _what(one, len(group)), f"{delta:+,}" if delta else "", _note(group)


def _common(paths: Sequence[str]) -> str:
    """Write paths that differ by one number as one: `layer.[0-2].query`."""
    columns = list(zip(*(path.split(".") for path in paths), strict=True))
    return ".".join(column[0] if len(set(column)) == 1 else _numbers(column) for column in columns)


def _numbers(words: Sequence[str]) -> str:
    known = sorted(map(int, words))
    if known == list(range(known[0], known[-1] + 1)):
        return f"[{known[0]}-{known[-1]}]"
    return f"[{','.join(map(str, known))}]" if len(known) < 4 else "*"


def _what(one: ModuleChange, count: int) -> str:
    kind = one.kind[one.before is None or one.after is not None]
    if one.kind[0] != one.kind[1] and one.before is not None and one.after is not None:
        return f"{one.kind[0]} → {one.kind[1]}"
    return f"{kind} × {count}" if count > 1 else kind


def _note(group: Sequence[ModuleChange]) -> str:
    one = group[0]
    said = [f"{name} {_value(old)} → {_value(new)}" for name, old, new in one.settings[:4]]
    said += [f"{len(one.settings) - 4} more settings"] if len(one.settings) > 4 else []
    said += ["another forward pass"] if one.forward else []
    said += ["its children in another order"] if one.order else []
    if one.training[0] != one.training[1]:
        said.append(f"in {'training' if one.training[1] else 'evaluation'} mode")
    if one.before is not None and one.after is not None and one.before != one.after:
        said.append(f"was {_common([each.before or '' for each in group]) or '(the model)'}")
    if len({each.gave for each in group}) == 1:
        said += _gives(one)
    return ", ".join([*said, *([f"edit {one.edit}"] if one.edit is not None else [])])


def _gives(one: ModuleChange) -> list[str]:
    if all(one.gave) and one.gave[0] != one.gave[1]:
        return [f"gives {_shapes(one.gave[0])} → {_shapes(one.gave[1])}"]
    return [f"gives {_shapes(one.gave[1])}"] if one.way == "added" and one.gave[1] else []


def _value(value: Any) -> str:
    return "none" if value is None else str(value)


def _shapes(shapes: Sequence[str]) -> str:
    return shapes[0] if len(shapes) == 1 else f"{shapes[0]} and {len(shapes) - 1} more"


def _by_home(changes: Sequence[ModuleChange], limit: int) -> list[_Row]:
    """Fold modules by what holds them, as little as it takes."""
    deepest = max(one.path.count(".") for one in changes) + 1
    rows: list[_Row] = []
    for depth in range(deepest, 0, -1):
        rows = [_folded(list(group), depth) for group in _grouped(changes, lambda one: one.path, depth)]
        if len(rows) <= limit:
            break
    return rows


def _folded(group: list[ModuleChange], depth: int) -> _Row:
    if len(group) == 1:
        return _row(group)
    delta = sum(one.parameters[1] - one.parameters[0] for one in group)
    kinds = list(dict.fromkeys(one.kind[one.before is None] for one in group))
    what = f"{len(group)} × {kinds[0]}" if len(kinds) == 1 else f"{len(group)} modules"
    notes = list(
        dict.fromkeys(filter(None, (re.sub(r"was .*|gives .*", "", _note([one])).strip(", ") for one in group)))
    )
    note = notes[0] if len(notes) == 1 else ""
    return group[0].way, f"{_prefix(group[0].path, depth)}.**", what, f"{delta:+,}" if delta else "", note


def _grouped(changes: Iterable[Any], name: Callable[[Any], str], depth: int) -> Iterator[list[Any]]:
    """Group what became the same within the same module, down to so many parts of its path."""
    found: dict[tuple[str, str], list[Any]] = {}
    for one in changes:
        found.setdefault((one.way, _prefix(name(one), depth)), []).append(one)
    return iter(found.values())


def _prefix(path: str, depth: int) -> str:
    return ".".join(path.split(".")[:depth])


def _other_shapes(changes: Sequence[ModuleChange]) -> list[Line]:
    """Say where nothing but the shapes changed."""
    others = [one for one in changes if one.way in ("inside", "moved") and one.path and one.gave[0] != one.gave[1]]
    if not others:
        return []
    one = others[0]
    name = "module sees" if len(others) == 1 else "modules see"
    shapes = " → ".join(_shapes(gave) if gave else "nothing" for gave in one.gave)
    return [("~", f"~ {len(others)} unchanged {name} other shapes, from {one.path} on: {shapes}")]


# work


def _work(told: Difference) -> list[Line]:
    """Show what came of parameters and MACs, by the modules at the top."""
    rows = [
        one
        for one in told.modules
        if one.path
        and "." not in one.path
        and (one.parameters[0] != one.parameters[1] or one.macs[0] != one.macs[1])
    ]
    known = told.before.macs is not None and told.after.macs is not None
    cells = [
        (f"  {one.path}", *_arrow(*one.parameters), *(_arrow(*one.macs) if known else ("", "", "", "")))
        for one in rows
    ]
    if not cells:
        return []
    work = _arrow(told.before.macs or 0, told.after.macs or 0) if known else ("", "", "", "")
    whole = ("  all", *_arrow(told.before.parameters, told.after.parameters), *work)
    head = ("", "parameters", "", "", "", *(("MACs", "", "", "") if known else ("", "", "", "")))
    return [("", line) for line in aligned([head, *cells, whole], left=(0,))]


def _arrow(old: int, new: int) -> tuple[str, str, str, str]:
    change = "" if old == new else f"{(new - old) / old * 100:+.1f} %" if old else "new"
    return f"{old:,}", "→", f"{new:,}", change


# tensors


def _tensors(changes: Sequence[TensorChange], limit: int) -> list[Line]:
    if not changes:
        return []
    deepest = max(one.name.count(".") for one in changes) + 1
    groups: list[list[TensorChange]] = []
    depth = deepest
    for depth in range(deepest, 0, -1):
        groups = list(_grouped(changes, lambda one: one.name, depth))
        if len(groups) <= limit:
            break
    rows = [_tensor_row(group, depth) for group in groups]
    lines = aligned(rows, left=(0, 1, 3))
    return [(_SIGNS[group[0].way], line) for group, line in zip(groups, lines, strict=True)]


def _tensor_row(group: list[TensorChange], depth: int) -> tuple[str, str, str, str]:
    one = group[0]
    sign = _SIGNS[one.way]
    size = f"{sum(each.size for each in group):,}"
    if len(group) > 1:
        return f"{sign} {_prefix(one.name, depth)}.**", f"{len(group)} tensors", size, _apart(group)
    renamed = f", was {one.before}" if one.before and one.after and one.before != one.after else ""
    return f"{sign} {one.name}", _sizes(one), size, f"{_apart(group)}{renamed}"


def _sizes(one: TensorChange) -> str:
    sides = ["×".join(map(str, shape)) or "a number" for shape in one.shape]
    if one.way == "reshaped":
        return " → ".join(sides)
    return sides[one.after is not None]


def _apart(group: Sequence[TensorChange]) -> str:
    """Say how far the tensors of a group are apart."""
    one = group[0]
    words = {
        "added": "new",
        "removed": "gone",
        "frozen": "frozen now, the same values" if _same_values(group) else "frozen now",
        "unfrozen": "trainable now, the same values" if _same_values(group) else "trainable now",
        "unknown": "no values to compare (meta)",
    }
    if one.way == "tied":
        return f"= {one.tied[1]}" if one.tied[1] else f"no longer = {one.tied[0]}"
    if one.way in words:
        return words[one.way]
    said = [f"{one.dtype[0]} → {one.dtype[1]}"] if one.way == "retyped" else []
    said += [_kept(group)] if one.way == "reshaped" else _figures(group)
    flags = {each.trainable for each in group if each.trainable[0] != each.trainable[1]}
    said += [f"{'trainable' if flag[1] else 'frozen'} now" for flag in sorted(flags)]
    return ", ".join(said)


def _same_values(group: Sequence[TensorChange]) -> bool:
    return all(one.distance is not None or not one.unknown for one in group)


def _kept(group: Sequence[TensorChange]) -> str:
    known = [one.distance for one in group if one.distance is not None]
    if not known:
        return "another shape"
    if not any(one.changed for one in known):
        return "what both have is the same"
    return f"what both have: {', '.join(_figures(group))}"


def _figures(group: Sequence[TensorChange]) -> list[str]:
    known = [one.distance for one in group if one.distance is not None]
    if not known:
        return []
    if all(one.bits_alone for one in known):
        return ["bits alone: signs of zeros, or NaNs"]
    changed, size = sum(one.changed for one in known), sum(one.size for one in known)
    said = [] if changed == size else [f"{changed:,} of {size:,} numbers"]
    distances = [one.distance for one in group if one.distance is not None and not one.counts]
    if not distances:
        return [f"a counter, by {max(one.max_abs for one in known):,.0f}"]
    broken, mended = sum(one.broken for one in known), sum(one.mended for one in known)
    known = distances
    relative = sorted(one.relative for one in known if one.relative)
    said += [f"relative {_span([_percent(one) for one in relative])}"] if relative else []
    largest = max(one.max_abs for one in known)
    said += [f"at most {largest:.3g}"] if largest else []
    cosines = [one.cosine for one in known if one.cosine is not None]
    said += [f"cosine {min(cosines):.4f}"] if cosines and min(cosines) < 0.99995 else []
    said += [f"{broken:,} became NaN or infinite"] if broken else []
    return [*said, *([f"{mended:,} were NaN or infinite"] if mended else [])]


def _percent(value: float) -> str:
    return f"{value * 100:.2g} %" if value < 0.995 else f"{value * 100:,.0f} %"


def _span(values: Sequence[str]) -> str:
    return values[0] if values[0] == values[-1] else f"{values[0]} … {values[-1]}"


# the sums


def _sums(told: Difference) -> list[Line]:
    kept = f"{told.same_tensors:,} tensors ({told.same_numbers:,} numbers)" if told.same_tensors else "no tensor"
    how = "the same bit for bit" if told.compared else "of the same names and shapes (values not compared)"
    known = f", {told.by_digest:,} of them by their hashes" if told.by_digest else ""
    if not told:
        return [("", f"no difference: {kept} {how}{known}")]
    counts = [f"{count} {way}" for way, count in told.counted().items() if count]
    tensors = {way: sum(one.way == way for one in told.tensors) for way in _SIGNS}
    words = {"added": "new", "removed": "gone"}
    listed = [f"{count} {words.get(way, way)}" for way, count in tensors.items() if count]
    modules = f"modules: {', '.join(counts)}; " if counts else ""
    return [
        ("", f"{modules}tensors: {', '.join(listed) or 'no difference'}; {kept} {how}{known}"),
        ("", _totals(told)),
    ]


def _totals(told: Difference) -> str:
    pairs = [
        ("parameters", told.before.parameters, told.after.parameters),
        ("trainable", told.before.trainable, told.after.trainable),
    ]
    if told.before.macs is not None and told.after.macs is not None:
        pairs.append(("MACs", told.before.macs, told.after.macs))
    return ", ".join(
        f"{name} {old:,}" if old == new else f"{name} {old:,} → {new:,} ({_arrow(old, new)[3]})"
        for name, old, new in pairs
    )
