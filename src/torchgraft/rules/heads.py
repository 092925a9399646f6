"""Family H: heads and losses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from torchgraft.rules.finding import Finding, Severity
from torchgraft.rules.rule import Evidence, Rule

__all__: list[str] = []


class SoftmaxBeforeLoss(Rule):
    """The model ends in a softmax, and cross-entropy takes another one: the loss can't get low.

    Cross-entropy wants the raw scores. With a softmax before it, its least value for C classes is
    ln(e + C - 1) - 1, and the gradients are small.
    """

    code = "H001"
    severity: ClassVar[Severity] = "warning"
    title = "softmax before cross-entropy"
    case = "nn.Softmax as the last layer of a classifier that is trained with cross-entropy"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look at the last operation before each output."""
        for run in evidence.runs:
            for output in run.outputs:
                op = run.maker(output)
                if op is not None and op.name in ("softmax", "log_softmax", "sigmoid"):
                    yield self.found(
                        evidence.place(op.path),
                        f"the output {run.show(output)} comes out of {op.name}",
                        hint=f"remove {op.path}" if op.path else f"take {op.name} out of the forward",
                    )


class LinearAfterLinear(Rule):
    """Two linear layers follow each other with nothing between: together they are just one linear layer."""

    code = "H002"
    severity: ClassVar[Severity] = "warning"
    title = "two linear layers with nothing between"
    case = "vgg16.classifier.add_module('Linear', nn.Linear(1000, 10))"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look for a linear operation on the very output of another, where an edit put one of them in."""
        for run in evidence.runs:
            for op in run.ops:
                before = run.maker(op.inputs[0]) if op.inputs else None
                pair = op.name == "linear" and before is not None and before.name == "linear"
                if not pair or before is None or op.path == before.path:
                    continue
                if evidence.author(op.path) or evidence.author(before.path):
                    yield self.found(
                        evidence.place(op.path),
                        f"{before.path} gives {run.show(before.outputs[0])} straight to {op.path}"
                        f"{evidence.author(op.path)}",
                        hint=f"put a ReLU between them, or replace {before.path} by one layer: head(classes)",
                    )


class ClassCount(Rule):
    """The output has fewer classes than the labels need, so the loss can't be computed."""

    code = "H003"
    severity: ClassVar[Severity] = "error"
    title = "fewer outputs than classes"
    case = "a head for 5 classes and a folder of 7"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Compare the widths of the outputs with the labels."""
        if evidence.data is None:
            return
        need = max(evidence.data.classes, evidence.data.labels[1] + 1)
        for run in evidence.runs:
            for shape in run.output_shapes():
                if len(shape) == 2 and shape[1] != need:
                    level = self.found(
                        evidence.name,
                        f"the output has {shape[1]} classes, the data have {need}",
                        hint=f"head({need})",
                    )
                    if shape[1] < need:
                        yield level
