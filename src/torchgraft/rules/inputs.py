"""Family D, further: inputs, as they reach the model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from torchgraft.rules.finding import Finding, Severity
from torchgraft.rules.rule import Evidence, Rule

if TYPE_CHECKING:
    from torchgraft.probes.arrival import Arrival
    from torchgraft.probes.records import Seen

__all__: list[str] = []


class InputType(Rule):
    """The inputs have another dtype than the weights, and the model does not take them."""

    code = "D020"
    severity: ClassVar[Severity] = "error"
    title = "inputs of another dtype than the weights"
    case = "a batch of uint8 images, or of numpy's float64, given to float32 weights"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look whether the pass went through only after the dtype was changed."""
        seen = evidence.arrival
        if seen is None or "dtype" not in seen.remedy:
            return
        other = next((one for one in seen.inputs if one.dtype != seen.weights), seen.inputs[0])
        images = other.dtype == "uint8" and len(other.shape) == 4
        yield self.found(
            evidence.name,
            f"the inputs are {other.dtype} {list(other.shape)}, the weights {seen.weights}",
            f"changed to {seen.weights} they go through",
            hint="x.float() / 255, then normalise as the base was trained"
            if images
            else f"x.to(torch.{seen.weights})",
        )


class ChannelsLast(Rule):
    """The channels of the images come last, as numpy and PIL have them; torch wants them after the batch."""

    code = "D021"
    severity: ClassVar[Severity] = "error"
    title = "channels come last"
    case = "torch.from_numpy(image) of shape [N, 224, 224, 3]"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look whether the pass went through only after the dimensions were moved."""
        seen = evidence.arrival
        if seen is not None and "channels" in seen.remedy:
            yield self.found(
                evidence.name,
                f"the inputs are {list(seen.inputs[0].shape)}; with the channels first they go through",
                hint="x.permute(0, 3, 1, 2)",
            )


class SwappedBatch(Rule):
    """A batch holds the targets first and the inputs second."""

    code = "D027"
    severity: ClassVar[Severity] = "error"
    title = "inputs and targets have changed places"
    case = "for labels, images in loader: loss(model(labels), images)"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look whether the model takes the targets, and not the inputs."""
        seen = evidence.arrival
        if seen is not None and "swapped" in seen.remedy:
            targets = "" if seen.labels is None else f"; it takes the targets {list(seen.labels.shape)}"
            yield self.found(
                evidence.name,
                f"the model does not take the inputs {list(seen.inputs[0].shape)}{targets}",
                hint="give (inputs, targets) in this order",
            )


class OddInputs(Rule):
    """The inputs hold NaN or infinity: so will the loss, and after one step every weight."""

    code = "D022"
    severity: ClassVar[Severity] = "error"
    title = "inputs that are not finite"
    case = "a column divided by its standard deviation, which was zero"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Count them."""
        for one in evidence.arrival.inputs if evidence.arrival is not None else ():
            if one.odd:
                yield self.found(
                    evidence.name,
                    f"{one.odd} values of the inputs {list(one.shape)} are NaN or infinite",
                    hint="drop or fill them: torch.isfinite(x).all() says which",
                )


_RAW = 10
"""Normalised images reach about 2.7 (white, by ImageNet's figures); values of 0 … 255 go far beyond this."""


class RawPixels(Rule):
    """The images hold values of 0 … 255, as they come from a file.

    Networks are trained on small values around zero; a base's own preprocessing scales to 0 … 1 and normalises.
    Nothing is said where the first BatchNorm of a trained base agrees with them.
    """

    code = "D023"
    severity: ClassVar[Severity] = "warning"
    title = "images of 0 … 255"
    case = "torch.from_numpy(image).float() without / 255"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look at the range of images."""
        seen = evidence.arrival
        if seen is None or not seen.inputs or (seen.norm is not None and not off(seen)):
            return
        one = seen.inputs[0]
        image = len(one.shape) == 4 and (one.shape[1] in (1, 3, 4) or one.shape[3] in (1, 3, 4))
        if image and one.low >= 0 and _RAW < one.high <= 255.5 and "dtype" not in seen.remedy:
            yield self.found(
                evidence.name,
                f"the inputs {list(one.shape)} run from {one.low:g} to {one.high:g}",
                hint="x / 255, then normalise with the mean and std that the base was trained with",
            )


SCALE = 3.0
"""Forgetting ImageNet's normalisation scales by 0.226, values of 0 … 255 by 57; the contrast of image sets differs
by less than a factor of 2."""

OFFSET = 3.0
"""Standard deviations of training that the median channel's mean may lie away; right inputs stay within 1."""


def off(seen: Arrival) -> bool:
    """Tell whether what reaches the first BatchNorm is not what it was trained on."""
    norm = seen.norm
    return norm is not None and (norm.offset > OFFSET or not 1 / SCALE < norm.scale < SCALE)


class FirstNorm(Rule):
    """What reaches the first BatchNorm is not what it was trained on: the images are normalised otherwise.

    Its running statistics are what training saw. The medians over the channels are compared: a scale of more than
    3 times or less than a third, or a mean 3 standard deviations away, is no matter of another data set.
    """

    code = "D026"
    severity: ClassVar[Severity] = "warning"
    title = "inputs unlike those that the base was trained on"
    case = "images of 0 … 255 given to a network whose BatchNorm statistics expect normalised ones"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Compare the batch with the running statistics; without BatchNorm, the range with the base's own mean."""
        seen = evidence.arrival
        if seen is None or not seen.inputs:
            return
        one, norm = seen.inputs[0], seen.norm
        if norm is not None and off(seen):
            yield self.found(
                evidence.place(norm.path),
                f"the values that arrive are spread {norm.scale:.3g} times as far as in training",
                f"their mean lies {norm.offset:.3g} standard deviations away",
                f"the inputs {list(one.shape)} run from {one.low:.3g} to {one.high:.3g}",
                hint="normalise as the base was trained" + _figures(seen),
            )
        elif norm is None and _unnormalised(seen, one):
            yield self.found(
                evidence.name,
                f"all values of the inputs {list(one.shape)} lie in 0 … 1: they are scaled, but not normalised",
                hint="normalise as the base was trained" + _figures(seen),
            )


def _unnormalised(seen: Arrival, one: Seen) -> bool:
    known = seen.expects is not None and len(one.shape) == 4 and sum(seen.expects[0]) > 0
    return known and one.low >= 0 and 0 < one.high <= 1


def _figures(seen: Arrival) -> str:
    return f": mean {seen.expects[0]}, std {seen.expects[1]}" if seen.expects is not None else ""


class SameInputs(Rule):
    """The samples hold nothing to learn from: each has one value only, or all are the same."""

    code = "D024"
    severity: ClassVar[Severity] = "warning"
    title = "samples without content"
    case = "images that were read as black, since the path was wrong; the same sample again and again"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look at the first input."""
        seen = evidence.arrival
        if seen is None or not seen.inputs or "int" in seen.inputs[0].dtype.replace("uint8", ""):
            return
        one = seen.inputs[0]
        if one.flat:
            yield self.found(
                evidence.name,
                f"{one.flat} of {seen.samples} samples {list(one.shape[1:])} have one value only",
                hint="look at one: what reads them?",
            )
        elif one.equal:
            yield self.found(evidence.name, f"all {seen.samples} samples are the same", hint="what reads them?")


class LastAlone(Rule):
    """The last batch of an epoch has one sample, and a BatchNorm sees one value a channel: training breaks off.

    Where BatchNorm still sees a map of values it goes on, with statistics of one sample.
    """

    code = "D025"
    severity: ClassVar[Severity] = "error"
    title = "a batch of one sample and BatchNorm"
    case = "9 samples in batches of 4, before nn.BatchNorm1d"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Divide the number of samples by the batch size, and look at what BatchNorm is given in training."""
        lengths = evidence.arrival.lengths if evidence.arrival is not None else None
        if lengths is None:
            return
        alone = lengths.batch == 1 or (lengths.samples % lengths.batch == 1 and not lengths.drop_last)
        for run in evidence.runs:
            norms = [op for op in run.ops if op.name == "batch_norm" and op.inputs and run.train]
            if not alone or not norms:
                continue
            thin = [op for op in norms if all(size == 1 for size in run.values[op.inputs[0]].shape[2:])]
            found = self.found(
                evidence.place((thin or norms)[0].path),
                f"{lengths.samples} samples in batches of {lengths.batch} leave a batch of one",
                hint="DataLoader(…, drop_last=True), or another batch size",
            )
            yield found if thin else replace(found, severity="note")
