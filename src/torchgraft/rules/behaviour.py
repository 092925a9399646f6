"""Family T, further: what real passes show of a model's behaviour."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from torchgraft.rules.finding import Finding, Severity
from torchgraft.rules.rule import Evidence, Rule
from torchgraft.rules.wording import at

if TYPE_CHECKING:
    from torchgraft.probes.records import Place

__all__: list[str] = []


class EvaluationMoves(Rule):
    """A pass in evaluation mode changes the model: looking at it, or validating, alters what is saved."""

    code = "T014"
    severity: ClassVar[Severity] = "warning"
    title = "evaluation changes the model"
    case = "a summary that runs a batch in training mode; F.batch_norm(…, training=True) whatever the mode"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look at what moved."""
        moved = evidence.state.moved if evidence.state is not None else ()
        if moved:
            yield self.found(
                evidence.place(moved[0].rpartition(".")[0]),
                f"a pass in evaluation mode writes to {', '.join(moved[:4])}"
                f"{f' and {len(moved) - 4} more' if len(moved) > 4 else ''}",
                hint="write only where self.training is true",
            )


class EvaluationRandom(Rule):
    """A pass in evaluation mode draws random numbers, so two passes over one sample differ.

    `F.dropout(x)` drops in evaluation too, unless it is told `training=self.training`.
    """

    code = "T015"
    severity: ClassVar[Severity] = "warning"
    title = "evaluation is random"
    case = "F.dropout(x, 0.5) in the forward of a classifier"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look whether the random numbers moved; without data, whether a dropout was told that it is training."""
        place = evidence.state.random if evidence.state is not None else _dropping(evidence)
        if place is not None:
            yield self.found(
                evidence.place(place.path),
                f"{at(place)} draws random numbers in evaluation mode",
                hint="F.dropout(x, p, training=self.training), or nn.Dropout",
            )


def _dropping(evidence: Evidence) -> Place | None:
    """Find the first dropout of a pass in evaluation mode that was told to drop."""
    from torchgraft.probes.records import Place

    for run in evidence.runs:
        for op in run.ops if not run.train else ():
            if "dropout" in op.name and ("training", True) in op.settings:
                return Place(op.name, op.path)
    return None


class SamplesMix(Rule):
    """In evaluation mode the output of a sample depends on the others of its batch.

    The batch is folded into another dimension, attended over (`batch_first=False`), put through a softmax along
    it, or normalised by its own statistics in evaluation (`track_running_stats=False`).
    """

    code = "T016"
    severity: ClassVar[Severity] = "warning"
    title = "samples of a batch see each other"
    case = "nn.MultiheadAttention without batch_first=True on [N, tokens, features]; F.softmax(x, dim=0)"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look whether outputs of unchanged samples moved."""
        seen = evidence.independence
        if seen is None or not seen.mixed:
            return
        place = seen.place
        yield self.found(
            evidence.place(place.path if place else ""),
            f"one of {seen.samples} samples was changed, and the outputs of the others moved by {seen.mixed:.1%}",
            f"first at {at(place)}" if place else "",
            hint="keep the batch in dimension 0 and work along the others: batch_first=True, dim=1, flatten(1)",
        )


class SameForAll(Rule):
    """Different samples get the very same output, and the parameters before it learn nothing."""

    code = "T017"
    severity: ClassVar[Severity] = "warning"
    title = "the same output for every sample"
    case = "a forward hook that gives back the first feature map for ever"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Compare the outputs; a head of zeros, which learns from the second step on, is left alone."""
        seen, step = evidence.independence, evidence.step
        if seen is None or not seen.same:
            return
        first = next((one for one in step.gradients if one.matrix), None) if step is not None else None
        if first is None or not first.later:
            yield self.found(
                evidence.name,
                f"{seen.samples} samples that differ give one output",
                hint="follow it back: dead ReLUs, a hook that returns something, a constant",
            )


class ForwardWrites(Rule):
    """The forward pass writes to parameters by itself: what the optimizer did is changed again."""

    code = "T018"
    severity: ClassVar[Severity] = "warning"
    title = "the forward pass writes to parameters"
    case = "self.weight.data.clamp_(…) in the forward"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look at the bytes before and after a pass."""
        written = evidence.step.written if evidence.step is not None else ()
        if written:
            yield self.found(
                evidence.place(written[0].rpartition(".")[0]),
                f"after a forward pass {', '.join(written[:4])} have other values",
                hint="make a new tensor of it in the forward, or use torch.nn.utils.parametrize",
            )
