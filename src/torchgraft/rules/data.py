"""Family D: data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from torchgraft.rules.finding import Finding, Severity
from torchgraft.rules.rule import Evidence, Rule

__all__: list[str] = []


class Normalisation(Rule):
    """The images are normalised otherwise than those that the base was trained on."""

    code = "D001"
    severity: ClassVar[Severity] = "warning"
    title = "normalisation that the base was not trained with"
    case = "images scaled to 0 … 1 alone, and a base that was trained on ImageNet's mean and std"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Compare mean and std."""
        data = evidence.data
        if data is None or not data.normalisation or not data.trained_with:
            return
        pairs = zip(data.normalisation, data.trained_with, strict=True)
        if any(abs(_mean(ours) - _mean(theirs)) > 0.02 for ours, theirs in pairs):
            yield self.found(
                evidence.name,
                f"data: mean {data.normalisation[0]}, std {data.normalisation[1]}",
                f"base: mean {data.trained_with[0]}, std {data.trained_with[1]}",
                hint="take the base's: leave preprocess out of the recipe",
            )


class LabelRange(Rule):
    """A label lies outside 0 … classes - 1, often because labels start at 1."""

    code = "D002"
    severity: ClassVar[Severity] = "error"
    title = "labels out of range"
    case = "labels that run from 1 to 10"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Compare the labels with the number of classes, and those of a batch with the outputs."""
        data = evidence.data
        for one in evidence.step.criteria if evidence.step is not None else ():
            if one.out_of_range:
                yield self.found(
                    evidence.name,
                    f"labels run from {one.labels.low:g} to {one.labels.high:g}, "
                    f"but the {one.classes} outputs are numbered 0 to {one.classes - 1}",
                    hint=_mend(one.labels.low, one.labels.high, one.classes),
                )
        if data is None or (data.labels[0] >= 0 and data.labels[1] < data.classes):
            return
        low, high = data.labels
        yield self.found(
            evidence.name,
            f"labels run from {low} to {high}, but {data.classes} classes are numbered 0 to {data.classes - 1}",
            hint="subtract 1 from every label" if low == 1 and high == data.classes else "correct the labels",
        )


def _mend(low: float, high: float, classes: int) -> str:
    if low == 1 and high == classes:
        return "subtract 1 from every label"
    if low < 0 <= high < classes:
        return f"labels that do not count: give the loss ignore_index={low:g}"
    if high == 255:
        return "255 often marks what does not count: give the loss ignore_index=255"
    return f"head({high + 1:g}), or correct the labels"


class OneClass(Rule):
    """All samples are of one class: there is nothing to learn."""

    code = "D003"
    severity: ClassVar[Severity] = "error"
    title = "one class only"
    case = "a folder whose images all lie in one class"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Count the classes that have samples."""
        if evidence.data is not None and sum(count > 0 for count in evidence.data.counts or (1, 1)) < 2:
            yield self.found(evidence.name, "every sample has the same label", hint="add samples of another class")


class Unbalanced(Rule):
    """Some class has far more samples than another; accuracy alone will look better than it is."""

    code = "D004"
    severity: ClassVar[Severity] = "note"
    title = "classes are unbalanced"
    case = "1,000 images of one class and 20 of another"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Compare the largest with the smallest class."""
        counts = [count for count in evidence.data.counts if count] if evidence.data else []
        if len(counts) > 1 and max(counts) >= 10 * min(counts):
            yield self.found(
                evidence.name,
                f"the largest class has {max(counts)} samples, the smallest {min(counts)}",
                hint="read the confusion matrix, not the accuracy alone",
            )


class Shared(Rule):
    """Validation samples are, byte for byte, among those that are trained on: their figures flatter."""

    code = "D005"
    severity: ClassVar[Severity] = "warning"
    title = "validation samples that are trained on"
    case = "a val/ folder with copies of images of the train/ folder"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Read how many samples both halves share."""
        count = evidence.data.shared if evidence.data is not None else 0
        if count:
            yield self.found(
                evidence.name,
                f"{count} validation sample{'s are' if count > 1 else ' is'} also in the training half",
                hint="remove the copies from one of the halves",
            )


class EmptyClass(Rule):
    """A class has no training sample: the model can't learn it, and its output says nothing."""

    code = "D006"
    severity: ClassVar[Severity] = "warning"
    title = "a class without training samples"
    case = "labels that run from 1 to 10, taken as 11 classes"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look for counts of 0, where there is more than one class."""
        counts = evidence.data.counts if evidence.data is not None else ()
        empty = [number for number, count in enumerate(counts) if not count]
        if empty and len(counts) - len(empty) > 1:
            shown = ", ".join(map(str, empty[:5])) + (", …" if len(empty) > 5 else "")
            yield self.found(
                evidence.name,
                f"{len(empty)} of {len(counts)} classes have no training sample: number {shown}",
                hint="add samples, or number the classes without gaps",
            )


def _mean(numbers: tuple[float, ...]) -> float:
    return sum(numbers) / max(len(numbers), 1)
