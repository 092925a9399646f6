"""What is predicted, as data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from torchgraft.memory.counter import Kind, Phase
from torchgraft.memory.course import Moment
from torchgraft.memory.room import Room
from torchgraft.rules.finding import Finding, Fix

__all__ = ["Held", "Memory", "Remedy"]


@dataclass(frozen=True)
class Held:
    """What one module holds by itself, without the modules in it, in bytes.

    Attributes:
        path: the module; '' is the model's own forward.
        kind: its class.
        weights: and buffers.
        gradients: of its weights.
        optimizer: the state that the optimizer keeps for its weights.
        activations: made by it in the forward pass and kept for the backward pass, weights in another number
            format among them.
    """

    path: str
    kind: str
    weights: int = 0
    gradients: int = 0
    optimizer: int = 0
    activations: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations


@dataclass(frozen=True)
class Remedy:
    """A change of the plan that was predicted as well.

    Attributes:
        name: in one word.
        sentence: what it does and what it costs, in words.
        peak: with it, in bytes.
        saves: of the peak without it, in bytes.
        fits: whether it then fits; None where there is no room to compare with.
        fix: the edits or settings that do it.
    """

    name: str
    sentence: str
    peak: int
    saves: int
    fits: bool | None
    fix: Fix


@dataclass(frozen=True)
class Memory:
    """The memory of training, predicted without running it; all sizes in bytes, of tensors alive.

    Attributes:
        name: of the model.
        facts: what it was predicted for: batch, precision, optimizer and the like, in words.
        assumed: the model has no training plan, so the defaults were taken.
        batch: samples that go through the model at once.
        peak: the most that is alive at once.
        first: the peak of the first optimizer step, in which the state of the optimizer is made.
        steady: the peak of every later step.
        moment: when the peak is.
        kinds: what is held at the peak, by what it is for.
        modules: what each module holds, those that hold nothing left out, in the model's order.
        line: the course over one step: phase and bytes of each stretch.
        room: what there is, where that was asked.
        largest: the largest batch that fits; 0 where no sample does; None where no room was named.
        remedies: what would help, what helps most first.
        findings: that it does not fit, with what would make it fit.
    """

    name: str
    facts: tuple[tuple[str, str], ...]
    assumed: bool
    batch: int
    peak: int
    first: int
    steady: int
    moment: Moment
    kinds: tuple[tuple[Kind, int], ...]
    modules: tuple[Held, ...]
    line: tuple[tuple[Phase, int], ...]
    room: Room | None = None
    largest: int | None = None
    remedies: tuple[Remedy, ...] = field(default=())
    findings: tuple[Finding, ...] = field(default=())

    @property
    def allowance(self) -> int:
        """What is set aside beside the tensors; see `room`."""
        return 0 if self.room is None else self.room.allowance(self.peak)

    @property
    def fits(self) -> bool | None:
        """Whether the peak and what is set aside beside it fit; None where no room was named."""
        return None if self.room is None else self.room.holds(self.peak)

    def as_data(self) -> dict[str, Any]:
        """Give all of it as plain data, for JSON."""
        found = asdict(self)
        found["facts"], found["kinds"] = dict(self.facts), dict(self.kinds)
        found["findings"] = [
            {"code": one.code, "severity": one.severity, "title": one.title, "facts": list(one.facts)}
            for one in self.findings
        ]
        found["remedies"] = [_plain(one) for one in self.remedies]
        found["line"] = [{"phase": phase, "bytes": size} for phase, size in self.line]
        return found | {"allowance": self.allowance, "fits": self.fits}

    def __str__(self) -> str:
        from torchgraft.memory.text import text

        return text(self)


def _plain(remedy: Remedy) -> dict[str, Any]:
    edits = [{edit.kind(): edit.brief()} for edit in remedy.fix.edits]
    return {
        "name": remedy.name,
        "sentence": remedy.sentence,
        "peak": remedy.peak,
        "saves": remedy.saves,
        "fits": remedy.fits,
        "settings": list(remedy.fix.settings),
        "edits": edits,
    }
