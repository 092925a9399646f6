"""Family S: shapes. Rules match on the operation and the shapes that met there, never on torch's words."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import ClassVar

from torchgraft.rules.breaks import RANKS, Break, breaks, joins_samples, sizes
from torchgraft.rules.finding import Finding, Severity
from torchgraft.rules.rule import Evidence, Rule

__all__: list[str] = []

_ALONG = "join the channels or features: cat(…, dim=1), or dim=-1 where they come last"


class Channels(Rule):
    """A convolution or norm is given a feature map with another number of channels than its weights are for."""

    code = "S001"
    severity: ClassVar[Severity] = "error"
    title = "channels do not match"
    case = "resnet18 with a block appended to layer2 that gives 256 channels, where layer3 takes 128"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Read the traces."""
        for one in breaks(evidence, self.code):
            gets = one.shape[1] if len(one.shape) > 1 else one.shape[0]
            yield self.found(
                one.where,
                f"{one.consumer} takes {one.takes()} channels, but gets {gets} of {one.arrived(one.at.inputs[0])}",
                *(one.makers() if not one.folded() else [one.folded()]),
                hint=_ALONG
                if one.folded()
                else f"input(channels={gets})"
                if one.run.maker(one.at.inputs[0]) is None
                else f"make the two agree: {one.takes()} channels out there, or {gets} in here",
            )


class Features(Rule):
    """A linear, recurrent or attention layer or layer norm is given a last dimension that its weights are not for.

    Often a flatten is missing, or a classifier was sized for another image size.
    """

    code = "S002"
    severity: ClassVar[Severity] = "error"
    title = "features do not match"
    case = "vgg16's classifier after the flatten was lost, or an image of another size before a fixed linear layer"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Read the traces."""
        for one in breaks(evidence, self.code):
            wrong = one.misfits()
            number, takes = (one.called()[wrong[0][0]], wrong[0][1]) if wrong else (one.at.inputs[0], one.takes())
            gets = one.run.values[number].shape[-1]
            yield self.found(
                one.where,
                f"{one.consumer} takes {takes} features, but gets {gets} of {one.arrived(number)}",
                one.folded() or evidence.made_by(one.run, one.run.maker(number)),
                hint=_ALONG
                if one.folded()
                else "flatten or pool before it, or resize the layer"
                if len(one.shape) > 2 and not wrong
                else f"make the two agree: {takes} features out there, or {gets} in here",
            )


class TooSmall(Rule):
    """A convolution or pooling is given a feature map that is smaller than its kernel, so nothing is left."""

    code = "S003"
    severity: ClassVar[Severity] = "error"
    title = "the feature map is too small"
    case = "alexnet given 32×32 images: its last pooling has nothing left to pool"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Read the traces."""
        for one in breaks(evidence, self.code):
            yield self.found(
                one.where,
                f"{one.consumer} can't slide over {one.arrived(one.at.inputs[0])}",
                *one.makers(),
                hint="give larger images, or take a pooling or a stride out before it",
            )


class Disagree(Rule):
    """Two tensors meet in an addition, product or concatenation, and their sizes do not agree."""

    code = "S004"
    severity: ClassVar[Severity] = "error"
    title = "sizes do not agree where branches meet"
    case = "a residual branch of stride 2 and a shortcut without; two paths with kernels 3 and 5, concatenated"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Read the traces."""
        for one in breaks(evidence, self.code):
            shapes = " and ".join([*(one.arrived(number) for number in one.at.inputs), *one.held()][:3])
            yield self.found(
                one.where,
                f"{one.consumer} joins {shapes} by {one.at.op}",
                "cat joins the samples (dim=0), so all their other sizes must be the same"
                if joins_samples(one.run, one.at)
                else "",
                *one.makers(),
                hint=_agree(one),
            )


def _agree(one: Break) -> str:
    if joins_samples(one.run, one.at):
        return _ALONG
    if one.at.params:
        return f"give {one.at.params[0]} the size of what it meets: reshape(at='{one.at.params[0]}', shape=…)"
    return "give the branches the same channels, stride and padding"


class NeverCalled(Rule):
    """A module was put in, but the forward pass never calls it: its name or its level is wrong."""

    code = "S005"
    severity: ClassVar[Severity] = "error"
    title = "the new module is never called"
    case = "vgg16.add_module('head10', nn.Linear(1000, 10)): registered beside the classifier, never called"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Compare the modules that edits put in with those that any trace saw."""
        if any(run.mismatch for run in evidence.runs):
            return
        seen = frozenset().union(*(run.called for run in evidence.runs))
        used = {op_path for run in evidence.runs for op in run.ops for op_path in op.params}
        for path, number in evidence.added.items():
            if number <= len(evidence.edits) and evidence.edits[number - 1].kind() == "adapter":
                continue  # it stands where its layer does, called or not
            if path not in seen and not any(name.startswith(f"{path}.") for name in used):
                yield self.found(
                    evidence.place(path),
                    f"{path} was added by edit {number}, but the forward pass goes past it",
                    hint="put it where the forward pass calls its children in order, such as inside a Sequential",
                )


class OneValue(Rule):
    """BatchNorm in training mode needs more than one value a channel: it is given one sample of size 1×1."""

    code = "S006"
    severity: ClassVar[Severity] = "error"
    title = "BatchNorm gets one value a channel"
    case = "a last batch of one sample after global pooling"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Read the traces."""
        for one in breaks(evidence, self.code):
            yield self.found(
                one.where,
                f"{one.consumer} gets {one.arrived(one.at.inputs[0])} in training mode",
                *one.makers(),
                hint="train with two samples or more in every batch (drop the last one), or with larger images",
            )


class Rank(Rule):
    """A convolution is given a tensor with too few or too many dimensions, such as a vector or a sequence."""

    code = "S007"
    severity: ClassVar[Severity] = "error"
    title = "the number of dimensions does not fit"
    _TAKES: ClassVar[dict[str, str]] = {"1": "[N, C, L]", "3": "[N, C, D, H, W]"}
    case = "a convolution put behind the flatten"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Read the traces."""
        for one in breaks(evidence, self.code):
            yield self.found(
                one.where,
                f"{one.consumer} takes {self._taken(one)}, but gets {list(one.shape)}",
                *one.makers(),
                hint=self._hint(one),
            )

    def _hint(self, one: Break) -> str:
        if _unbatched(one) and len(one.shape) == 3:
            return "add the batch dimension: x.unsqueeze(0)"
        if _unbatched(one) and len(one.shape) == len(self._taken(one).split(",")) + 1:
            return f"take a dimension out: a shape is given without the batch, such as {tuple(one.shape[2:])}"
        return "reshape the tensor before it, or take the flatten or pooling before it out"

    def _taken(self, one: Break) -> str:
        word = one.at.op if one.at.op in RANKS else one.at.kind
        return next((form for digit, form in self._TAKES.items() if f"{digit}d" in word), "images [N, C, H, W]")


def _unbatched(one: Break) -> bool:
    """Tell whether the model itself was given one sample without its batch."""
    return all(len(one.run.values[number].shape) == len(one.shape) for number in one.run.inputs[:1])


class FixedSize(Rule):
    """The model itself refuses what arrives by an assertion: it was built for one size, such as a ViT's 224."""

    code = "S008"
    severity: ClassVar[Severity] = "error"
    title = "the model refuses its input"
    case = "vit_b_16 given 96×96 images"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Read the traces."""
        for one in breaks(evidence, self.code):
            yield self.found(
                one.where,
                f"{one.consumer} gets {', '.join(one.arrived(number) for number in one.given())}",
                f"it says  {(one.at.message.splitlines() or ['an assertion without words'])[0]}",
                hint="give images of the size that the model was built for"
                if _takes_images(one)
                else f"look at what {one.at.path or 'its forward'} asserts, and give it that",
            )


def _takes_images(one: Break) -> bool:
    """Tell whether the refused tensor is an image: it comes in with channels and a map."""
    met = [number for number in one.given() if number in one.run.inputs]
    return any(len(one.run.values[number].shape) == 4 for number in met)


class HookedShape(Rule):
    """A forward hook or pre-hook gives a tensor of another shape, and what comes next can't take it.

    No edit of the model mends that: its layers agree with one another.
    """

    code = "S024"
    severity: ClassVar[Severity] = "error"
    title = "a hook changes the shape of what passes"
    case = "register_forward_hook(lambda m, i, o: o[:, :4]), to look at four channels"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Read the traces."""
        for one in breaks(evidence, self.code):
            yield self.found(
                one.where,
                f"{one.at.op} in {one.consumer} can't take {one.arrivals()}",
                f"a hook of {one.hook()} gave that, in place of what passes",
                hint="let the hook return None: a def without return; or remove it with its handle",
            )


class Breaks(Rule):
    """The forward pass breaks off for a reason that no other rule of this family knows."""

    code = "S099"
    severity: ClassVar[Severity] = "error"
    title = "the forward pass breaks off"
    case = "a reshape to sizes that do not divide"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Read the traces."""
        for one in breaks(evidence, self.code):
            shapes = ", ".join(one.arrived(number) for number in one.at.inputs) or "no tensor"
            yield self.found(
                one.where,
                f"{one.at.op} in {one.consumer} gets {shapes}",
                *one.makers(),
                _undivided(one)[0] or f"it says  {one.at.error}: {(one.at.message.splitlines() or [''])[0]}",
                hint=_undivided(one)[1] or "look at that module's forward with these shapes",
            )


def _undivided(one: Break) -> tuple[str, str]:
    """Say which size of a view does not divide what it is cut from, and what to do."""
    asked, shape = sizes(one.at), one.shape
    known = [size for size in asked if size > 0]
    if not shape or len(known) < len(asked) - 1 or not known:
        return "", ""
    same = 0
    while same < min(len(asked), len(shape)) - 1 and asked[same] == shape[same]:
        same += 1
    parts, whole = prod(size for size in asked[same:] if size > 0), prod(shape[same:])
    told = f"to {list(asked)}"
    if len(known) == len(asked):
        return (
            f"{told}: {parts} values are asked for where there are {whole}",
            "correct the sizes, or write one as -1",
        )
    if whole % parts == 0:
        return "", ""
    hint = f"choose a size that divides {whole}, or change the layer before it to a multiple of {parts}"
    return f"{told}: {parts} does not divide {whole}", hint
