"""Family S: shapes. Rules match on the operation and the shapes that met there, never on torch's words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torchgraft.rules.finding import Finding, Severity
from torchgraft.rules.rule import Evidence, Rule

if TYPE_CHECKING:
    from torch import nn

    from torchgraft.trace import Mismatch, Trace

__all__ = ["breaks"]

_NORMS = ("batch_norm", "instance_norm", "group_norm")
_MERGES = frozenset(
    [
        "add",
        "sub",
        "mul",
        "div",
        "cat",
        "stack",
        "concat",
        "where",
        "__add__",
        "__mul__",
        "__sub__",
        "add_",
        "mul_",
        "__iadd__",
    ]
)


@dataclass(frozen=True)
class _Break:
    """A mismatch with what a rule needs to judge it."""

    evidence: Evidence
    run: Trace
    at: Mismatch

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the first tensor that arrived."""
        return self.run.values[self.at.inputs[0]].shape if self.at.inputs else ()

    @property
    def weight(self) -> tuple[int, ...]:
        """The shape of the first parameter of the operation."""
        if not self.at.params:
            return ()
        state = {**dict(self.evidence.model.named_parameters()), **dict(self.evidence.model.named_buffers())}
        return tuple(state[self.at.params[0]].shape) if self.at.params[0] in state else ()

    @property
    def module(self) -> nn.Module | None:
        """The module whose forward was under way."""
        return self.evidence.modules.get(self.at.path)

    @property
    def where(self) -> str:
        """The place, with the model's name."""
        return self.evidence.place(self.at.path)

    @property
    def consumer(self) -> str:
        """The module that could not take what arrived."""
        return f"{self.at.path or self.evidence.name} ({self.at.kind}){self.evidence.author(self.at.path)}"

    def given(self) -> tuple[int, ...]:
        """Give what the operation was given, or else what the whole module was given."""
        calls = self.run.calls_of(self.at.path)
        return self.at.inputs or (calls[-1].given if calls else ())

    def arrived(self, number: int) -> str:
        """Write the shape of a tensor that arrived."""
        return self.run.show(number)

    def makers(self) -> list[str]:
        """Say for each tensor that arrived who made it."""
        return [self.evidence.made_by(self.run, self.run.maker(number)) for number in self.at.inputs[:3]]

    def takes(self) -> int:
        """Give the channels or features that the operation takes; 0 when not known."""
        if self.at.op.startswith("conv_transpose"):
            return self.weight[0] if self.weight else 0
        if self.at.op.startswith("conv"):
            return self.weight[1] * int(getattr(self.module, "groups", 1)) if len(self.weight) > 1 else 0
        if self.at.op in _NORMS:
            return self.weight[0] if self.weight else 0
        return self.weight[-1] if self.weight else 0

    def dtype(self) -> str:
        """Give the dtype of the operation's first parameter; nothing when it has none."""
        name = self.at.params[0] if self.at.params else ""
        state = {**dict(self.evidence.model.named_parameters()), **dict(self.evidence.model.named_buffers())}
        return str(state[name].dtype).removeprefix("torch.") if name in state else ""

    def arrivals(self) -> str:
        """Write every tensor that arrived."""
        return ", ".join(self.arrived(number) for number in self.at.inputs)

    def code(self) -> str:
        """Tell which rule this break belongs to."""
        return next((code for code, test in _TESTS if test(self)), "S099")


_RANKS = {"conv1d": (2, 3), "conv2d": (3, 4), "conv3d": (4, 5)}
_NORM_RANKS = {"BatchNorm1d": (2, 3), "BatchNorm2d": (4,), "BatchNorm3d": (5,)}


def _wrong_rank(one: _Break) -> bool:
    ranks = _RANKS.get(one.at.op) or (_NORM_RANKS.get(one.at.kind) if one.at.op == "forward" else None)
    if ranks is None or not one.shape:
        return False
    # A convolution takes one sample without its batch as well, and then reads the batch as channels.
    alone = (
        one.at.op in _RANKS and len(one.shape) == ranks[0] and bool(one.takes()) and one.shape[0] != one.takes()
    )
    return len(one.shape) not in ranks or alone


def _wrong_channels(one: _Break) -> bool:
    if not one.at.op.startswith(("conv", *_NORMS)) or not one.takes():
        return False
    spatial = {"conv1d": 1, "conv2d": 2, "conv3d": 3}.get(one.at.op, 0)
    place = len(one.shape) - spatial - 1 if spatial else 1
    return len(one.shape) > place >= 0 and one.shape[place] != one.takes()


def _wrong_features(one: _Break) -> bool:
    known = one.at.op in ("linear", "layer_norm", "rms_norm", "addmm") or one.at.op.startswith("matmul")
    return known and bool(one.takes()) and bool(one.shape) and one.shape[-1] != one.takes()


def _one_value(one: _Break) -> bool:
    if one.at.op != "batch_norm" or not one.run.train or len(one.shape) < 2:
        return False
    values = one.shape[0]
    for size in one.shape[2:]:
        values *= size
    return values == 1


def _too_small(one: _Break) -> bool:
    if not one.at.op.startswith(("conv", "max_pool", "avg_pool", "_max_pool", "fractional")):
        return False
    if one.at.op.startswith("conv_transpose"):
        return False
    held = vars(one.module) if one.module is not None else {}
    rank = len(one.shape) - 2
    kernel = _each(held.get("kernel_size"), rank)
    padding = _each(held.get("padding", 0), rank)
    dilation = _each(held.get("dilation", 1), rank)
    if (
        kernel is None or padding is None or dilation is None
    ):  # a functional pooling: nothing else goes wrong there
        return one.at.op.find("pool") >= 0 and rank > 0
    sizes = zip(one.shape[2:], kernel, padding, dilation, strict=True)
    return any(size + 2 * pad < step * (width - 1) + 1 for size, width, pad, step in sizes)


def _each(value: object, rank: int) -> tuple[int, ...] | None:
    """Give a setting of a convolution or pooling for each dimension; None where it is not known."""
    if isinstance(value, int):
        return (value,) * max(rank, 0)
    if isinstance(value, tuple) and len(value) == rank and all(isinstance(one, int) for one in value):
        return value
    return None


def _disagree(one: _Break) -> bool:
    return one.at.op in _MERGES and len(one.at.inputs) > 1


_BY_VALUE = frozenset(
    {"DataDependentOutputException", "DynamicOutputShapeException", "GuardOnDataDependentSymNode"}
    | {"UnsupportedOperatorException", "UnsupportedFakeTensorException", "UnsupportedMutationAliasingException"}
)
"""What fake tensors raise where the flow depends on values that they do not have."""


def _in_training_alone(one: _Break) -> bool:
    """Tell whether the model's own Python refuses in training mode what it takes in evaluation mode."""
    errors = ("AssertionError", "ValueError", "TypeError", "KeyError")
    refused = one.at.op in ("forward", "_assert") and one.at.error in errors
    stops = [run.mismatch.error for run in one.evidence.runs if not run.train and run.mismatch is not None]
    quiet = all(error in _BY_VALUE for error in stops)
    return one.run.train and refused and quiet and one.at.kind not in _NORM_RANKS


def _fixed_size(one: _Break) -> bool:
    return one.at.error == "AssertionError"


_TESTS = (
    ("S009", lambda one: one.at.error in _BY_VALUE),
    ("S012", lambda one: one.at.error == "MixedTypesError"),
    ("S013", lambda one: one.at.error == "OutOfRangeError"),
    ("S021", _in_training_alone),
    ("S007", _wrong_rank),
    ("S006", _one_value),
    ("S001", _wrong_channels),
    ("S002", _wrong_features),
    ("S003", _too_small),
    ("S004", _disagree),
    ("S008", _fixed_size),
)


def breaks(evidence: Evidence, code: str) -> Iterator[_Break]:
    """Give the breaks of the traces that belong to a rule."""
    for run in evidence.runs:
        if run.mismatch is not None:
            one = _Break(evidence, run, run.mismatch)
            if one.code() == code:
                yield one


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
                *one.makers(),
                hint=f"input(channels={gets})"
                if one.run.maker(one.at.inputs[0]) is None
                else f"make the two agree: {one.takes()} channels out there, or {gets} in here",
            )


class Features(Rule):
    """A linear layer or layer norm is given a last dimension that its weights are not for.

    Often a flatten is missing, or a classifier was sized for another image size.
    """

    code = "S002"
    severity: ClassVar[Severity] = "error"
    title = "features do not match"
    case = "vgg16's classifier after the flatten was lost, or an image of another size before a fixed linear layer"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Read the traces."""
        for one in breaks(evidence, self.code):
            gets = one.shape[-1]
            yield self.found(
                one.where,
                f"{one.consumer} takes {one.takes()} features, but gets {gets} of {one.arrived(one.at.inputs[0])}",
                *one.makers(),
                hint="flatten or pool before it, or resize the layer"
                if len(one.shape) > 2
                else f"make the two agree: {one.takes()} features out there, or {gets} in here",
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
            shapes = " and ".join(one.arrived(number) for number in one.at.inputs[:3])
            yield self.found(
                one.where,
                f"{one.consumer} joins {shapes} by {one.at.op}",
                *one.makers(),
                hint="give the branches the same channels, stride and padding",
            )


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
                hint="add the batch dimension: x.unsqueeze(0)"
                if len(one.shape) == 3 and _unbatched(one)
                else "reshape the tensor before it, or take the flatten or pooling before it out",
            )

    def _taken(self, one: _Break) -> str:
        word = one.at.op if one.at.op in _RANKS else one.at.kind
        return next((form for digit, form in self._TAKES.items() if f"{digit}d" in word), "images [N, C, H, W]")


def _unbatched(one: _Break) -> bool:
    """Tell whether the model itself was given one sample without its batch."""
    return all(len(one.run.values[number].shape) == len(one.shape) for number in one.run.inputs[:1])


class FixedSize(Rule):
    """The model itself refuses the input: it was built for one image size, such as a ViT's 224."""

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
                f"it says  {one.at.message.splitlines()[0]}",
                hint="give images of the size that the model was built for",
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
                f"it says  {one.at.error}: {one.at.message.splitlines()[0]}",
                hint="look at that module's forward with these shapes",
            )
