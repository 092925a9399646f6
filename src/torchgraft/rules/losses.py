"""Family H, further: what a loss is given, and what it makes of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from torchgraft.rules.finding import Finding, Severity
from torchgraft.rules.heads import criterion_of, end_of
from torchgraft.rules.rule import Evidence, Rule

if TYPE_CHECKING:
    from torchgraft.probes.records import Criterion

__all__: list[str] = []


class WrongScores(Rule):
    """The loss takes scores of another kind than the model gives.

    NLLLoss and KLDivLoss want log-probabilities: of raw scores their value can fall without end, and says nothing.
    BCELoss wants values in 0 … 1, and breaks off with others.
    """

    code = "H005"
    severity: ClassVar[Severity] = "error"
    title = "the loss takes scores of another kind"
    case = "nn.NLLLoss on the output of a plain nn.Linear; nn.BCELoss without a sigmoid"

    _WANTS: ClassVar[dict[str, tuple[tuple[str, ...], str]]] = {
        "nll_loss": (("log-probabilities",), "cross-entropy takes raw scores, or end the model in a log-softmax"),
        "kl_div": (("log-probabilities",), "put a log-softmax before it"),
        "binary_cross_entropy": (
            ("unit", "probabilities"),
            "BCEWithLogitsLoss takes raw scores, or end in a sigmoid",
        ),
    }
    _ENDS: ClassVar[frozenset[str]] = frozenset(
        ["log_softmax", "log", "logsigmoid", "sigmoid", "softmax", "clamp", "sigmoid_", "hardsigmoid", "exp"]
    )

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look at the values that the loss was given; without data, at the last operation."""
        one = criterion_of(evidence)
        name = one.name if one is not None else evidence.loss
        wants, hint = self._WANTS.get(name, ((), ""))
        if not wants:
            return
        if one is not None:
            flat = (
                one.kind == "raw" and evidence.step is not None and any(seen.odd for seen in evidence.step.outputs)
            )
            if one.kind not in wants and not flat:
                yield self.found(
                    evidence.place(one.path),
                    f"{name} wants {wants[0].replace('unit', 'values in 0 … 1')}, and is given {one.kind} ones",
                    hint=hint,
                )
            return
        for run in evidence.runs[:1]:
            ends = [end_of(run, output) for output in run.outputs]
            if ends and ends[0] is not None and ends[0].name not in self._ENDS:
                found = self.found(
                    evidence.place(ends[0].path), f"{name} is given what {ends[0].name} makes", hint=hint
                )
                yield replace(found, severity="warning")


class OneOutput(Rule):
    """Cross-entropy over one class is zero whatever the model does: nothing is learnt."""

    code = "H006"
    severity: ClassVar[Severity] = "error"
    title = "cross-entropy of one output"
    case = "nn.Linear(512, 1) for a yes-or-no question, trained with nn.CrossEntropyLoss"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look at the classes of the loss; without data, at the width of the output."""
        one = criterion_of(evidence)
        widths = [shape[1] for run in evidence.runs for shape in run.output_shapes() if len(shape) == 2]
        seen = one is not None and one.name == "cross_entropy" and one.classes == 1 and not one.labels.is_float
        if seen or (one is None and evidence.loss == "cross_entropy" and widths and set(widths) == {1}):
            yield self.found(
                evidence.name,
                "the output has one column, and a softmax over one column is always 1: the loss is 0",
                hint="head(2), or judge the one column by BCEWithLogitsLoss with float labels",
            )


class SeveralOutputs(Rule):
    """In training mode the model gives more than one tensor, and the loss takes one.

    googlenet and inception_v3 add auxiliary scores in training mode, segmentation models give a dict, others a
    tuple. torchgraft's own loop adds the losses of auxiliary heads with a weight of 0.3 (Szegedy et al., 2015).
    """

    code = "H007"
    severity: ClassVar[Severity] = "error"
    title = "the loss does not take the whole output"
    case = "F.cross_entropy(inception(x), y) in training mode, where inception gives InceptionOutputs"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look whether the loss refused the output; without data, count the outputs."""
        step = evidence.step
        if step is not None and step.refused:
            found = self.found(
                evidence.name,
                f"in training mode the output is a {step.kind} of {len(step.outputs)} tensors: "
                f"{', '.join(str(list(seen.shape)) for seen in step.outputs[:4])}",
                "the loss was given the main one alone to go on" if step.given else "",
                hint=_scores_of(step.entries),
            )
            yield found if step.given else replace(found, severity="note")
        elif step is None and evidence.loss:
            for run in evidence.runs:
                if run.train and len(run.outputs) > 1:
                    shapes = ", ".join(run.show(number) for number in run.outputs)
                    yield replace(
                        self.found(evidence.name, f"in training mode the model gives {shapes}", hint="judge each"),
                        severity="warning",
                    )


def _scores_of(entries: tuple[str, ...]) -> str:
    """Say how the loss is given what it takes, in the words of this very output."""
    if not entries:
        return "take the scores out of it, and give the loss these"
    auxiliary = "".join(f" + 0.3 * loss({name}, y)" for name in entries[1:] if "aux" in name)
    return f"give the loss the scores alone: loss({entries[0]}, y){auxiliary}"


class SpreadLoss(Rule):
    """Outputs and targets have two shapes, and torch spreads the one over the other.

    [N, 1] against [N] becomes [N, N]: every output is compared with every target, and drawn to their mean. Where
    no samples are mixed, as with [N, 3] against [N, 1], one target stands for several outputs: a warning.
    """

    code = "H008"
    severity: ClassVar[Severity] = "error"
    title = "outputs and targets are broadcast against each other"
    case = "F.mse_loss(model(x), y) with outputs [64, 1] and targets [64]"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look at the shapes that met in the loss."""
        step = evidence.step
        if step is None:
            return
        pairs = {(one.name, one.scores, one.labels.shape) for one in step.criteria if _is_distance(one)}
        pairs |= {(one.op, one.shapes[0], one.shapes[1]) for one in step.spreads if one.op not in _DISTANCES}
        for name, scores, targets in sorted(pairs):
            met = _spread(scores, targets)
            largest = max(math.prod(scores), math.prod(targets))
            if met is None or math.prod(met) == math.prod(scores) == math.prod(targets):
                continue  # sizes of 1 apart they are the same
            if math.prod(met) > largest:
                yield self.found(
                    evidence.name,
                    f"{name} of {list(scores)} and {list(targets)} compares every output with every target",
                    hint=_one_shape(scores, targets),
                )
            elif name in _DISTANCES and min(math.prod(scores), math.prod(targets)) > 1:
                found = self.found(
                    evidence.name,
                    f"{name} spreads {list(scores)} and {list(targets)} to {list(met)}",
                    "one target stands for several outputs"
                    if met == scores
                    else "one output stands for several targets",
                    hint=_one_shape(scores, targets),
                )
                yield replace(found, severity="warning")


def _spread(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...] | None:
    """Give the shape that two are broadcast to; None where they can't be."""
    rank = max(len(one), len(other))
    pairs = list(
        zip((1,) * (rank - len(one)) + one, (1,) * (rank - len(other)) + other, strict=True),
    )
    if any(first != second and 1 not in (first, second) for first, second in pairs):
        return None
    return tuple(second if first == 1 else first for first, second in pairs)


def _one_shape(scores: tuple[int, ...], targets: tuple[int, ...]) -> str:
    """Say how outputs and targets get one shape."""
    if scores == (*targets, 1):
        return f"give both one shape: outputs.squeeze({len(targets)}), or targets.unsqueeze({len(targets)})"
    if targets == (*scores, 1):
        return f"give both one shape: targets.squeeze({len(scores)})"
    if len(scores) > max(len(targets), 2) and math.prod(scores[1:]) == math.prod(targets):
        end = "" if scores[1:] == targets else f".reshape({list(targets)})"
        return f"the first dimension is no batch, as that of a recurrent layer's state: outputs[-1]{end}"
    return f"give both one shape: targets of {list(scores)}, or outputs of {list(targets)}"


_DISTANCES = frozenset(["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"])


def _is_distance(one: Criterion) -> bool:
    return one.name in _DISTANCES and one.scores != one.labels.shape


class ClassesAsNumbers(Rule):
    """A distance such as MSE is taken of class numbers: class 9 then counts as nine times class 1."""

    code = "H009"
    severity: ClassVar[Severity] = "warning"
    title = "class numbers as quantities"
    case = "nn.MSELoss with labels 0 … 9"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look for whole numbers of an integer type in a distance."""
        one = criterion_of(evidence)
        if one is not None and one.name in _DISTANCES and not one.labels.is_float and one.labels.distinct > 1:
            yield self.found(
                evidence.name,
                f"{one.name} is given {one.labels.dtype} targets from {one.labels.low:g} to {one.labels.high:g}",
                hint="classes: cross-entropy and head(classes). Quantities: targets.float()",
            )
