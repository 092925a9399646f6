"""Where a pass broke off, and which rule that belongs to: by operation and shapes, never by torch's words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchgraft.rules.rule import Evidence

if TYPE_CHECKING:
    from torch import nn

    from torchgraft.trace import Call, Mismatch, Op, Trace

__all__ = ["RANKS", "Break", "breaks", "joined", "joins_samples", "misfits", "sizes"]

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
class Break:
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

    def held(self) -> list[str]:
        """Write the model's own tensors that took part: `pos [1, 16, 8]`."""
        state = {**dict(self.evidence.model.named_parameters()), **dict(self.evidence.model.named_buffers())}
        return [f"{name} {list(state[name].shape)}" for name in self.at.params if name in state]

    def dtype(self) -> str:
        """Give the dtype of the operation's first parameter; nothing when it has none."""
        name = self.at.params[0] if self.at.params else ""
        state = {**dict(self.evidence.model.named_parameters()), **dict(self.evidence.model.named_buffers())}
        return str(state[name].dtype).removeprefix("torch.") if name in state else ""

    def misfits(self) -> list[tuple[int, int]]:
        """Give the places of tensors of another width than the layer declares, with that width."""
        return misfits(self.module, self.run, self.called())

    def called(self) -> tuple[int, ...]:
        """Give what the module itself was called with."""
        calls = self.run.calls_of(self.at.path)
        return calls[-1].given if calls else self.at.inputs

    def hook(self) -> str:
        """Name the module whose hook changed the shape of what arrived; nothing where none did."""
        for path in self.run.replaced if self.at.inputs else ():
            for call in self.run.calls_of(path):
                if self._changed_after(call) or self._changed_before(call):
                    return path or self.evidence.name
        return ""

    def _changed_after(self, call: Call) -> bool:
        """Tell whether what a module gave was given another shape before anything else happened."""
        op = self.run.maker(self.at.inputs[0])
        while op is not None and not op.params and op.index >= call.last_op:
            shapes = {self.run.values[number].shape for number in call.gave}
            if op.index == call.last_op and op.path == call.path.rpartition(".")[0] and call.gave:
                return self.shape not in shapes
            op = self.run.maker(op.inputs[0]) if op.inputs else None
        return False

    def _changed_before(self, call: Call) -> bool:
        """Tell whether what a module takes was made right before it, in its own hook."""
        module = self.evidence.modules.get(call.path)
        op = self.run.maker(self.at.inputs[0])
        hooked = module is not None and bool(module._forward_pre_hooks) and call.given[:1] == self.at.inputs[:1]
        return hooked and op is not None and op.index == call.first_op - 1 and not op.params

    def folded(self) -> str:
        """Name the concatenation that joined the samples of what arrived, if one did."""
        op = joined(self.run, self.at.inputs[0]) if self.at.inputs else None
        if op is None:
            return ""
        took = " and ".join(self.arrived(number) for number in op.inputs[:3])
        home = op.path or "the model's own forward"
        return f"cat in {home} joins the samples (dim=0) of {took}"

    def arrivals(self) -> str:
        """Write every tensor that arrived."""
        return ", ".join(self.arrived(number) for number in self.at.inputs)

    def code(self) -> str:
        """Tell which rule this break belongs to."""
        return next((code for code, test in _TESTS if test(self)), "S099")


_WIDTHS = {
    "RNNBase": ("input_size",),
    "RNNCellBase": ("input_size",),
    "MultiheadAttention": ("embed_dim", "kdim", "vdim"),
}
"""Layers that say themselves how wide each of their tensors is, by the names of their bases."""


def misfits(module: object, run: Trace, given: tuple[int, ...]) -> list[tuple[int, int]]:
    """Give the tensors of a recurrent or attention layer whose last dimension is another than it is built for.

    Returns:
        the place of each among those that were given, and the width that it should have.
    """
    names = next((_WIDTHS[cls.__name__] for cls in type(module).__mro__ if cls.__name__ in _WIDTHS), ())
    widths = [int(getattr(module, name)) for name in names]
    pairs = enumerate(zip(given, widths, strict=False))
    return [(place, width) for place, (number, width) in pairs if run.values[number].shape[-1:] != (width,)]


def joined(run: Trace, value: int) -> Op | None:
    """Find the concatenation before a value that joined samples, where only what has no weights lies between."""
    op = run.maker(value)
    while op is not None and not op.params and op.inputs:
        if op.name in ("cat", "concat", "concatenate"):
            rows = run.values[op.outputs[0]].shape[:1]
            took = [run.values[number].shape[:1] for number in op.inputs]
            return op if rows != (run.batch,) and took.count((run.batch,)) == len(took) > 1 else None
        op = run.maker(op.inputs[0]) if len(op.inputs) == 1 else None
    return None


def joins_samples(run: Trace, at: Mismatch) -> bool:
    """Tell whether a pass broke off in a concatenation along the batch, which nothing asked for but a default."""
    batches = [run.values[number].shape[:1] for number in at.inputs]
    along = [value for place, value in at.settings if place in (1, "dim", "axis")]
    return at.op in ("cat", "concat", "concatenate") and not any(along) and set(batches) == {(run.batch,)}


def sizes(at: Mismatch) -> tuple[int, ...]:
    """Give the sizes that a view or reshape was asked for; nothing for other operations."""
    if at.op not in ("view", "reshape"):
        return ()
    asked = [value for place, value in at.settings if place != 0]
    flat = asked[0] if len(asked) == 1 and isinstance(asked[0], (tuple, list)) else asked
    return tuple(flat) if all(isinstance(size, int) for size in flat) else ()


RANKS = {"conv1d": (2, 3), "conv2d": (3, 4), "conv3d": (4, 5)}
_NORM_RANKS = {"BatchNorm1d": (2, 3), "BatchNorm2d": (4,), "BatchNorm3d": (5,)}


def _wrong_rank(one: Break) -> bool:
    ranks = RANKS.get(one.at.op) or (_NORM_RANKS.get(one.at.kind) if one.at.op == "forward" else None)
    if ranks is None or not one.shape:
        return False
    # A convolution takes one sample without its batch as well, and then reads the batch as channels.
    alone = one.at.op in RANKS and len(one.shape) == ranks[0] and bool(one.takes()) and one.shape[0] != one.takes()
    return len(one.shape) not in ranks or alone


def _wrong_channels(one: Break) -> bool:
    if not one.at.op.startswith(("conv", *_NORMS)) or not one.takes():
        return False
    spatial = {"conv1d": 1, "conv2d": 2, "conv3d": 3}.get(one.at.op, 0)
    place = len(one.shape) - spatial - 1 if spatial else 1
    return len(one.shape) > place >= 0 and one.shape[place] != one.takes()


def _wrong_features(one: Break) -> bool:
    if one.misfits():
        return True
    known = one.at.op in ("linear", "layer_norm", "rms_norm", "addmm") or one.at.op.startswith("matmul")
    return known and bool(one.takes()) and bool(one.shape) and one.shape[-1] != one.takes()


def _one_value(one: Break) -> bool:
    if one.at.op != "batch_norm" or not one.run.train or len(one.shape) < 2:
        return False
    values = one.shape[0]
    for size in one.shape[2:]:
        values *= size
    return values == 1


def _too_small(one: Break) -> bool:
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


def _disagree(one: Break) -> bool:
    return one.at.op in _MERGES and len(one.at.inputs) + len(one.at.params) > 1 and bool(one.at.inputs)


_BY_VALUE = frozenset(
    {"DataDependentOutputException", "DynamicOutputShapeException", "GuardOnDataDependentSymNode"}
    | {"UnsupportedOperatorException", "UnsupportedFakeTensorException", "UnsupportedMutationAliasingException"}
)
"""What fake tensors raise where the flow depends on values that they do not have."""


def _in_training_alone(one: Break) -> bool:
    """Tell whether the model's own Python refuses in training mode what it takes in evaluation mode."""
    errors = ("AssertionError", "ValueError", "TypeError", "KeyError")
    refused = one.at.op in ("forward", "_assert") and one.at.error in errors
    stops = [run.mismatch.error for run in one.evidence.runs if not run.train and run.mismatch is not None]
    quiet = all(error in _BY_VALUE for error in stops)
    return one.run.train and refused and quiet and one.at.kind not in _NORM_RANKS


def _fixed_size(one: Break) -> bool:
    return one.at.error == "AssertionError"


def _mixed_types(one: Break) -> bool:
    """Tell whether dtypes met that do not go together, or an embedding was to look up no whole numbers."""
    looked_up = one.run.values[one.at.inputs[0]].dtype if one.at.inputs else ""
    return one.at.error == "MixedTypesError" or (
        one.at.op == "embedding" and looked_up not in ("", "int64", "int32")
    )


def _by_hook(one: Break) -> bool:
    return bool(one.hook())


_TESTS = (
    ("S024", _by_hook),
    ("S009", lambda one: one.at.error in _BY_VALUE),
    ("S012", _mixed_types),
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


def breaks(evidence: Evidence, code: str) -> Iterator[Break]:
    """Give the breaks of the traces that belong to a rule."""
    for run in evidence.runs:
        if run.mismatch is not None:
            one = Break(evidence, run, run.mismatch)
            if one.code() == code:
                yield one
