"""A summary as text: for a terminal of any width, for Python, and for a notebook."""

from __future__ import annotations

import html as markup
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torchgraft.paths import homes
from torchgraft.trace.record import Value
from torchgraft.view.summary_lines import Line, lines_of

if TYPE_CHECKING:
    from rich.text import Text

    from torchgraft.view.summary import Seen, Summary
    from torchgraft.view.summary_rows import Row, Shape

__all__ = ["bar", "coloured", "html", "plain", "si"]

Span = tuple[str, str]
"""Words, and how they look."""

Cell = tuple[Span, ...]

_LEFT = ("module", "takes", "gives", "trained", "", "notes")
_BAR = 10
_EIGHTHS = " ▏▎▍▌▋▊▉"


@dataclass(frozen=True)
class _Fit:
    """What makes a table narrow.

    Attributes:
        without: columns that are left out.
        room: for the name of a module with its class; the class goes first.
        notes: room for what is particular about a line.
        shapes: so many of those that a module gives.
        short: numbers of parameters in three digits.
    """

    without: tuple[str, ...] = ()
    room: int = 10_000
    notes: int = 60
    shapes: int = 2
    short: bool = False


def plain(summary: Summary, width: int | None = None) -> str:
    """Write a summary as plain text, no line longer than `width` characters."""
    return "\n".join("".join(words for words, _ in line).rstrip() for line in _page(summary, width))


def coloured(summary: Summary, width: int | None = None) -> Text:
    """Write a summary in the colours of a terminal."""
    from rich.text import Text

    lines = [Text.assemble(*line, no_wrap=True, overflow="crop") for line in _page(summary, width)]
    return Text("\n").join(lines)


_COLOURS = {
    "bold": "font-weight:600", "dim": "opacity:.6", "cyan": "color:#0e7490", "green": "color:#15803d",
    "red": "color:#b91c1c", "blue": "color:#1d4ed8",
}  # fmt: skip


def html(summary: Summary) -> str:
    """Write a summary for a notebook: long lines scroll, and do not wrap."""
    lines = []
    for line in _page(summary, None):
        spans = (
            f'<span style="{_COLOURS[style]}">{markup.escape(words)}</span>' if style else markup.escape(words)
            for words, style in line
        )  # fmt: skip
        lines.append("".join(spans))
    body = "\n".join(lines)
    return f'<pre style="white-space:pre;overflow-x:auto;line-height:1.25">{body}</pre>'


def _page(summary: Summary, width: int | None) -> list[list[Span]]:
    lines = lines_of(summary.rows, summary.depth)
    page = [*_table(summary, lines, width), []]
    page += [[(part, "")] for one in _totals(summary) for part in _wrapped(one, width)]
    return [*page, *([[], *_broken(summary, width)] if summary.broke else [])]


def _broken(summary: Summary, width: int | None) -> list[list[Span]]:
    lines = [" ".join(one.split("   ")) if width is not None else one for one in summary.broke.splitlines()]
    return [[(part, "red")] for one in lines for part in _wrapped(one, width)]


def _wrapped(words: str, width: int | None) -> list[str]:
    """Break a sentence between words, where it is too long."""
    if width is None or len(words) <= width:
        return [words]
    return textwrap.wrap(words, width, subsequent_indent="  ")


# the table


def _table(summary: Summary, lines: Sequence[Line], width: int | None) -> list[list[Span]]:
    """Lay the table out, with as much as there is room for."""
    for fit in _fits(summary):
        rows = _cells(summary, lines, fit)
        if width is None or _wide(rows) <= width:
            return _aligned(rows)
    room = max(fit.room - (_wide(rows) - (width or 0)), 12)
    rows = _cells(summary, lines, replace(fit, room=room))
    return [_cut_line(line, width or 0) for line in _aligned(rows)]


def _fits(summary: Summary) -> Iterator[_Fit]:
    """What a narrow terminal does without, step by step."""
    other = "MACs" if summary.by == "memory" else "activations"
    bare = ("bar", "takes")
    yield _Fit()
    yield _Fit(("bar",), notes=28)
    yield _Fit(("bar",), notes=28, shapes=1)
    yield _Fit(bare, room=44, notes=28, shapes=1)
    yield _Fit(bare, room=40, notes=20, shapes=1, short=True)
    yield _Fit((*bare, other), room=40, notes=20, shapes=1, short=True)
    yield _Fit((*bare, other), room=32, notes=20, shapes=1, short=True)
    yield _Fit((*bare, other), room=24, notes=16, shapes=1, short=True)
    yield _Fit((*bare, other, "gives"), room=28, notes=16, short=True)
    yield _Fit((*bare, "gives", "activations", "MACs"), room=28, notes=12, short=True)
    yield _Fit((*bare, "gives", "activations", "MACs", "trained"), room=20, notes=12, short=True)


def _cells(summary: Summary, lines: Sequence[Line], fit: _Fit) -> list[tuple[Cell, ...]]:
    """Give the table as cells, its head first; columns that say nothing are left out."""
    head = ("module", "takes", "gives", "parameters", "trained", "MACs", "activations", f"of {_WHAT[summary.by]}",
            "bar", "notes")  # fmt: skip
    named = {"bar": "", "notes": "", **({"parameters": "params"} if fit.short else {})}
    shown = tuple(((named.get(name, name), "bold"),) for name in head)
    last = _deepest(summary, lines)
    rows = [shown, *[_row(summary, line, fit, broke=line is last) for line in lines]]
    without = {*fit.without, *(() if summary.takes else ("takes",))}
    if summary.whole.trainable == summary.whole.parameters:
        without.add("trained")
    kept = [
        n for n, name in enumerate(head) if name not in without and (n < 1 or any(_long(r[n]) for r in rows[1:]))
    ]
    return [tuple(row[n] for n in kept) for row in rows]


def _deepest(summary: Summary, lines: Sequence[Line]) -> Line | None:
    """Find the line of what the pass broke off in, or of the nearest module around it that is shown."""
    if not summary.broke:
        return None
    around = {"", *homes(summary.broke_at), summary.broke_at}
    there = [line for line in lines for row in line.rows if row.sort == "module" and row.path in around]
    return there[-1] if there else None


_WHAT = {"macs": "MACs", "params": "params", "memory": "memory"}


def _row(summary: Summary, line: Line, fit: _Fit, *, broke: bool) -> tuple[Cell, ...]:
    rows = line.rows
    first, many = rows[0], len(rows) > 1
    parameters = sum(row.parameters for row in rows)
    share = _share(summary, rows)
    count = "" if not parameters else si(parameters) if fit.short else f"{parameters:,}"
    elsewhere = parameters and sum(row.elsewhere for row in rows) == parameters
    moving = {row.trainable == row.parameters for row in rows} | {row.trainable > 0 for row in rows}
    trained = "" if not parameters else "partly" if len(moving) > 1 else "yes" if moving == {True} else "no"
    style = "red" if broke else _style(line)
    notes = [f"breaks off {_inside(first, summary.broke_at)}"] if broke else _notes(line)
    return (
        _name(summary, line, fit, style),
        (("" if many and not line.like else _shapes(first.given, (), summary.batch, fit.shapes), "dim"),),
        ((_gives(first, summary.batch, fit.shapes), style if style == "dim" else ""),),
        ((f"({count})" if elsewhere else count, "dim" if elsewhere else ""),),
        ((trained, "blue" if trained == "no" else ""),),
        ((si(sum(row.macs for row in rows)), ""),),
        ((_bytes(sum(row.activations for row in rows)), ""),),
        ((f"{share:.1%}" if share else "", ""),),
        ((bar(share), "cyan"),),
        ((_cut(", ".join(notes), fit.notes), "red" if broke else "green" if first.edit is not None else "dim"),),
    )


def _name(summary: Summary, line: Line, fit: _Fit, style: str) -> Cell:
    """Draw the tree, the name and the class, in the room that there is."""
    first, room = line.rows[0], fit.room - len(line.guide)
    many = first.calls if first.sort == "operation" else len(line.rows)
    times = f" ×{many}" if many > 1 else ""
    if first.sort == "operation":
        return ((line.guide, "dim"), (f"· {_middle(line.name, room - len(times) - 2)}{times}", "dim"))
    name = _middle(line.name or summary.title, room - len(times))
    left = room - len(name) - len(times) - 3
    if first.sort == "parameter" or name == first.kind or left < _SHORTEST:
        return ((line.guide, "dim"), (name, style), (times, "dim"))
    return ((line.guide, "dim"), (name, style), (f" ({_cut(first.kind, left)}{times})", "dim"))


_SHORTEST = 5
"""A class name of fewer letters says nothing."""


def _style(line: Line) -> str:
    first = line.rows[0]
    if first.state in ("never called", "not reached") or first.sort == "operation":
        return "dim"
    return "green" if first.edit is not None else ""


def _inside(row: Row, path: str) -> str:
    """Say where in a module the pass broke off."""
    return "here" if row.path == path else f"in {path[len(row.path) + 1 if row.path else 0 :]}"


def _notes(line: Line) -> list[str]:
    """Say what is particular about a line."""
    first, top, notes = line.rows[0], line.top, list[str]()
    if line.like:
        notes.append(f"each as {line.like}" if len(line.rows) > 1 else f"as {line.like}")
    if first.edit is not None and (top is None or top.edit != first.edit):
        notes.append(f"new, edit {first.edit}")
    if first.state == "again":
        return [*notes, f"is {first.tied[0]}"]
    if first.state and (top is None or top.state != first.state):
        notes.append(first.state)
    if first.sort == "module" and first.calls > 1:
        notes.append(f"called {first.calls}×")
    if first.shapes > 1:
        notes.append(f"{first.shapes} different shapes")
    return [*notes, *([f"= {_others(first.tied)}"] if first.tied else [])]


def _others(names: Sequence[str]) -> str:
    """Write where else parameters stand; several of one module by its path."""
    if len(names) == 1:
        return names[0]
    homes_ = [name.rpartition(".")[0] or name for name in names]
    return ", ".join(
        dict.fromkeys(home if homes_.count(home) > 1 else name for home, name in zip(homes_, names, strict=True))
    )


def _share(summary: Summary, rows: Sequence[Row]) -> float:
    """Give what part of the whole some rows are; what is counted elsewhere is none."""
    if summary.by == "params":
        part, whole = sum(row.parameters - row.elsewhere for row in rows), summary.parameters
    elif summary.by == "memory":
        part, whole = sum(row.activations for row in rows), summary.activations
    else:
        part, whole = sum(row.macs for row in rows), summary.macs
    return part / whole if whole else 0.0


# words


def _gives(row: Row, batch: int, most: int) -> str:
    if row.sort == "parameter":
        return "×".join(map(str, row.gave[0])) or "one number"
    return _shapes(row.gave, row.names, batch, most)


def _shapes(shapes: Sequence[Shape], names: Sequence[str], batch: int, most: int) -> str:
    """Write the first shapes, and how many more there are."""
    titles = [*names, *[""] * (len(shapes) - len(names))]
    told = [f"{title} {_shape(shape, batch)}".strip() for title, shape in zip(titles, shapes, strict=False)]
    return ", ".join(told[:most]) + (f" +{len(told) - most}" if told[most:] else "")


def _shape(shape: Shape, batch: int) -> str:
    return Value(shape, "").show(batch)


def si(number: float) -> str:
    """Write a count in three digits: `1.81 G`."""
    for unit in ("", " k", " M", " G", " T"):
        if number < 999.5 or unit == " T":
            break
        number /= 1000
    return "" if not number else f"{number:.3g}{unit}" if unit else f"{number:.0f}" if number >= 1 else "<1"


def _bytes(number: float) -> str:
    """Write bytes in three digits: `3.06 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1023.5 or unit == "GiB":
            break
        number /= 1024
    return "" if not number else f"{number:.0f} {unit}" if number >= 100 or unit == "B" else f"{number:.3g} {unit}"


def bar(share: float, wide: int = _BAR) -> str:
    """Draw a share of 1 as a bar, to an eighth of a character."""
    eighths = round(max(min(share, 1.0), 0.0) * wide * 8)
    return "█" * (eighths // 8) + (_EIGHTHS[eighths % 8].strip())


def _cut(words: str, room: int) -> str:
    return words if len(words) <= room else words[: room - 1] + "…"


def _middle(words: str, room: int) -> str:
    """Shorten a name in its middle."""
    room = max(room, 3)
    if len(words) <= room:
        return words
    ahead = (room - 1) // 2
    return f"{words[:ahead]}…{words[len(words) - (room - 1 - ahead) :]}"


def _long(cell: Cell) -> int:
    return sum(len(words) for words, _ in cell)


def _wide(rows: Sequence[Sequence[Cell]]) -> int:
    """Measure the longest line, with two spaces between columns."""
    return sum(max(map(_long, column)) + 2 for column in zip(*rows, strict=True)) - 2


def _aligned(rows: Sequence[tuple[Cell, ...]]) -> list[list[Span]]:
    """Put cells in columns, numbers to the right."""
    wide = [max(map(_long, column)) for column in zip(*rows, strict=True)]
    left = [_is_left(column) for column in zip(*rows, strict=True)]
    page = []
    for row in rows:
        line: list[Span] = []
        for cell, room, flush in zip(row, wide, left, strict=True):
            gap = (" " * (room - _long(cell)), "")
            line += [*cell, gap, ("  ", "")] if flush else [gap, *cell, ("  ", "")]
        page.append(_trimmed(line))
    return page


def _is_left(column: Sequence[Cell]) -> bool:
    return column[0][0][0] in _LEFT


def _trimmed(line: list[Span]) -> list[Span]:
    while line and not line[-1][0].strip():
        line.pop()
    return [span for span in line if span[0]]


def _cut_line(line: list[Span], width: int) -> list[Span]:
    cut: list[Span] = []
    for words, style in line:
        room = width - sum(len(one) for one, _ in cut)
        cut.append((words[:room], style))
    return _trimmed(cut)


# totals


def _totals(summary: Summary) -> list[str]:
    """Say what the whole takes."""
    held = [f"{summary.parameters:,} parameters", f"{summary.trainable:,} trainable", f"{summary.frozen:,} frozen"]
    held += [f"{summary.new:,} new"] if summary.new else []
    held += [f"{summary.tied} tied"] if summary.tied else []
    memory = f"weights {_bytes(summary.weight_bytes) or 'none'}"
    memory += f", buffers {_bytes(summary.buffer_bytes)}" if summary.buffer_bytes else ""
    macs = summary.macs
    mode = "training" if summary.train else "evaluation"
    how = "on small real tensors" if summary.real else "on fake tensors"
    whole = "the whole model: " if summary.asked else ""
    sample = "one sample, up to where the pass breaks off" if summary.broke else "one sample"
    lines = [
        whole + ", ".join(held),
        memory,
        f"{sample}: {si(macs) or 'no'} MACs ({si(2 * macs) or 'no'} FLOPs), "
        f"activations {_bytes(summary.activations) or 'none'}; {mode} mode, {how}",
        f"takes {_listed(summary.inputs, summary.batch)}",
    ]
    lines += [f"gives {_listed(summary.outputs, summary.batch)}"] if summary.outputs else []
    return [*lines, *_other_shapes(summary)]


def _other_shapes(summary: Summary) -> list[str]:
    """Say what shapes mean in which the batch is not the first dimension: where it is in them is not known."""
    batch = summary.batch
    shapes = [shape for row in summary.rows if row.sort != "parameter" for shape in (*row.given, *row.gave)]
    other = next((one for one in shapes if one and one[0] != batch and any(n % batch == 0 for n in one)), None)
    return [f"shapes without N, such as {_shape(other, batch)}, are those of a batch of {batch}"] if other else []


def _listed(seen: Sequence[Seen], batch: int) -> str:
    bare = len(seen) == 1
    told = [
        " ".join(["" if bare and len(one.name) < 2 else one.name, _shape(one.shape, batch), one.dtype]).strip()
        for one in seen[:_MOST]
    ]
    return ", ".join(told) + (f" and {len(seen) - _MOST} more" if seen[_MOST:] else "") or "nothing"


_MOST = 8
