"""Family S, the batch: what two passes with different numbers of samples show, though neither breaks off.

A dimension whose size differs between the two passes holds samples. Where it goes, and what reads along it, tells
whether samples stay apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from torchgraft.rules.finding import Finding, Severity
from torchgraft.rules.rule import Evidence, Rule

if TYPE_CHECKING:
    from torchgraft.trace import Op, Trace

__all__: list[str] = []

_ELEMENTWISE = frozenset(
    {"add", "sub", "mul", "div", "pow", "maximum", "minimum", "where", "mse_loss", "l1_loss", "smooth_l1_loss"}
    | {"binary_cross_entropy", "binary_cross_entropy_with_logits", "huber_loss"}
    | {f"__{side}{name}__" for side in ("", "r", "i") for name in ("add", "sub", "mul", "truediv", "pow")}
)
_KEEP_PLACES = frozenset(
    {"relu", "relu_", "relu6", "gelu", "silu", "leaky_relu", "elu", "hardswish", "sigmoid", "tanh", "dropout"}
    | {"batch_norm", "group_norm", "instance_norm", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d"}
    | {"max_pool1d", "avg_pool1d", "adaptive_avg_pool1d", "interpolate", "contiguous", "clone", "detach"}
)


class _Pair:
    """Two passes side by side, operation by operation."""

    def __init__(self, run: Trace, wide: Trace) -> None:
        self.run, self.wide = run, wide
        same = len(run.ops) == len(wide.ops) and len(run.values) == len(wide.values)
        self.aligned = same and all(a.name == b.name for a, b in zip(run.ops, wide.ops, strict=True))

    def holds(self, value: int) -> frozenset[int]:
        """Give the dimensions of a value that hold samples."""
        one, other = self.run.values[value].shape, self.wide.values[value].shape
        return frozenset(n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)

    def show(self, value: int) -> str:
        """Write a shape with N for every dimension that holds samples."""
        sizes, held = self.run.values[value].shape, self.holds(value)
        batch = self.run.batch
        words = [_times(size, batch) if n in held else str(size) for n, size in enumerate(sizes)]
        return f"[{', '.join(words)}]"


def _times(size: int, batch: int) -> str:
    if size == batch:
        return "N"
    return f"{size // batch}·N" if size % batch == 0 else f"{size}/{batch}·N"


def _pair(evidence: Evidence) -> _Pair | None:
    """Pair the pass in evaluation mode with the one of more samples; None where they can't be compared."""
    if evidence.wide is None or evidence.wide.mismatch is not None:
        return None
    pair = _Pair(evidence.runs[0], evidence.wide)
    return pair if pair.aligned else None


class BatchLost(Rule):
    """The batch does not come through: the output has another number of rows than the input has samples.

    A `view(-1, k)` with the wrong k folds places of the map into the batch, a `cat` without `dim` joins along it.
    Nothing complains before the loss, or at all.
    """

    code = "S010"
    severity: ClassVar[Severity] = "warning"
    title = "the batch does not come through"
    case = "x.view(-1, 16 * 5 * 5) where the map is 10×10; torch.cat([a, b]) of two branches"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look at the rows of each output, and find the operation that changed their number."""
        for run in evidence.runs:
            for output in run.outputs:
                shape = run.values[output].shape
                if run.batch < 2 or len(shape) < 2 or shape[0] == run.batch or not _folds(evidence, run, output):
                    continue
                op = _changed(run, output)
                if op is not None:
                    before = " and ".join(str(list(run.values[n].shape)) for n in op.inputs[:2])
                    yield self.found(
                        evidence.place(op.path),
                        f"{op.name} makes {list(run.values[op.outputs[0]].shape)} of {before}",
                        f"{run.batch} samples go in, {shape[0]} rows come out",
                        hint="flatten(1) keeps the batch; cat(…, dim=1) joins features",
                    )


def _folds(evidence: Evidence, run: Trace, output: int) -> bool:
    """Tell whether the first dimension of an output holds samples, though not one row for each."""
    pair = _pair(evidence)
    if pair is not None and run is pair.run:
        return 0 in pair.holds(output)
    first = run.values[run.inputs[0]].shape if run.inputs else ()
    return first[:1] == (run.batch,) and run.values[output].shape[0] % run.batch == 0


def _changed(run: Trace, output: int) -> Op | None:
    """Find the nearest operation before an output that took the batch and gave another number of rows."""
    for op in run.upstream(output):
        takes = [run.values[number].shape for number in op.inputs]
        gives = run.values[op.outputs[0]].shape if op.outputs else ()
        if gives and gives[0] != run.batch and any(shape and shape[0] == run.batch for shape in takes):
            return op
    return None


class Crossed(Rule):
    """An operation between two tensors makes a table of samples by samples: (N, 1) with (N,) gives (N, N).

    Every sample is then compared with every other. The loss is computed, and means nothing.
    """

    code = "S014"
    severity: ClassVar[Severity] = "warning"
    title = "samples are broadcast against samples"
    case = "scores of shape [N, 1] minus targets of shape [N]"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look for a result with two dimensions of samples, made of tensors with one."""
        pair = _pair(evidence)
        for op in pair.run.ops if pair else ():
            if pair is None or op.name not in _ELEMENTWISE or len(op.inputs) < 2 or not op.outputs:
                continue
            made = pair.holds(op.outputs[0])
            if len(made) > 1 and all(len(pair.holds(number)) == 1 for number in op.inputs[:2]):
                shapes = " with ".join(pair.show(number) for number in op.inputs[:2])
                yield self.found(
                    evidence.place(op.path),
                    f"{op.name} of {shapes} gives {pair.show(op.outputs[0])}",
                    hint="give both the same shape: squeeze(1) of the one, or unsqueeze(1) of the other",
                )


class AcrossBatch(Rule):
    """Attention or a recurrent layer reads along the batch: it takes the samples for the places of a sequence.

    `nn.MultiheadAttention`, `nn.Transformer…`, `nn.LSTM`, `nn.GRU` and `nn.RNN` take `[L, N, C]` unless they are
    made with `batch_first=True`. Given `[N, L, C]` they run, and mix the samples of a batch.
    """

    code = "S015"
    severity: ClassVar[Severity] = "warning"
    title = "samples of a batch are mixed"
    case = "nn.MultiheadAttention(64, 4) on [N, L, 64], without batch_first=True; softmax over dimension 0"
    _PLACE: ClassVar[dict[str, int]] = {"multi_head_attention_forward": 0, "scaled_dot_product_attention": -2}
    _RECURRENT: ClassVar[frozenset[str]] = frozenset(
        {"lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "_VF.lstm", "_VF.gru"}
    )

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look for operations that read along a dimension of samples."""
        pair = _pair(evidence)
        for op in pair.run.ops if pair else ():
            if pair is None or not op.inputs:
                continue
            along = self._along(op, pair, evidence)
            if along is not None and pair.holds(op.inputs[0]) == {along}:
                yield self.found(
                    evidence.place(op.path),
                    f"{op.name} reads along dimension {along} of {pair.show(op.inputs[0])}: along the samples",
                    hint=self._cure(op),
                )

    def _along(self, op: Op, pair: _Pair, evidence: Evidence) -> int | None:
        rank = len(pair.run.values[op.inputs[0]].shape)
        if op.name in self._PLACE:
            return self._PLACE[op.name] % rank
        if op.name in self._RECURRENT:
            first = getattr(evidence.modules.get(op.path), "batch_first", None)
            return 0 if first is False or rank == 2 else None
        if op.name in ("softmax", "log_softmax"):
            settings = dict(op.settings)
            dim = settings.get("dim", settings.get(1))
            if dim is None:  # torch chooses: the first dimension of one or three, else the second
                dim = 0 if rank in (0, 1, 3) else 1
            return int(dim) % rank if rank else None
        return None

    def _cure(self, op: Op) -> str:
        if "softmax" in op.name:
            return "take it over the classes: dim=-1"
        if op.name == "scaled_dot_product_attention":
            return "bring the batch to the front: [N, heads, L, C]"
        return f"make {op.path or 'the layer'} with batch_first=True, or give it [L, N, C]"


class Averaged(Rule):
    """The output has no dimension of samples: the batch was averaged or added up on the way."""

    code = "S016"
    severity: ClassVar[Severity] = "warning"
    title = "the output does not tell samples apart"
    case = "x.mean(0) in a forward, where x.mean(1) was meant"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look for outputs that depend on samples and have no row for each."""
        pair = _pair(evidence)
        for output in pair.run.outputs if pair else ():
            if pair is None or not pair.run.values[output].shape or pair.holds(output):
                continue
            for op in pair.run.upstream(output):
                read = [number for number in op.inputs if pair.holds(number)]
                if read and op.outputs and not pair.holds(op.outputs[0]):
                    yield self.found(
                        evidence.place(op.path),
                        f"{op.name} makes {pair.show(op.outputs[0])} of {pair.show(read[0])}",
                        hint="leave dimension 0 alone: it holds the samples",
                    )
                    break


class FixedBatch(Rule):
    """The model runs with one number of samples and breaks off with another: the number stands in its forward."""

    code = "S017"
    severity: ClassVar[Severity] = "warning"
    title = "the number of samples is fixed"
    case = "x.view(32, -1) in a forward; the last batch has fewer samples"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look whether the wider pass broke off, or gave as many rows as the other."""
        wide, hint = evidence.wide, "write the number as x.shape[0], or flatten(1)"
        if wide is not None and wide.mismatch is not None:
            at = wide.mismatch
            shapes = ", ".join(str(list(wide.values[number].shape)) for number in at.inputs)
            yield self.found(
                evidence.place(at.path),
                f"{evidence.runs[0].batch} samples run; with {wide.batch}, {at.op} gets {shapes or 'no tensor'}",
                f"it says  {at.message.splitlines()[0]}",
                hint=hint,
            )
        pair = _pair(evidence)
        for output in pair.run.outputs if pair else ():
            if pair is None or not pair.holds(output) or 0 in pair.holds(output):
                continue
            for op in pair.run.upstream(output):
                if op.name in ("view", "reshape") and 0 in pair.holds(op.inputs[0]) - pair.holds(op.outputs[0]):
                    made = f"{op.name} makes {pair.show(op.outputs[0])} of {pair.show(op.inputs[0])}"
                    yield self.found(evidence.place(op.path), made, hint=hint)
                    break


class ReadsWidth(Rule):
    """A linear layer is given a feature map `[N, C, H, W]` and reads its width: it fits by coincidence.

    A linear layer takes the last dimension: flatten, pool or permute the map to `[N, H, W, C]` first.
    """

    code = "S018"
    severity: ClassVar[Severity] = "warning"
    title = "a linear layer reads the width of a map"
    case = "nn.Linear(32, 10) on a map [N, 16, 32, 32], where the flatten was forgotten"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look for a linear operation on what a convolution made, with nothing between that moves dimensions."""
        run = evidence.runs[0]
        for op in run.ops:
            if op.name != "linear" or not op.inputs or len(run.values[op.inputs[0]].shape) < 4:
                continue
            maker = run.maker(op.inputs[0])
            while maker is not None and maker.name in _KEEP_PLACES and maker.inputs:
                maker = run.maker(maker.inputs[0])
            if maker is not None and maker.name.startswith("conv"):
                yield self.found(
                    evidence.place(op.path),
                    f"{op.path or 'linear'} gets the map {run.show(op.inputs[0])} and reads its last dimension",
                    evidence.made_by(run, maker),
                    hint="flatten(1) or pool the map first",
                )


class HookReplaces(Rule):
    """A forward hook gives something back, so torch puts that in the place of the layer's output or input.

    A hook that only looks returns None. A lambda returns what its expression gives, such as
    `features.setdefault(name, output)`: from the second batch on, the first one's output again.
    """

    code = "S019"
    severity: ClassVar[Severity] = "warning"
    title = "a hook replaces what passes"
    case = "register_forward_hook(lambda m, i, o: features.setdefault('h', o))"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look at the hooks that gave something back in a trace."""
        for path in dict.fromkeys(path for run in evidence.runs for path in run.replaced):
            module = evidence.modules.get(path)
            before = module is not None and bool(module._forward_pre_hooks) and not module._forward_hooks
            yield self.found(
                evidence.place(path),
                f"a forward {'pre-hook' if before else 'hook'} of {path or 'the model'} gives something back: "
                "it goes on in place of the tensor",
                hint="let the hook return None: a def without return; or remove it with its handle",
            )


class FollowedForReal(Rule):
    """The pass was taken on small real tensors, since the flow depends on values: it holds for such values."""

    code = "S020"
    severity: ClassVar[Severity] = "note"
    title = "followed with real tensors"
    case = "tg.check(detector, example, real=True)"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look how the traces were taken."""
        if any(run.real for run in evidence.runs):
            yield self.found(
                evidence.name,
                "this pass took one way through the model; other values may take another",
                hint="give an example that is like your data",
            )
