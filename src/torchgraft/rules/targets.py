"""Family D, further: targets and their layout, as a loss was given them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from torchgraft.rules.finding import Finding, Severity
from torchgraft.rules.rule import Evidence, Rule

if TYPE_CHECKING:
    from torchgraft.probes.records import Criterion

__all__: list[str] = []

_BY_CLASS = ("cross_entropy", "nll_loss")
_EITHER_WAY = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")
"""Losses that give the same where outputs and targets change places."""


def layout(one: Criterion) -> tuple[str, str] | None:
    """Say what is wrong with the layout of targets, and what to write; None where nothing is."""
    labels, scores = one.labels, one.scores
    if one.swapped and one.name not in _EITHER_WAY:
        return "the targets stand where the outputs belong", f"outputs first: F.{one.name}(outputs, targets)"
    if one.name in _BY_CLASS:
        return _class_layout(one)
    if one.name.startswith("binary_cross_entropy") and labels.shape != scores:
        return _binary_shape(one)
    if one.name.startswith("binary_cross_entropy") and not labels.is_float:
        return "", "targets.float()"
    return None


def _binary_shape(one: Criterion) -> tuple[str, str]:
    """Say how targets of another shape become a yes or no for each output."""
    labels, scores = one.labels, list(one.scores)
    if math.prod(labels.shape) == math.prod(scores):
        return "", f"give both one shape: targets.reshape({scores}).float()"
    by_class = len(scores) == 2 and labels.shape in ((scores[0],), (scores[0], 1)) and labels.whole
    if by_class and labels.low >= 0 and labels.high < scores[1]:
        flat = "targets" if len(labels.shape) == 1 else "targets.squeeze(1)"
        return (
            "the targets are class numbers, and the loss wants a yes or no for each class",
            f"CrossEntropyLoss, where one class is right; else F.one_hot({flat}.long(), {scores[1]}).float()",
        )
    return "the loss wants a yes or no for each output", f"give targets of shape {scores} as floats"


def _class_layout(one: Criterion) -> tuple[str, str] | None:
    labels, scores = one.labels, one.scores
    wanted = (*scores[:1], *scores[2:])
    if labels.is_float and labels.shape == scores:
        return None  # shares of each class
    last = len(scores) > 2 and labels.shape == scores[:-1] != wanted
    if last and labels.whole and labels.high < scores[-1]:
        turned = "outputs.transpose(1, 2)" if len(scores) == 3 else "outputs.movedim(-1, 1)"
        return "the classes are the second dimension of what the loss is given, not the last", turned
    flat = len(scores) == 2 and len(labels.shape) > 1 and labels.shape[0] != scores[0]
    if flat and labels.whole and math.prod(labels.shape) == scores[0]:
        return "each row of the outputs has one target", "targets.flatten()"
    if labels.is_float and labels.shape == wanted:
        return "class numbers are integers", "targets.long()"
    if len(scores) > 1 and scores[:1] != labels.shape[:1]:
        return (
            "outputs and targets differ in number",
            "see what changes the number of rows: flatten(1), cat(…, dim=1)",
        )
    if labels.shape == (*wanted, 1) or (len(labels.shape) == len(scores) and labels.shape[1:2] == (1,)):
        return "there is a dimension of size 1 too much", f"targets.squeeze({1 if len(scores) > 1 else 0}).long()"
    if labels.shape == scores and labels.distinct <= 2:
        return "one-hot targets are floats, or class numbers", "targets.float(), or targets.argmax(1)"
    if labels.shape != wanted and len(scores) > 1:
        return "", f"give class numbers of shape {list(wanted)}"
    return None if labels.dtype in ("int64", "uint8") else ("class numbers are int64", "targets.long()")


class TargetLayout(Rule):
    """The targets do not have the layout that the loss takes.

    Cross-entropy takes class numbers as int64 of the outputs' shape without the classes, or a share for each class
    as floats of the outputs' shape. Binary losses take floats of the outputs' very shape. Outputs come first,
    targets second.
    """

    code = "D010"
    severity: ClassVar[Severity] = "error"
    title = "targets of another layout than the loss takes"
    case = "targets [N, 1]; one-hot targets of integers; labels as floats; x.view(-1, k) that folds the batch"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Compare the shapes and dtypes that met in the loss."""
        for one in evidence.step.criteria if evidence.step is not None else ():
            wrong = layout(one)
            if wrong is not None:
                yield self.found(
                    evidence.name,
                    f"{one.name} is given outputs {list(one.scores)} and targets {one.labels.dtype} "
                    f"{list(one.labels.shape)}",
                    wrong[0],
                    hint=wrong[1],
                )


class NotShares(Rule):
    """Targets of cross-entropy that are one float a class should add up to 1 in each row.

    Several classes at once are a task for BCEWithLogitsLoss.
    """

    code = "D012"
    severity: ClassVar[Severity] = "warning"
    title = "shares of the classes do not add up to 1"
    case = "several labels a picture as 0/1 floats, trained with cross-entropy"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Add up the rows."""
        for one in evidence.step.criteria if evidence.step is not None else ():
            whole = one.name == "cross_entropy" and one.labels.is_float and one.labels.shape == one.scores
            if whole and len(one.scores) > 1 and not one.labels.sums:
                yield self.found(
                    evidence.name,
                    f"targets {list(one.labels.shape)} from {one.labels.low:g} to {one.labels.high:g}",
                    hint="several classes at once: BCEWithLogitsLoss. One class: class numbers",
                )


class OneClassBatch(Rule):
    """All labels of a batch are the same, since the data are sorted by class and not shuffled.

    Each step then teaches one class, and unteaches the others.
    """

    code = "D011"
    severity: ClassVar[Severity] = "note"
    title = "a batch of one class"
    case = "DataLoader(folder, batch_size=32) without shuffle=True, on a folder read class by class"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Count the different labels."""
        seen, step = evidence.arrival, evidence.step
        if seen is None or step is None or seen.labels is None or seen.samples < 4:
            return
        if not step.criteria or not step.criteria[-1].by_index or seen.labels.distinct != 1:
            return
        unsorted = seen.lengths is not None and not seen.lengths.shuffled
        found = self.found(
            evidence.name,
            f"all {seen.samples} labels that were read are {seen.labels.low:g}",
            "the loader does not shuffle" if unsorted else "",
            hint="DataLoader(…, shuffle=True) for training",
        )
        yield replace(found, severity="warning") if unsorted else found


class OutOfTable(Rule):
    """An id lies outside of the embedding's table, often since the tokenizer has more words than the model."""

    code = "D013"
    severity: ClassVar[Severity] = "error"
    title = "ids outside of the embedding"
    case = "a tokenizer with added words, and an embedding that was not resized"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look whether a pass was stopped before an embedding read beyond its table."""
        told = [evidence.state.broke if evidence.state else None, evidence.step.broke if evidence.step else None]
        broke = next((one for one in told if one and one.error == "Refused" and one.op == "embedding"), None)
        if broke is not None:
            yield self.found(
                evidence.place(broke.path), broke.message, hint="resize the embedding, or check the ids"
            )
