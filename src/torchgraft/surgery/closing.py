"""What in a residual block to set to zero so that it gives what it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torchgraft.trace import Trace
    from torchgraft.trace.record import Call, Op

__all__ = ["closing"]

_WEIGHTED = ("linear", "conv", "addmm", "batch_norm", "layer_norm", "group_norm", "rms_norm", "instance_norm")
_ACTIVATIONS = frozenset({"relu", "relu6", "hardtanh", "clamp_min"})
"""Applied a second time, they change nothing: a block may end with one, if its copy is given what it made."""

_CARRY = frozenset({"dropout", "contiguous", "to", "clone", "stochastic_depth", "detach", "type_as", "float"})
_KEEP_ZERO = _CARRY | {
    *(
        "view",
        "reshape",
        "permute",
        "transpose",
        "flatten",
        "unflatten",
        "squeeze",
        "unsqueeze",
        "getitem",
        "roll",
    ),
    *("mul", "div", "truediv", "sum", "mean", "relu", "gelu", "silu", "tanh", "interpolate", "narrow", "chunk"),
}


def closing(run: Trace, path: str, arrives: str) -> frozenset[str] | None:
    """Name the parameters that, at zero, close every residual branch of a block, so that its input passes through.

    They are those of the last weighted layer of each branch, which still get gradients then (Goyal et al., 2017,
    for the norms of ResNets; Wu et al., 2024, LLaMA Pro, for the output projections of transformers).

    Args:
        run: the trace.
        path: the block.
        arrives: the block whose output a copy of this one is to be given.

    Returns:
        full names of parameters and buffers; None where some way through the block is no residual branch.
    """
    calls = run.calls_of(path)
    if not calls or len(calls[0].gave) != 1 or not calls[0].given:
        return None
    walk = _Walk(run, calls[0])
    return walk.stream(calls[0].gave[0], activated=_activation(run, arrives))


def _activation(run: Trace, path: str) -> str:
    """Name the activation that makes the output of a block, of those that change nothing the second time."""
    calls = run.calls_of(path)
    made = run.maker(calls[0].gave[0]) if calls and calls[0].gave else None
    return _plain(made) if made is not None and _plain(made) in _ACTIVATIONS else ""


class _Walk:
    """Walks back through one call of a block."""

    def __init__(self, run: Trace, call: Call) -> None:
        self.run = run
        self.call = call

    def _op(self, value: int) -> Op | None:
        op = self.run.maker(value)
        home = self.call.path
        inside = op is not None and (op.path == home or op.path.startswith(f"{home}."))
        return op if inside else None

    def stream(self, value: int, *, activated: str = "") -> frozenset[str] | None:
        """Follow the value that is to be the block's input, through one such activation; None where it is not."""
        if value == self.call.given[0]:
            return frozenset()
        op = self._op(value)
        if op is None or op.params or not op.inputs:
            return None
        name = _plain(op)
        if name in _CARRY or (activated and name == activated):
            return self.stream(op.inputs[0])
        if name == "add" and len(op.inputs) == 2:
            return self._sum(op.inputs) or self._sum(op.inputs[::-1])
        return None

    def _sum(self, inputs: tuple[int, ...]) -> frozenset[str] | None:
        main, branch = self.stream(inputs[0]), self.zero(inputs[1])
        return None if main is None or branch is None else main | branch

    def zero(self, value: int) -> frozenset[str] | None:
        """Name what makes a value zero; None where nothing surely does."""
        op = self._op(value)
        if op is None:
            return None
        name = _plain(op)
        if name == "multi_head_attention_forward":
            return frozenset(one for one in op.params if ".out_proj." in one) or None
        if op.params and (name.startswith(_WEIGHTED) or name == "mul"):
            return frozenset(op.params)
        if name == "add" and len(op.inputs) == 2:
            both = [self.zero(one) for one in op.inputs]
            return None if None in both else frozenset().union(*(one for one in both if one))
        return self.zero(op.inputs[0]) if name in _KEEP_ZERO and op.inputs and not op.params else None


def _plain(op: Op) -> str:
    bare = op.name.strip("_")
    return {"iadd": "add", "imul": "mul", "radd": "add", "rmul": "mul"}.get(bare, bare)
