"""Family T: what a real step, forward and backward, shows before any training."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from torchgraft.rules.finding import Finding, Severity
from torchgraft.rules.rule import Evidence, Rule
from torchgraft.rules.targets import layout
from torchgraft.rules.wording import at, homes

if TYPE_CHECKING:
    from torchgraft.probes.records import Broke
    from torchgraft.probes.step import Step

__all__: list[str] = []


class StepBroke(Rule):
    """A real pass over a few samples breaks off, and no other rule knows the cause."""

    code = "T001"
    severity: ClassVar[Severity] = "error"
    title = "a real step breaks off"
    case = "a loss of the user's own that fails on the shapes that the model gives"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Tell the stage, the operation and torch's own words."""
        told = [evidence.step.broke if evidence.step else None, evidence.state.broke if evidence.state else None]
        broke = next((one for one in told if one is not None), None)
        if broke is None or _known(evidence, broke):
            return
        found = self.found(
            evidence.place(broke.path),
            f"the {_STAGES.get(broke.stage, broke.stage)} breaks off{f' at {broke.op}' if broke.op else ''}",
            f"{'torch' if broke.op else 'it'} says: {broke.error}: {broke.message.splitlines()[0][:200]}"
            if broke.error
            else broke.message,
            hint="run model(inputs) and loss(outputs, targets) on one batch by hand",
        )
        yield replace(found, severity="note") if broke.stage == "copy" else found


_STAGES = {
    "copy": "copy of the model",
    "evaluation": "pass in evaluation mode",
    "forward": "pass in training mode",
    "second forward": "second pass in training mode",
    "loss": "loss",
    "second loss": "second loss",
    "backward": "backward pass",
    "second backward": "second backward pass",
}


def _known(evidence: Evidence, broke: Broke) -> bool:
    """Tell whether another rule tells the cause."""
    step = evidence.step
    arrival = evidence.arrival
    if broke.error == "Refused" or any(run.mismatch for run in evidence.runs):
        return True
    if step is None or broke.stage in ("copy", "evaluation"):
        return False
    causes = (
        any(layout(one) is not None for one in step.criteria),
        any(one.name == "binary_cross_entropy" and one.kind == "raw" for one in step.criteria),
        any(one.name in _DISTANCES and not one.labels.is_float for one in step.criteria),
        step.overwritten is not None,
        bool(step.held) and broke.stage.startswith("second"),
        _elsewhere(step),
        _sets_flag(broke),
        step.kind == "NoneType",
        arrival is not None and arrival.samples == 1 and broke.op == "batch_norm",
    )
    return any(causes)


_DISTANCES = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")


class NotFinite(Rule):
    """The loss or the outputs are NaN or infinite in the very first step: no step can come of that."""

    code = "T002"
    severity: ClassVar[Severity] = "error"
    title = "the first loss is not finite"
    case = "torch.log(softmax(x)) where a probability is zero; weights loaded in half precision that overflow"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look at the losses, the outputs and the gradients."""
        step = evidence.step
        if step is None:
            return
        bad = [loss for loss in step.losses if not math.isfinite(loss)]
        odd = sum(one.odd for one in step.outputs)
        names = [one.name for one in step.gradients if one.norm is not None and not math.isfinite(one.norm)]
        if not bad and not odd and not names:
            return
        inputs = evidence.arrival is not None and any(one.odd for one in evidence.arrival.inputs)
        yield self.found(
            evidence.place(step.odd.path if step.odd else ""),
            f"the loss is {bad[0]}" if bad else "",
            f"{odd} values of the outputs are NaN or infinite" if odd else "",
            f"gradients that are not finite: {homes(names)}" if names and not bad else "",
            f"first made by {at(step.odd)}" if step.odd else "",
            hint="the inputs are not finite: mend them first"
            if inputs
            else "guard logs, roots and divisions by an eps",
        )


class HighLoss(Rule):
    """The first loss is far above what a head that knows nothing gives: ln C for cross-entropy over C classes.

    Scores far from zero are sure and wrong. More than 5 ln C + 5 is told; Karpathy's recipe (2019) checks the
    first loss as well.
    """

    code = "T005"
    severity: ClassVar[Severity] = "warning"
    title = "the first loss is far above chance"
    case = "a head whose weights were drawn with a standard deviation of 1; images of 0 … 255"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Compare the loss with ln C."""
        step = evidence.step
        one = step.criteria[-1] if step is not None and step.criteria else None
        if step is None or one is None or one.name != "cross_entropy" or one.classes < 2 or not step.losses:
            return
        chance = math.log(one.classes)
        if math.isfinite(step.losses[0]) and step.losses[0] > 5 * chance + 5:
            yield self.found(
                evidence.name,
                f"the loss is {step.losses[0]:.3g}; a head that knows nothing has ln {one.classes} = {chance:.3g}",
                hint="normalise the inputs, and draw the head's weights small: init(at='head', linear={'normal': "
                "{'std': 0.01}})",
            )


_NOWHERE = "no operation on a trainable parameter leads to the loss"


class Unattached(Rule):
    """The loss does not depend on any parameter that can be trained: the graph ends before it."""

    code = "T006"
    severity: ClassVar[Severity] = "error"
    title = "the loss does not depend on the parameters"
    case = "outputs.detach(), loss.item(), or a forward under torch.no_grad()"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look whether the loss requires gradients."""
        step = evidence.step
        free = any(parameter.requires_grad for parameter in evidence.model.parameters())
        if step is None or step.attached or step.broke is not None or not free:
            return
        cut = step.cuts[0] if step.cuts else None
        yield self.found(
            evidence.place(cut.path if cut else ""),
            "the loss is a plain number, no tensor" if step.loss_shape is None else "",
            f"the graph ends at {at(cut)}" if cut else "" if step.loss_shape is None else _NOWHERE,
            hint="take out detach(), item(), numpy() and no_grad() on the way to the loss",
        )


def _elsewhere(step: Step | None) -> bool:
    """Tell whether a graph is kept outside of the model: the first backward pass goes through, the second not."""
    return step is not None and not step.held and step.broke is not None and step.broke.stage == "second backward"


class GraphKept(Rule):
    """An attribute keeps a tensor of the step with its graph: memory grows, and the next backward pass fails.

    Hidden states, losses and features that are kept between steps are to be detached.
    """

    code = "T009"
    severity: ClassVar[Severity] = "error"
    title = "the graph of a step is kept"
    case = "self.hidden = hidden, without detach(), in a recurrent network"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look at attributes after a step, and whether the second one went through."""
        step = evidence.step
        fails = step is not None and step.broke is not None and step.broke.stage.startswith("second")
        if step is None or not step.held:
            if _elsewhere(step):
                yield self.found(
                    evidence.name,
                    "the second backward pass goes through the graph of the first, which is gone",
                    "nothing in the model keeps it: the loss does, or a list or variable outside",
                    hint="keep numbers, loss.item(), or tensors without their graph, x.detach()",
                )
            return
        found = self.found(
            evidence.place(step.held[0].rpartition(".")[0]),
            f"kept after the step, with all that it was made of: {', '.join(step.held[:4])}",
            "the second backward pass goes through the first graph, which is gone" if fails else "",
            hint=f"keep {step.held[0]}.detach()",
        )
        yield found if fails else replace(found, severity="warning")


class Overwritten(Rule):
    """An in-place operation changes a tensor that the backward pass needs."""

    code = "T010"
    severity: ClassVar[Severity] = "error"
    title = "overwritten before the backward pass"
    case = "y = torch.sigmoid(x); y += 1: the gradient of the sigmoid is made of its output"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Tell who needed it and who wrote."""
        pair = evidence.step.overwritten if evidence.step is not None else None
        if pair is not None:
            yield self.found(
                evidence.place(pair[1].path),
                f"{at(pair[0])} needs a tensor again in the backward pass",
                f"{at(pair[1])} writes to it",
                hint="write y = y + 1 instead of y += 1, or inplace=False",
            )


class NotOneNumber(Rule):
    """The loss is not one number, so there is no backward pass of it."""

    code = "T011"
    severity: ClassVar[Severity] = "error"
    title = "the loss is not one number"
    case = "nn.CrossEntropyLoss(reduction='none') without a mean"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look at the shape of the loss."""
        shape = evidence.step.loss_shape if evidence.step is not None else ()
        if shape and math.prod(shape) != 1:
            yield self.found(evidence.name, f"the loss is a tensor of {list(shape)}", hint="loss.mean()")


GROWN = 4.0
"""A range test stops where the loss is 4 times the best (Gugger, 2018, after Smith, 2017)."""


class RateTooHigh(Rule):
    """A few steps of the optimizer on one batch make the loss of that very batch explode: the rate is too high.

    Four steps are taken on a copy. The loss of the batch that is trained on should fall; four times as much is
    told.
    """

    code = "T012"
    severity: ClassVar[Severity] = "warning"
    title = "the learning rate makes the loss explode"
    case = "SGD(lr=1.0, momentum=0.9), copied from another training"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Compare the losses of the course with the first."""
        course = evidence.step.course if evidence.step is not None else None
        if not course or len(course) < 2 or not math.isfinite(course[0]):
            return
        lost = any(not math.isfinite(loss) for loss in course)
        chance = self._chance(evidence)
        if lost or max(course[1:]) > GROWN * max(course[0], chance):
            found = self.found(
                evidence.name,
                f"the loss of one batch, step by step: {', '.join(f'{loss:.3g}' for loss in course)}",
                hint="try a tenth of the learning rate, and a tenth of that, or warm up",
            )
            yield replace(found, severity="error") if lost else found

    @staticmethod
    def _chance(evidence: Evidence) -> float:
        one = evidence.step.criteria[-1] if evidence.step is not None and evidence.step.criteria else None
        by_class = one is not None and one.name == "cross_entropy" and one.classes > 1
        return math.log(one.classes) if one is not None and by_class else 1e-3


class StaleGradients(Rule):
    """Parameters hold gradients already: the next backward pass adds to them, where zero_grad() is missing."""

    code = "T013"
    severity: ClassVar[Severity] = "note"
    title = "gradients are there before the step"
    case = "a loop without optimizer.zero_grad(): gradients pile up"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look at what was there before."""
        stale = evidence.step.stale if evidence.step is not None else ()
        if stale:
            yield self.found(
                evidence.place(stale[0].rpartition(".")[0]),
                f"{len(stale)} parameters hold a gradient: {homes(stale)}",
                hint="optimizer.zero_grad() before each backward pass, but where gradients are summed on purpose",
            )


def _sets_flag(broke: Broke) -> bool:
    return broke.op in ("requires_grad=", "requires_grad_")


class FlagOnComputed(Rule):
    """`requires_grad` is set on a computed tensor; only parameters and other leaves have that flag."""

    code = "T019"
    severity: ClassVar[Severity] = "error"
    title = "requires_grad set on a computed tensor"
    case = "features.requires_grad = False, to stop the gradient at a feature"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look at the operation that broke off."""
        broke = evidence.step.broke if evidence.step is not None else None
        if broke is not None and _sets_flag(broke):
            yield self.found(
                evidence.place(broke.path),
                "the flag is set in the forward, on a tensor that was computed",
                hint="features.detach() stops the gradient there; freeze(…) keeps parameters as they are",
            )
