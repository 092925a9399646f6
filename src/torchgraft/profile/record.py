"""What a profile holds, as data: where a step spends its time and memory, by module."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from torchgraft.probes.speed import Split
from torchgraft.rules.finding import Finding

__all__ = ["Machine", "Operation", "Part", "Peak", "Phase", "Profile", "Run", "Script", "Try"]


@dataclass(frozen=True)
class Machine:
    """What the device can do at most, measured by a short calibration.

    Attributes:
        device: as torch names it.
        name: of the processor or of the accelerator.
        threads: that torch computes with.
        cores: that this process may use.
        flops: floating-point operations a second, in a product of two large matrices.
        bandwidth: bytes a second that are read and written, in a copy.
        call: seconds that the smallest operation takes: Python, dispatch and all.
        inside: the part of `call` that the profiler sees within the operation.
        watching: seconds that the profiler takes to record an operation, outside of it.
    """

    device: str
    name: str
    threads: int
    cores: int
    flops: float
    bandwidth: float
    call: float
    inside: float
    watching: float = 0.0

    @property
    def ridge(self) -> float:
        """Operations for each byte, below which memory is the limit (Williams, Waterman and Patterson, 2009)."""
        return self.flops / self.bandwidth


@dataclass(frozen=True)
class Phase:
    """One stretch of a step: `data`, `forward`, `backward`, `optimizer`; seconds, the median over steps."""

    name: str
    seconds: float


@dataclass(frozen=True)
class Part:
    """What one module takes by itself in one step, without the modules inside it.

    Seconds come apart twice: forward + backward = products + moving + between.

    Attributes:
        path: of the module; where it is held twice, the first.
        kind: its class.
        calls: in one forward pass.
        forward: seconds in its own operations and its own Python.
        backward: seconds of the gradients of those operations.
        products: seconds in matrix products, convolutions and attention.
        moving: seconds in all other operations: what they do is move memory.
        between: seconds between operations: Python, and the cost of calling an operation.
        flops: floating-point operations (two for each multiply-accumulate).
        bytes: read and written by operations, as if nothing were in a cache.
        bound: what limits it: `compute`, `memory` or `Python`.
        note: `frozen`, or the edit that put it in.
    """

    path: str
    kind: str
    calls: int = 0
    forward: float = 0.0
    backward: float = 0.0
    products: float = 0.0
    moving: float = 0.0
    between: float = 0.0
    flops: float = 0.0
    bytes: float = 0.0
    bound: str = ""
    note: str = ""

    @property
    def seconds(self) -> float:
        """Forward and backward."""
        return self.forward + self.backward


@dataclass(frozen=True)
class Operation:
    """One kind of operation, of all modules together: seconds without what it calls, and how often, a step."""

    name: str
    seconds: float
    calls: float


@dataclass(frozen=True)
class Peak:
    """Where memory is highest: bytes of tensors, by kind and by module.

    Attributes:
        bytes: all that is alive then.
        phase: the stretch of the step.
        path: the module that works then.
        kinds: bytes by kind: weights, gradients, optimizer state, activations, inputs, temporary.
        holders: bytes by module and kind, what is largest first.
        reserved: what the allocator of an accelerator holds; 0 on the CPU.
    """

    bytes: int
    phase: str
    path: str
    kinds: dict[str, int]
    holders: tuple[tuple[str, str, int], ...]
    reserved: int = 0


@dataclass(frozen=True)
class Run:
    """A training step, a prediction, or all that a script did.

    Attributes:
        kind: which of these.
        seconds: of one step, the median; of a script, all from its first call of a model, a loader or an
            optimizer on.
        spread: the quartiles of the seconds.
        steps: that were measured.
        samples: in one step.
        phases: stretches of a step; they add up to `seconds`.
        parts: by module, in the order of the model.
        outside: what belongs to no module: the loss, and functions around the model.
        split: shares of the step: waiting for data, Python, memory, compute.
        busy: CPU seconds for each second: how many cores worked.
        operations: what is hottest, first.
        calls: operations in one step.
        peak: of memory; None where it was not asked for.
        watched: how many times as long a step took while it was watched.
        device_busy: the share of the step that an accelerator worked; None on the CPU.
        each: of a script, the median seconds of an optimizer step after the first; 0 where there were too few.
    """

    kind: Literal["training step", "prediction", "script"]
    seconds: float
    spread: tuple[float, float]
    steps: int
    samples: int
    phases: tuple[Phase, ...]
    parts: tuple[Part, ...]
    outside: Part
    split: Split
    busy: float
    operations: tuple[Operation, ...] = ()
    calls: float = 0
    peak: Peak | None = None
    watched: float = 1.0
    device_busy: float | None = None
    each: float = 0.0

    @property
    def too_few(self) -> bool:
        """Whether a script took optimizer steps, but so few that they say nothing about one."""
        return self.kind == "script" and self.steps > 0 and not self.each

    def phase(self, name: str) -> float:
        """Give the seconds of a stretch; 0 where there is none of that name."""
        return sum(one.seconds for one in self.phases if one.name == name)


@dataclass(frozen=True)
class Try:
    """A change that was tried: how many times as fast a training step was, or a prediction."""

    name: str
    sentence: str
    faster: float
    of: str


@dataclass(frozen=True)
class Script:
    """What a script of the user's did, as a whole.

    Attributes:
        path: of the script.
        arguments: that it was given.
        seconds: from its first line to its end.
        cpu: CPU seconds, those of its threads included.
        ended: how: `finished`, `exit 3`, `stopped`, or the name of an exception.
        steps: calls of the optimizer.
        watched: seconds under torch's profiler.
        functions: the hottest Python functions: (file:line name, calls, seconds without what it calls, with it).
        memory: the most that the process held in RAM, bytes.
        before: seconds before it first called a model, a loader or an optimizer: mostly imports.
        environment: what it ran on, in words.
    """

    path: str
    arguments: tuple[str, ...]
    seconds: float
    cpu: float
    ended: str
    steps: int
    watched: float
    functions: tuple[tuple[str, int, float, float], ...]
    memory: int
    environment: tuple[tuple[str, str], ...]
    before: float = 0.0


@dataclass(frozen=True)
class Profile:
    """Where time and memory go.

    Attributes:
        name: what was profiled.
        machine: what it ran on.
        facts: how it was run: batch, input, precision, optimizer, loss, data.
        runs: a training step, a prediction, or what a script did by the step.
        findings: the verdict, and what would help.
        tried: changes that were tried.
        notes: what a reader should know.
        script: a script as a whole, if one was run.
    """

    name: str
    machine: Machine
    facts: tuple[tuple[str, str], ...]
    runs: tuple[Run, ...]
    findings: tuple[Finding, ...] = ()
    tried: tuple[Try, ...] = ()
    notes: tuple[str, ...] = ()
    script: Script | None = None
    trace: bytes = field(default=b"", repr=False, compare=False)

    @property
    def training(self) -> Run | None:
        """The training step."""
        return next((run for run in self.runs if run.kind == "training step"), None)

    @property
    def prediction(self) -> Run | None:
        """The prediction."""
        return next((run for run in self.runs if run.kind == "prediction"), None)

    def with_findings(self, findings: Iterable[Finding]) -> Profile:
        """Give the same with findings."""
        return replace(self, findings=tuple(findings))

    def __str__(self) -> str:
        from torchgraft.profile.text import text

        return text(self)
