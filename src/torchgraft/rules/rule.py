"""Rules: each reads the evidence and yields findings; none runs the model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from torchgraft.family import gather
from torchgraft.rules.finding import Finding, Severity

if TYPE_CHECKING:
    from torch import nn

    from torchgraft.edits.base import Edit
    from torchgraft.probes.arrival import Arrival
    from torchgraft.probes.fit import Fit
    from torchgraft.probes.independence import Independence
    from torchgraft.probes.live import Live
    from torchgraft.probes.padding import Padding
    from torchgraft.probes.roundtrip import RoundTrip
    from torchgraft.probes.sets import Sets
    from torchgraft.probes.speed import Speed
    from torchgraft.probes.state import State
    from torchgraft.probes.step import Step
    from torchgraft.probes.weights import Match
    from torchgraft.trace import Op, Trace

__all__ = ["DataFacts", "Evidence", "Rule", "judge", "rules"]


@dataclass(frozen=True)
class DataFacts:
    """What is known of the data without running the model.

    `normalisation` and `trained_with` are (mean, std) of the data's and of the base's preprocessing. `counts` are
    those of the training half; `shared` counts the validation samples that are, byte for byte, in it too.
    """

    classes: int
    labels: tuple[int, int]
    counts: tuple[int, ...] = ()
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    trained_with: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    shared: int = 0


@dataclass(frozen=True)
class Evidence:
    """What the probes recorded.

    Attributes:
        model: the model; rules read names and flags, never values.
        runs: the traces that were taken, in evaluation and in training mode.
        added: paths of modules that edits put in, and the number of the edit.
        name: what the model is called in findings.
        wide: the pass in evaluation mode with twice as many samples, if the first got through.
        data: what is known of the data, if data were given.
        sets: parameters and the optimizer's groups.
        match: how given weights fit, if weights were given.
        trip: what a file of the model would hold.
        step: what a real step showed, if data were given.
        table: every module by path, where that is known already.
        arrival: what the data look like, and what of them reaches the first BatchNorm.
        state: what a real pass in evaluation mode left changed.
        independence: whether the samples of a batch see each other.
        padding: what filling up does to a text, where texts were given.
        speed: what a step's time went to, if it was profiled.
        memory: what training takes and what there is, if it was predicted.
        live: what a step of a training that runs showed.
        edits: the edits that were applied, in order.
        loss: the name of the loss function of torch.nn.functional that was given, as far as it can be told.
    """

    model: nn.Module
    runs: tuple[Trace, ...]
    added: Mapping[str, int] = field(default_factory=dict)
    name: str = "model"
    wide: Trace | None = None
    data: DataFacts | None = None
    sets: Sets | None = None
    match: Match | None = None
    trip: RoundTrip | None = None
    step: Step | None = None
    arrival: Arrival | None = None
    state: State | None = None
    independence: Independence | None = None
    padding: Padding | None = None
    speed: Speed | None = None
    memory: Fit | None = None
    live: Live | None = None
    loss: str = ""
    edits: tuple[Edit, ...] = ()
    table: Mapping[str, nn.Module] | None = None

    @cached_property
    def modules(self) -> dict[str, nn.Module]:
        """Every module, by path; one that is held twice has its first path."""
        return dict(self.table if self.table is not None else self.model.named_modules())

    def place(self, path: str) -> str:
        """Write a place with the model's name."""
        return f"{self.name} / {path}" if path else self.name

    def author(self, path: str) -> str:
        """Say which edit put in the module at `path`, if one did."""
        for home, number in self.added.items():
            if path == home or path.startswith(f"{home}."):
                return f", added by edit {number}"
        return ""

    def made_by(self, run: Trace, op: Op | None) -> str:
        """Say who made a tensor."""
        if op is None:
            return "given as the model's input"
        kind = run.kinds.get(op.path, "")
        where = op.path or "the model's own forward"
        return f"made by  {where} ({kind or op.name}){self.author(op.path)}"


class Rule(ABC):
    """One kind of fault. Its docstring explains it: `torchgraft rule CODE` prints it."""

    registry: ClassVar[dict[str, type[Rule]]] = {}
    code: ClassVar[str]
    severity: ClassVar[Severity]
    title: ClassVar[str]
    case: ClassVar[str]
    """What somebody did that the rule was written for."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        Rule.registry[cls.code] = cls

    @abstractmethod
    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Yield what is wrong."""

    def found(self, where: str, *facts: str, hint: str = "") -> Finding:
        """Make a finding of this rule."""
        return Finding(self.code, self.severity, self.title, where, tuple(fact for fact in facts if fact), hint)


def rules() -> dict[str, type[Rule]]:
    """Give every rule there is, by code."""
    gather("torchgraft.rules")
    return dict(sorted(Rule.registry.items()))


def judge(evidence: Evidence, *, errors: bool = False) -> tuple[Finding, ...]:
    """Let every rule read the evidence; the same finding from two traces counts once, errors come first.

    Args:
        evidence: what the probes recorded.
        errors: ask only the rules whose findings are errors.
    """
    found: dict[Finding, None] = {}
    for rule in rules().values():
        if errors and rule.severity != "error":
            continue
        for finding in rule().findings(evidence):
            found.setdefault(finding)
    order = ("error", "warning", "note")
    return tuple(sorted(found, key=lambda finding: order.index(finding.severity)))
