"""A profile in words: phases, the tree of modules, the peak, the verdict."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from torchgraft.probes.speed import BOUNDS
from torchgraft.profile.classes import kinds
from torchgraft.profile.events import OUTSIDE
from torchgraft.profile.record import Machine, Peak, Profile, Run, Script
from torchgraft.profile.tree import Line, lines
from torchgraft.view.summary_text import bar

__all__ = ["seconds", "size", "text"]

BAR = 16
"""So many characters stand for a whole step."""


def text(profile: Profile, width: int = 110) -> str:
    """Write a profile for a terminal of `width` characters."""
    blocks = ["\n".join(_wrapped(line, width, 12) for line in _head(profile))]
    if profile.script is not None:
        blocks.append("\n".join(_script(profile.script, width)))
    blocks += ["\n".join(_run(run, width, _roof(profile.machine))) for run in profile.runs]
    if profile.tried:
        blocks.append("\n".join(["tried", *(_tried(one.name, one.faster, one.of) for one in profile.tried)]))
    blocks += [_folded(str(finding), width) for finding in profile.findings]
    if profile.notes:
        blocks.append("\n".join(_wrapped(f"note: {note}", width) for note in profile.notes))
    return "\n\n".join(blocks)


def seconds(value: float) -> str:
    """Write a duration: `1.25 s`, `18.3 ms`, `7.1 µs`."""
    for unit, step in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= 0.9995 * step:
            return f"{value / step:.3g} {unit}" if value < 999.5 * step else f"{value / step:,.0f} {unit}"
    return "0"


def size(value: float) -> str:
    """Write bytes: `12.4 MB`, of a million each."""
    for unit, step in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= step:
            return f"{value / step:.3g} {unit}" if value < 999.5 * step else f"{value / step:,.0f} {unit}"
    return f"{value:.0f} B" if value else "0"


def _head(profile: Profile) -> Iterator[str]:
    one = profile.machine
    threads = f"{one.threads} of {one.cores} cores, " if one.device == "cpu" else ""
    yield profile.name
    wide = max([9, *(len(name) for name, _ in profile.facts)])
    yield f"  {'on':<{wide}} {one.name or one.device}, {threads}at most {one.flops / 1e9:,.0f} GFLOP/s and " \
          f"{one.bandwidth / 1e9:,.0f} GB/s (measured)"  # fmt: skip
    for name, words in profile.facts:
        yield f"  {name:<{wide}} {words}"


def _roof(machine: Machine) -> float:
    """Give the rate above which a span was too short to measure; an accelerator times its own kernels."""
    return machine.flops if machine.device == "cpu" else float("inf")


def _steps(run: Run) -> str:
    if not run.steps:
        return ""
    count = f"{run.steps:,} optimizer step{'s' if run.steps != 1 else ''}"
    return f"  in {count}, " + (
        "too few to say what one takes" if run.too_few else f"{seconds(run.each)} each (median)"
    )


def _run(run: Run, width: int, roof: float) -> Iterator[str]:
    if run.kind == "script":
        yield f"at work  {seconds(run.seconds)}{_steps(run)}"
    else:
        yield from _title(run, width)
    for phase in run.phases if len(run.phases) > 1 else ():
        share = phase.seconds / run.seconds
        name = "data, waiting" if phase.name == "data" else phase.name
        yield f"  {name:<14}{seconds(phase.seconds):>9} {share:>4.0%}  {bar(share, BAR)}".rstrip()
    told = [f"{name} {run.split.of(name):.0%}" for name in BOUNDS if run.split.of(name) >= 0.005]
    idle = f"; the device works {run.device_busy:.0%} of the time" if run.device_busy is not None else ""
    if not run.too_few:
        yield _wrapped(f"  {'it goes to':<14}{', '.join(told)}{idle}", width, 16)
    if run.parts:
        yield ""
        yield from _table(run, width, roof)
        yield ""
        yield from _kinds(run, width, roof)
    if run.peak is not None:
        yield ""
        yield from _peak(run.peak, width)


def _title(run: Run, width: int) -> Iterator[str]:
    low, high = run.spread
    rate = f", {run.samples / run.seconds:,.0f} samples a second" if run.samples else ""
    span = f"median of {run.steps}; half lie in {seconds(low)} – {seconds(high)}"
    line = f"{run.kind}  {seconds(run.seconds)}{rate}"
    yield from [f"{line}   ({span})"] if len(line) + len(span) + 5 <= width else [line, f"  ({span})"]


_COLUMNS = ("module", "class", "calls", "forward", "backward", "share", "", "GFLOP/s", "bound by", "holds", "note")
_DISPENSABLE = ("GFLOP/s", "calls", "class", "holds", "note", "", "bound by", "backward", "forward")
"""What a narrow terminal does without, in this order."""


def _table(run: Run, width: int, roof: float) -> Iterator[str]:
    rows = [_COLUMNS, *(_cells(line, roof) for line in lines(run))]
    outside = run.outside
    if outside.seconds >= 0.001 * run.seconds:
        share = outside.seconds / run.seconds
        rows.append(("outside of modules", "", "", seconds(outside.forward), _blank(outside.backward),
                     f"{share:.0%}", bar(share, BAR), "", outside.bound, "", ""))  # fmt: skip
    yield from _drawn(rows, _DISPENSABLE, (0, 1, 6, 8, 10), width)


def _drawn(
    rows: Sequence[tuple[str, ...]], dispensable: Sequence[str], left: Sequence[int], width: int
) -> Iterator[str]:
    """Draw a table; columns that say nothing are left out, then, until it fits, those that are dispensable."""
    kept = [n for n in range(len(rows[0])) if n == 0 or any(row[n] for row in rows[1:])]
    wide = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    for name in dispensable:
        if sum(wide[n] + 2 for n in kept) <= width:
            break
        kept = [n for n in kept if rows[0][n] != name]
    for row in rows:
        cells = [row[n].ljust(wide[n]) if n in left else row[n].rjust(wide[n]) for n in kept]
        yield f"  {'  '.join(cells)}".rstrip()


def _kinds(run: Run, width: int, roof: float) -> Iterator[str]:
    """List the classes of modules that take a hundredth of the step or more."""
    rows: list[tuple[str, ...]] = [("class", "modules", "themselves", "share", "", "GFLOP/s", "GB/s", "bound by")]
    for one in kinds(run):
        if one.share < 0.01 or len(rows) > 8:
            break
        rates = [_rate(one.flops, one.seconds, roof), _rate(one.bytes, one.seconds, float("inf"))]
        drawn = bar(one.share, BAR)
        rows.append(
            (one.name, f"{one.modules}", seconds(one.seconds), f"{one.share:.0%}", drawn, *rates, one.bound)
        )
    if len(rows) > 1:
        yield from _drawn(rows, ("GB/s", "GFLOP/s", "modules", "", "themselves"), (0, 4, 7), width)


def _rate(work: float, seconds: float, roof: float) -> str:
    """Write a rate in thousand millions a second; nothing where it is above what the machine can do."""
    return f"{work / seconds / 1e9:.3g}" if work and seconds and work / seconds <= roof else ""


def _cells(line: Line, roof: float) -> tuple[str, ...]:
    one = line.whole
    work = one.products or one.seconds
    return (
        "  " * line.depth + line.label,
        one.kind,
        f"{one.calls}" if one.calls > 1 else "",
        seconds(one.forward),
        _blank(one.backward),
        f"{line.share:.0%}" if line.share >= 0.005 else "",
        bar(line.share, BAR),
        _rate(one.flops, work, roof),
        one.bound,
        size(line.held) if line.held else "",
        line.whole.note,
    )


def _blank(value: float) -> str:
    return seconds(value) if value else ""


def _peak(peak: Peak, width: int) -> Iterator[str]:
    where = "" if peak.path in ("", OUTSIDE) else f" of {peak.path}"
    at = f" in the {peak.phase}{where}" if peak.phase else ""
    held = f"; the allocator holds {size(peak.reserved)}" if peak.reserved else ""
    yield _wrapped(f"  memory  {size(peak.bytes)} of tensors at the peak{at}{held}", width, 10)
    for kind, value in peak.kinds.items():
        share = value / max(peak.bytes, 1)
        most = [(path, one) for path, its, one in peak.holders if its == kind and path != OUTSIDE][:2]
        line = f"    {kind:<16}{size(value):>8} {share:>4.0%}  {bar(share, BAR):<{BAR}}"
        for number, (path, one) in enumerate(most):
            named = f"{', ' if number else '  '}{path or 'the model itself'} {size(one)}"
            line += named if len(line) + len(named) <= width else ""
        yield line.rstrip()


def _tried(name: str, faster: float, of: str) -> str:
    words = f"{faster:.2f}× as fast" if faster >= 1 else f"{1 / faster:.2f}× as slow"
    words = "no faster, no slower" if 0.97 < faster < 1.03 else words
    return f"  {name:<28} {words} ({of})"


def _script(script: Script, width: int) -> Iterator[str]:
    before = f"{seconds(script.before)} before the first step, " if script.before else ""
    line = f"script  {seconds(script.seconds)}, {before}{seconds(script.cpu)} of CPU, ended: {script.ended}"
    yield _wrapped(line, width, 8)
    for name, words in script.environment:
        yield _wrapped(f"  {name:<11} {words}", width, 14)
    if script.functions:
        yield ""
        yield f"  {'calls':>9} {'itself':>9} {'with all':>9}  Python functions that take most"[:width]
    for name, calls, own, whole in script.functions:
        yield f"  {calls:>9,} {seconds(own):>9} {seconds(whole):>9}  {_tail(name, width - 34)}"


def _tail(name: str, width: int) -> str:
    return name if len(name) <= width else f"…{name[1 - width :]}"


def _folded(text: str, width: int) -> str:
    """Fold the long lines of a finding, its place beside its title included."""
    head, *rest = text.splitlines()
    if len(head) > width:
        words = head.split()
        head = f"{' '.join(words[:-1])}\n  at {words[-1]}"
    return "\n".join([head, *(_wrapped(line, width) for line in rest)])


def _wrapped(line: str, width: int, hang: int = 4) -> str:
    hang = 13 if line.startswith("  do ") else hang
    return "\n".join(
        textwrap.wrap(line, max(width, 40), subsequent_indent=" " * hang, break_long_words=False) or [line]
    )
