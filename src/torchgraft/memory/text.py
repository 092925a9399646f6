"""A prediction as text: what is held, by whom, when it is most, whether it fits and what would help."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Sequence

import yaml

from torchgraft.edits.base import Edit
from torchgraft.memory.counter import Phase
from torchgraft.memory.course import Moment
from torchgraft.memory.data import Held, Memory, Remedy
from torchgraft.memory.room import FRAGMENTS, spoken

__all__ = ["spoken_moment", "text"]

ROWS = 14
"""So many modules are shown: where there are more, the largest are opened and the others stay closed."""

_WORDS = {
    "weights": "weights",
    "buffers": "buffers",
    "gradients": "gradients",
    "optimizer": "optimizer state",
    "activations": "activations",
    "copies": "weights, cast",
    "batch": "batch",
    "temporary": "temporary",
}
_SHORT: dict[Phase, str] = {
    "load": "load",
    "forward": "fwd",
    "loss": "loss",
    "backward": "bwd",
    "optimizer": "opt",
}
_TIGHT = 72
"""Characters: a narrower terminal gets short titles of columns."""

_BARS = "▁▂▃▄▅▆▇█"


def text(memory: Memory, width: int | None = None, *, model: str = "MODEL") -> str:
    """Write the whole prediction.

    Args:
        memory: what is written.
        width: of the terminal, in characters; longer lines are wrapped. None: lines are as long as they are.
        model: what the model is called on the command line.
    """
    parts = [
        _wrapped(_head(memory), width),
        _kinds(memory),
        _modules(memory, width),
        _course(memory, width),
        _wrapped(_verdict(memory), width),
        _remedies(memory, width, model),
    ]
    return "\n\n".join(part for part in parts if part)


def _wrapped(words: str, width: int | None) -> str:
    """Wrap long lines between words, what follows a little further in."""
    return "\n".join(piece for line in words.split("\n") for piece in _pieces(line, width, _edge(line) + 2))


def _edge(line: str) -> int:
    return len(line) - len(line.lstrip())


def _pieces(line: str, width: int | None, further: int) -> list[str]:
    if width is None or len(line) <= width:
        return [line]
    inner = " " * min(further, width // 3)
    return textwrap.wrap(
        line, width, subsequent_indent=inner, break_long_words=False, break_on_hyphens=False, drop_whitespace=True
    )


def spoken_moment(moment: Moment) -> str:
    """Say when: `in the backward pass, at layer1.0.conv2`."""
    if moment.phase == "optimizer":
        return "in the step of the optimizer"
    where = f", at {moment.path}" if moment.path else ""
    word = {"load": "when a batch is there", "loss": "in the loss"}.get(
        moment.phase, f"in the {moment.phase} pass"
    )
    return word + where


def _head(memory: Memory) -> str:
    facts = ", ".join(f"{name} {value}" if name else value for name, value in memory.facts)
    lines = [f"{memory.name}: {spoken(memory.peak)} at the peak, {spoken_moment(memory.moment)}", f"for {facts}"]
    if memory.assumed:
        lines.append("the model has no training plan: these are the defaults; --set train.… changes them")
    if abs(memory.first - memory.steady) > 0.01 * memory.peak:
        lines.append(f"the first step peaks at {spoken(memory.first)}, every later one at {spoken(memory.steady)}")
    return "\n".join(lines)


def _kinds(memory: Memory) -> str:
    rows = [("at the peak", "", "")]
    rows += [(_WORDS[kind], spoken(size), f"{size / memory.peak:.0%}") for kind, size in memory.kinds]
    return _table(rows)


def _modules(memory: Memory, width: int | None) -> str:
    shown = _opened(memory.modules)
    rows: list[tuple[str, ...]] = [("by module", "weights", "gradients", "optimizer", "activations kept")]
    for one, below in shown:
        name = f"{one.path or '(the model itself)'}{f' and {below} in it' if below else ''}"
        sizes = (one.weights, one.gradients, one.optimizer, one.activations)
        rows.append((name, *(spoken(size) if size else "–" for size in sizes)))
    return _table(_narrow(rows, width))


def _narrow(rows: list[tuple[str, ...]], width: int | None) -> list[tuple[str, ...]]:
    """Shorten names from the left, whose end tells most, until the table is as wide as the terminal."""
    if width is None:
        return rows
    if width < _TIGHT:
        rows = [("by module", "weights", "grads", "optim.", "kept"), *rows[1:]]
    others = sum(2 + max(len(row[n]) for row in rows) for n in range(1, len(rows[0])))
    room = max(width - others, 12)
    return [(row[0] if len(row[0]) <= room else f"…{row[0][1 - room :]}", *row[1:]) for row in rows]


def _opened(modules: Sequence[Held]) -> list[tuple[Held, int]]:
    """Add modules up under their ancestors, and open the largest of these until the rows are filled."""
    shown = [""]
    while len(shown) < ROWS:
        sums = {home: _sum(home, _members(modules, home, shown)) for home in shown}
        for home in sorted(shown, key=lambda one: -sums[one].total):
            below = _children(modules, home, shown)
            if below and len(shown) + len(below) <= ROWS + 6:
                shown += below
                break
        else:
            break
    order = {one.path: place for place, one in enumerate(modules)}
    rows = [
        (_sum(home, members), len(members) - 1) for home in shown if (members := _members(modules, home, shown))
    ]
    return sorted(rows, key=lambda row: order.get(row[0].path, _first(order, row[0].path)))


def _first(order: dict[str, int], home: str) -> int:
    return min((place for path, place in order.items() if _under(path, home)), default=0)


def _members(modules: Sequence[Held], home: str, shown: Sequence[str]) -> list[Held]:
    """List what a row stands for: the modules under it that have no row nearer to them."""
    nearer = [one for one in shown if one != home and _under(one, home)]
    return [one for one in modules if _under(one.path, home) and not any(_under(one.path, n) for n in nearer)]


def _children(modules: Sequence[Held], home: str, shown: Sequence[str]) -> list[str]:
    depth = home.count(".") + 1 if home else 0
    found = {
        ".".join(one.path.split(".")[: depth + 1]) for one in _members(modules, home, shown) if one.path != home
    }
    return sorted(found - set(shown))


def _under(path: str, home: str) -> bool:
    return not home or path == home or path.startswith(f"{home}.")


def _sum(path: str, members: Sequence[Held]) -> Held:
    kind = next((one.kind for one in members if one.path == path), "")
    names = ("weights", "gradients", "optimizer", "activations")
    return Held(path, kind, **{name: sum(getattr(one, name) for one in members) for name in names})


def _course(memory: Memory, width: int | None) -> str:
    """Draw the course of one step as a line of bars, the phases under it."""
    if not memory.line:
        return ""
    top = max(size for _, size in memory.line) or 1
    line = memory.line
    while width is not None and len(line) > 2 and 12 + len(line) + len(spoken(top)) > width:
        pairs = [line[place : place + 2] for place in range(0, len(line), 2)]
        line = tuple((pair[0][0], max(size for _, size in pair)) for pair in pairs)
    bars = "".join(_BARS[min(int(size / top * 8), 7)] for _, size in line)
    words = ""
    runs: list[tuple[Phase, int]] = []
    for phase, _ in line:
        if runs and runs[-1][0] == phase:
            runs[-1] = (phase, runs[-1][1] + 1)
        else:
            runs.append((phase, 1))
    for phase, wide in runs:
        word = next((word for word in (phase, _SHORT[phase], phase[0]) if len(word) < wide), "")
        words += f"{word:<{wide}}"
    return f"one step  {bars}  {spoken(top)}\n          {words.rstrip()}"


def _verdict(memory: Memory) -> str:
    room = memory.room
    if room is None:
        return "name a device to see what fits: --device 24GB, --device cuda"
    aside = [f"{FRAGMENTS:.0%} for rounding, fragments and workspaces"]
    aside += [f"{spoken(room.context)} for a CUDA context"] if room.context else []
    word = "fits" if memory.fits else "does not fit"
    lines = [
        f"{word}: {spoken(memory.peak + memory.allowance)} of {room.words}",
        f"  {spoken(memory.peak)} of tensors, and {spoken(memory.allowance)} set aside: {' and '.join(aside)}",
        f"  {_largest(memory)}",
    ]
    return "\n".join(lines)


def _largest(memory: Memory) -> str:
    if memory.largest is None:
        return ""
    if not memory.largest:
        return "not even a batch of 1 fits"
    same = memory.largest == memory.batch
    return f"the largest batch that fits: {memory.largest}{', the one that is planned' if same else ''}"


def _remedies(memory: Memory, width: int | None, model: str) -> str:
    if not memory.remedies:
        return ""
    lines = ["what would take less, each predicted by itself:"]
    wide = max(len(one.name) for one in memory.remedies)
    for one in memory.remedies:
        mark = {True: "fits  ", False: "no    ", None: ""}[one.fits]
        start = f"  {one.name:<{wide}}  {mark}"
        figures = f"{start}{spoken(one.peak):>9}  {one.saves / memory.peak:>3.0%} less  "
        lines += _pieces(f"{figures}{one.sentence}", width, len(start))
        lines.append(_under_it(_how(one, model), len(start), width))
    return "\n".join(lines)


def _under_it(command: str, edge: int, width: int | None) -> str:
    """Put a command below its remedy; one that is too long is left to the terminal, so that it can be pasted."""
    return f"{'':{edge if width is None or edge + len(command) <= width else 4}}{command}"


def _how(remedy: Remedy, model: str) -> str:
    """Write what can be pasted: settings of this command, or the command that edits."""
    if remedy.fix.edits:
        written = " ".join(shlex.quote(_flow(edit)) for edit in remedy.fix.edits)
        return f"torchgraft edit {model if model == 'MODEL' else shlex.quote(model)} {written}"
    return " ".join(f"--set {shlex.quote(one)}" for one in remedy.fix.settings)


def _flow(edit: Edit) -> str:
    body = {
        name: one[0] if isinstance(one, (list, tuple)) and len(one) == 1 else one
        for name, one in edit.brief().items()
    }
    flow: str = yaml.safe_dump({edit.kind(): body}, default_flow_style=True, sort_keys=False, width=10**6)
    return flow.strip()[1:-1]


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    wide = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [f"{row[0]:<{wide[0]}}", *(f"{cell:>{wide[n]}}" for n, cell in enumerate(row[1:], 1))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
