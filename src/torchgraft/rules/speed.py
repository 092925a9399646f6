"""Family M, speed: what a step waits for, as torchgraft.profile measured it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from torchgraft.rules.finding import Finding, Severity
from torchgraft.rules.rule import Evidence, Rule

if TYPE_CHECKING:
    from torchgraft.probes.speed import Speed

__all__: list[str] = []

WAITS = 0.25
"""The share of a step from which on waiting for data is told."""

BOUND = 0.4
"""The share from which on a step is bound by what takes most of it."""

WORTH = 1.1
"""How many times as fast what was tried must have been to be told."""


def _helps(speed: Speed, *others: str) -> str:
    """Write what would help: first what was tried and did, then the rest."""
    tried = [f"{name}: {faster:.2f}× as fast when tried" for name, faster in speed.tried if faster >= WORTH]
    known = tuple(name for name, _ in speed.tried)
    return "; ".join([*tried, *(one for one in others if one and not one.startswith(known))])


def _shares(speed: Speed) -> str:
    split = speed.split
    parts = (("data", split.data), ("Python", split.python), ("memory", split.memory), ("compute", split.compute))
    told = ", ".join(f"{name} {share:.0%}" for name, share in parts if share >= 0.005)
    return f"{speed.what} takes {_seconds(speed.seconds)}: {told}"


def _seconds(value: float) -> str:
    unit, step = next((one for one in (("s", 1), ("ms", 1e-3)) if value >= one[1]), ("µs", 1e-6))
    return f"{value / step:.3g} {unit}"


def _hot(speed: Speed, bound: str) -> str:
    """Name the classes of modules that take most of what is bound so."""
    found = [f"{name} {share:.0%}" for name, share, by in speed.hottest if by == bound and share >= 0.02]
    return f"most of it in {', '.join(found[:3])}" if found else ""


class WaitsForData(Rule):
    """A quarter of a training step or more is spent waiting for the next batch: reading, decoding, transforming.

    The model could be trained faster by as much without touching it. The wait is measured on the real loader: the
    time that `next(iterator)` takes, and what is done to the batch before the model gets it.
    """

    code = "M101"
    severity: ClassVar[Severity] = "warning"
    title = "the step waits for data"
    case = "a data set that reads and resizes photos in __getitem__, and DataLoader(num_workers=0)"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Compare the wait with the step."""
        speed = evidence.speed
        if speed is None or speed.split.data < WAITS:
            return
        wait = speed.split.data * speed.seconds
        gain = 1 / max(1 - speed.split.data, 0.01)
        loads = {None: "", 0: ", which loads in the process that trains (0 workers)"}.get(
            speed.workers, f", with {speed.workers} worker{'s' if speed.workers != 1 else ''}"
        )
        more = max(speed.cores, 2)
        yield self.found(
            evidence.name,
            f"{_seconds(wait)} of {_seconds(speed.seconds)} go by until the next batch is there{loads}",
            f"with data always ready the same step would be up to {gain:.2g}× as fast",
            hint="; ".join(
                one
                for one in (
                    "more workers" if speed.workers else f"load ahead: workers {more}, persistent_workers=True",
                    "do once what is done again in every epoch: decode and resize into a file or into memory",
                    "pin_memory=True and non_blocking copies" if speed.device == "cuda" else "",
                )
                if one
            ),
        )


class BoundByPython(Rule):
    """Most of a step passes between operations, not in them: Python, and the cost of calling an operation.

    Each operation costs some microseconds before it does anything; a short calibration measures how many. Where
    operations are small, that is all there is: a loop over samples or time steps, a tiny batch, an optimizer
    that goes from parameter to parameter.
    """

    code = "M102"
    severity: ClassVar[Severity] = "warning"
    title = "bound by Python"
    case = "for t in range(1000): h = torch.tanh(x[t] * w + h)"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look at the largest share."""
        speed = evidence.speed
        if speed is None or speed.split.largest != "Python" or speed.split.python < BOUND:
            return
        calls = f"{speed.calls:,} operations, {_seconds(speed.seconds / speed.calls)} each" if speed.calls else ""
        yield self.found(
            evidence.name,
            _shares(speed),
            calls,
            _hot(speed, "Python"),
            hint=_helps(
                speed,
                "fewer, larger operations: one on the whole tensor in place of a Python loop",
                f"a larger batch than {speed.batch}" if speed.batch else "a larger batch",
                "torch.compile(model)",
                "fused optimizer" if speed.optimizer > 0.1 and speed.fused is False else "",
            ),
        )


class BoundByMemory(Rule):
    """Most of a step goes to operations that read and write much and compute little: memory is what they wait for.

    Norms, activations, additions, copies, an optimizer's update; products of so few rows that the weights are read
    for little work. Which products those are is told by the roofline: their operations for each byte, against what
    the machine was measured to do (Williams, Waterman and Patterson, 2009).
    """

    code = "M103"
    severity: ClassVar[Severity] = "note"
    title = "bound by memory"
    case = "a chain of additions, norms and activations over large maps; a decoder that gives one word at a time"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look at the largest share."""
        speed = evidence.speed
        if speed is None or speed.split.largest != "memory" or speed.split.memory < BOUND:
            return
        yield self.found(
            evidence.name,
            _shares(speed),
            _hot(speed, "memory"),
            hint=_helps(
                speed,
                "torch.compile(model): it fuses chains of such operations into one pass",
                "bf16: half the bytes" if speed.precision == "fp32" else "",
                "channels_last" if speed.images else "",
                "fused optimizer" if speed.optimizer > 0.1 and speed.fused is False else "",
            ),
        )


class BoundByCompute(Rule):
    """Most of a step goes to matrix products, convolutions and attention that the machine computes at its pace.

    Nothing is wasted; less work or a faster way to do it is what helps.
    """

    code = "M104"
    severity: ClassVar[Severity] = "note"
    title = "bound by compute"
    case = "resnet50 at 224×224 on a processor"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look at the largest share."""
        speed = evidence.speed
        if speed is None or speed.split.largest != "compute" or speed.split.compute < BOUND:
            return
        yield self.found(
            evidence.name,
            _shares(speed),
            _hot(speed, "compute"),
            hint=_helps(
                speed,
                "bf16" if speed.precision == "fp32" else "",
                "channels_last" if speed.images else "",
                "a smaller input, or fewer trained layers: freeze(stages=…)",
                "a GPU" if speed.device == "cpu" else "",
            ),
        )


class Mixed(Rule):
    """No single thing holds a step up: data, Python, memory and compute each take a part."""

    code = "M105"
    severity: ClassVar[Severity] = "note"
    title = "bound by several things"
    case = "a small network on small images"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look for a share that is large enough to be told by itself."""
        speed = evidence.speed
        if speed is None or speed.split.data >= WAITS or speed.split.of(speed.split.largest) >= BOUND:
            return
        yield self.found(
            evidence.name, _shares(speed), hint=_helps(speed, "a larger batch", "torch.compile(model)")
        )


class IdleCores(Rule):
    """Cores stand idle while a step computes: torch was told to use fewer threads, or the work does not divide."""

    code = "M106"
    severity: ClassVar[Severity] = "note"
    title = "cores stand idle"
    case = "OMP_NUM_THREADS=1 left over from a cluster's script; batches of one sample"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Compare threads with cores, and CPU seconds with the clock."""
        speed = evidence.speed
        if speed is None or speed.device != "cpu" or speed.split.data >= WAITS:
            return
        slower = any(name.endswith("threads") and faster < WORTH for name, faster in speed.tried)
        if speed.threads < speed.cores and speed.split.compute + speed.split.memory >= BOUND and not slower:
            yield self.found(
                evidence.name,
                f"torch computes with {speed.threads} of {speed.cores} cores",
                hint=f"torch.set_num_threads({speed.cores}), or OMP_NUM_THREADS={speed.cores}",
            )
        elif speed.threads > 1 and speed.busy < 0.55 * speed.threads:
            yield self.found(
                evidence.name,
                f"{speed.busy:.1f} of {speed.threads} threads work on average",
                hint="a larger batch gives each thread more to do; other programs may hold the cores",
            )


class SlowUpdate(Rule):
    """The optimizer takes a fifth of a training step or more, though it only reads and writes each parameter.

    Its cost does not grow with the batch: a larger one makes its share smaller. A fused form updates all
    parameters in one pass.
    """

    code = "M107"
    severity: ClassVar[Severity] = "note"
    title = "the optimizer takes much of the step"
    case = "AdamW over 300 small parameters, batch 4"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look at its share."""
        speed = evidence.speed
        if speed is None or speed.optimizer < 0.2:
            return
        yield self.found(
            evidence.name,
            f"{_seconds(speed.optimizer * speed.seconds)} of {_seconds(speed.seconds)}: {speed.optimizer:.0%}",
            hint="; ".join(
                one
                for one in (
                    "fused=True in its settings" if speed.fused is False else "",
                    "a larger batch, or gradients accumulated over several",
                    "freeze what need not be trained",
                )
                if one
            ),
        )
