"""Family H: heads and losses."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from torchgraft.rules.finding import Finding, Severity
from torchgraft.rules.rule import Evidence, Rule

if TYPE_CHECKING:
    from torchgraft.probes.records import Criterion
    from torchgraft.trace import Op, Trace

__all__ = ["criterion_of", "end_of"]

_SHAPED = frozenset(
    {
        *("view", "reshape", "view_as", "reshape_as", "flatten", "squeeze", "unsqueeze", "permute", "transpose"),
        *("movedim", "contiguous", "clone", "detach", "to", "float", "double", "half", "type", "dropout"),
    }
)
"""Operations that leave the values of scores as they are."""


def end_of(run: Trace, output: int, *, through: frozenset[str] = _SHAPED) -> Op | None:
    """Find what gives an output its values: the last operation that does more than reshape."""
    op = run.maker(output)
    while op is not None and op.name in through and op.inputs:
        before = run.maker(op.inputs[0])
        if before is None:
            break
        op = before
    return op


def criterion_of(evidence: Evidence) -> Criterion | None:
    """Give the loss function that the outputs were judged by in a real step, where the user chose it."""
    step = evidence.step
    if step is None or not step.criteria:
        return None
    last = step.criteria[-1]
    return last if step.given or last.path else None


def loss_of(evidence: Evidence) -> str:
    """Name the loss function that the user chose; empty where none is known."""
    criterion = criterion_of(evidence)
    return criterion.name if criterion is not None else evidence.loss


_SPOILS: dict[tuple[str, str], Severity] = {
    ("softmax", ""): "warning",
    ("softmax", "cross_entropy"): "warning",
    ("softmax", "binary_cross_entropy_with_logits"): "warning",
    ("sigmoid", ""): "note",
    ("sigmoid", "cross_entropy"): "warning",
    ("sigmoid", "binary_cross_entropy_with_logits"): "warning",
    ("log_softmax", ""): "note",
    ("log_softmax", "cross_entropy"): "note",
}
"""What ends in what, and is then judged by which loss; empty where the loss is not known."""

_MEANT = {"softmax": "raw scores", "sigmoid": "BCELoss", "log_softmax": "NLLLoss"}


class SoftmaxBeforeLoss(Rule):
    """The model ends in a softmax or sigmoid, and the loss takes another one: it can't get low.

    Cross-entropy wants the raw scores. With a softmax before it, its least value for C classes is
    ln(e + C - 1) - 1, and the gradients are small. BCEWithLogitsLoss takes the sigmoid itself. A log-softmax is
    harmless before cross-entropy, and right before NLLLoss; a sigmoid is right before BCELoss. Where the loss is
    not known, those two are notes.
    """

    code = "H001"
    severity: ClassVar[Severity] = "warning"
    title = "softmax before cross-entropy"
    case = "nn.Softmax as the last layer of a classifier that is trained with cross-entropy"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look at what gives each output its values; else at the values that the loss was given."""
        told = False
        for run in evidence.runs:
            for output in run.outputs:
                op = end_of(run, output)
                kind = (
                    ""
                    if op is None
                    else {"sigmoid_": "sigmoid", "special_softmax": "softmax"}.get(op.name, op.name)
                )
                severity = _SPOILS.get((kind, loss_of(evidence)))
                if op is not None and severity is not None:
                    told = True
                    yield self._at(evidence, run, output, op, kind, severity)
        if not told:
            yield from self._by_values(evidence)

    def _at(self, evidence: Evidence, run: Trace, output: int, op: Op, kind: str, severity: Severity) -> Finding:
        classes = run.values[output].shape[1] if len(run.values[output].shape) > 1 else 0
        made = self.found(
            evidence.place(op.path),
            f"the output {run.show(output)} comes out of {kind}",
            _floor(classes)
            if kind == "softmax"
            else f"right for {_MEANT[kind]} only"
            if severity == "note"
            else "",
            hint=f"remove {op.path}" if op.path else f"take {kind} out of the forward",
        )
        loss = loss_of(evidence)
        usual = kind == "softmax" and loss in ("", "cross_entropy")
        title = self.title if usual else f"{kind} before {loss}" if loss else f"{kind} at the end"
        return replace(made, severity=severity, title=title)

    def _by_values(self, evidence: Evidence) -> Iterator[Finding]:
        one = evidence.step.criteria[-1] if evidence.step is not None and evidence.step.criteria else None
        if one is None:
            return
        if one.name == "cross_entropy" and one.kind == "probabilities":
            yield self.found(
                evidence.place(one.path),
                "cross-entropy is given probabilities: each row lies in 0 … 1 and adds up to 1",
                _floor(one.classes),
                hint="give it the raw scores: take out what makes the rows add up to 1",
            )
        if one.name == "binary_cross_entropy_with_logits" and one.kind == "unit" and math.prod(one.scores) >= 16:
            yield self.found(
                evidence.place(one.path),
                "BCE with logits takes the sigmoid itself, and is given values that all lie in 0 … 1",
                hint="take the sigmoid out of the model, or judge by BCELoss",
            )


def _floor(classes: int) -> str:
    least = math.log(math.e + classes - 1) - 1 if classes > 1 else 0
    return f"with cross-entropy the loss can't get below {least:.4f} for {classes} classes" if classes > 1 else ""


_SCORES = 100
"""So many outputs are taken for the scores of a classifier; narrower ones can be half of a factorised weight."""


class LinearAfterLinear(Rule):
    """Two linear layers follow each other with nothing between: together they are just one linear layer.

    Dropout and reshaping between them make no difference. Told where an edit put one of them in, or where the
    scores of a whole classifier, 100 or more, go straight into a narrower output layer.
    """

    code = "H002"
    severity: ClassVar[Severity] = "warning"
    title = "two linear layers with nothing between"
    case = "vgg16.classifier.add_module('Linear', nn.Linear(1000, 10))"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look for a linear operation on the very output of another, where somebody put one of them in."""
        for run in evidence.runs:
            last = [end_of(run, output) for output in run.outputs]
            for op in run.ops:
                before = end_of(run, op.inputs[0]) if op.inputs else None
                pair = op.name == "linear" and before is not None and before.name == "linear"
                if not pair or before is None or op.path == before.path:
                    continue
                wide, narrow = run.values[before.outputs[0]].shape[-1], run.values[op.outputs[0]].shape[-1]
                scores = op in last and narrow < wide >= _SCORES
                if scores or evidence.author(op.path) or evidence.author(before.path):
                    yield self.found(
                        evidence.place(op.path),
                        f"{before.path} gives {run.show(before.outputs[0])} straight to {op.path}"
                        f"{evidence.author(op.path)}",
                        hint=f"put a ReLU between them, or replace {before.path} by one layer: head(classes)",
                    )


class ClassCount(Rule):
    """The output has another number of classes than the data.

    With fewer the loss can't be computed. With more it can: the spare ones only ever learn to be small, and often
    the head of the base was forgotten.
    """

    code = "H003"
    severity: ClassVar[Severity] = "error"
    title = "another number of outputs than classes"
    case = "a head for 5 classes and a folder of 7; the 1,000 outputs of the base and a folder of 7"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Compare the widths of the outputs with the labels."""
        from torchgraft.edits.head import tasks  # here, so that listing the rules loads no edits

        named = {*tasks(evidence.edits).items()} - {("", "classes")}
        if evidence.data is None or named or evidence.loss in _DISTANCES:
            return
        need = max(evidence.data.classes, evidence.data.labels[1] + 1)
        for run in evidence.runs:
            for shape in run.output_shapes():
                if len(shape) == 2 and shape[1] != need:
                    found = self.found(
                        evidence.name,
                        f"the output has {shape[1]} classes, the data have {need}",
                        hint=f"head({need})",
                    )
                    yield found if shape[1] < need else replace(found, severity="warning")


_DISTANCES = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")


class NothingComesOut(Rule):
    """The forward pass gets through, and gives no tensor back: often the `return` is missing."""

    code = "H010"
    severity: ClassVar[Severity] = "warning"
    title = "no tensor comes out"
    case = "def forward(self, x): self.fc(x)"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look for a pass with operations and without outputs; it is an error where a real one gave None."""
        bare = [run for run in evidence.runs if run.mismatch is None and run.ops and not run.outputs]
        if not bare:
            return
        last = bare[0].ops[-1]
        found = self.found(
            evidence.name,
            f"in {' and '.join('training' if run.train else 'evaluation' for run in bare)} mode",
            f"the last that is made is {bare[0].show(last.outputs[0])}, by {last.path or last.name}"
            if last.outputs
            else "",
            hint="return the result at the end of forward",
        )
        none = evidence.step is not None and evidence.step.kind == "NoneType"
        yield replace(found, severity="error") if none else found


class ActivationAfterHead(Rule):
    """The output layer is followed by a ReLU or a dropout: scores can't be negative, or are set to zero by chance.

    Scores below zero all look the same to the loss, and their gradients are zero.
    """

    code = "H004"
    severity: ClassVar[Severity] = "warning"
    title = "the output layer is followed by a ReLU or dropout"
    case = "nn.Sequential(…, nn.Linear(512, 10), nn.ReLU()), built by a loop that adds one after every layer"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look at what makes the outputs of a classifier; features without a loss are left alone."""
        if evidence.step is None and evidence.data is None and not evidence.loss:
            return
        criteria = evidence.step.criteria if evidence.step is not None else ()
        distance = bool(criteria) and criteria[-1].name in _DISTANCES
        for run in evidence.runs:
            for output in run.outputs:
                op = end_of(run, output, through=_SHAPED - {"dropout"})
                layer = run.maker(op.inputs[0]) if op is not None and op.inputs else None
                ends = op is not None and op.name in (
                    "relu",
                    "relu_",
                    "dropout",
                    "relu6",
                    "leaky_relu",
                    "alpha_dropout",
                )
                if op is None or layer is None or not ends or layer.name != "linear":
                    continue
                if (op.name == "dropout" and not run.train) or (distance and "relu" in op.name):
                    continue  # quantities may well be positive only
                yield self.found(
                    evidence.place(op.path),
                    f"the output {run.show(output)} of {layer.path} goes through {op.name}",
                    hint=f"remove {op.path}" if op.path else f"take {op.name} out of the forward",
                )
