"""What follows a layer in the pass: the nonlinearity that its gain is for, and the add that ends a branch."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from torchgraft.errors import nearest

if TYPE_CHECKING:
    from torch import nn

    from torchgraft.trace import Op, Trace

__all__ = ["Followers", "branch_ends", "check_nonlinearity", "gain", "split"]

_LIKE_RELU = frozenset(
    {"relu", "relu6", "gelu", "silu", "mish", "hardswish", "elu", "celu", "softplus", "clamp_min"}
)
"""Nonlinearities that pass about half of what comes, as ReLU does, for which torch knows no gain of their own: He
et al. 2015, Delving deep into rectifiers, equation 10."""

_NAMED = {"tanh": "tanh", "hardtanh": "tanh", "sigmoid": "sigmoid", "hardsigmoid": "sigmoid", "selu": "selu"}
"""Those that torch.nn.init.calculate_gain knows by name."""

_PASSES = frozenset(
    {"flatten", "unflatten", "view", "reshape", "permute", "transpose", "squeeze", "unsqueeze", "contiguous", "to"}
    | {"clone", "dropout", "dropout2d", "dropout1d", "dropout3d", "feature_dropout", "alpha_dropout", "t", "float"}
    | {"max_pool1d", "max_pool2d", "max_pool3d", "expand", "movedim", "swapaxes", "type_as", "type"}
)
"""Operations that a value passes with its distribution about as it was."""

_WEIGHTED = ("linear", "conv", "addmm", "matmul", "bilinear")


_KNOWN = ("linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu")


def split(follows: str) -> tuple[str, float | None]:
    """Read a nonlinearity: `relu`, or `leaky_relu(0.2)` with its slope."""
    found = re.fullmatch(r"(\w+)\((-?[\d.e+-]+)\)", follows)
    return (found[1], float(found[2])) if found else (follows, None)


def check_nonlinearity(given: str, *, auto: bool) -> None:
    """Refuse a name that torch knows no gain for.

    Raises:
        ValueError: with the names that are known.
    """
    known = (*_KNOWN, "auto") if auto else _KNOWN
    name, slope = split(given)
    if name not in known or (slope is not None and name != "leaky_relu"):
        hint = nearest(name, known) or f"one of {', '.join(known)}"
        raise ValueError(f"there is no gain for '{given}'; {hint}")


def gain(follows: str) -> float:
    """Give the gain of a nonlinearity, as torch.nn.init knows it (He et al. 2015)."""
    from torch.nn.init import calculate_gain

    name, slope = split(follows)
    return float(calculate_gain(name, slope))  # type: ignore[arg-type]  # names are checked where they are given


def _bare_name(op: Op) -> str:
    return op.name.strip("_")


class Followers:
    """Who takes each value of a trace."""

    def __init__(self, trace: Trace, modules: dict[str, nn.Module]) -> None:
        self._trace = trace
        self._modules = modules
        self._takers: dict[int, list[Op]] = defaultdict(list)
        self._users: dict[str, list[Op]] = defaultdict(list)
        for op in trace.ops:
            for number in op.inputs:
                self._takers[number].append(op)
            for name in op.params:
                self._users[name].append(op)

    def knows(self, name: str) -> bool:
        """Tell whether a parameter was used in the pass."""
        return name in self._users

    def after(self, name: str) -> str:
        """Name the nonlinearity that follows the layer of a parameter; `linear` where none or a norm does.

        A norm divides the size of the weights out again, so behind it no gain is needed: the layer keeps the
        variance as it is (gain 1).
        """
        found = {self._walk(value) for op in self._users[name] for value in op.outputs}
        return found.pop() if len(found) == 1 else "linear"

    def _walk(self, value: int) -> str:
        takers = self._takers[value]
        found = {self._told(op) for op in takers}
        return found.pop() if len(found) == 1 else "linear"

    def _told(self, op: Op) -> str:
        name = _bare_name(op)
        if name in _LIKE_RELU:
            return "relu"
        if name in _NAMED:
            return _NAMED[name]
        if name in ("leaky_relu", "prelu", "rrelu"):
            return f"leaky_relu({self._slope(name, op):.6g})"
        biased = name == "add" and len(op.inputs) == 1 and bool(op.params)
        if name in _PASSES or biased:
            return self._walk(op.outputs[0]) if op.outputs else "linear"
        return "linear"

    def _slope(self, name: str, op: Op) -> float:
        module: Any = self._modules.get(op.path)
        if name == "prelu":
            weight = getattr(module, "weight", None)
            return 0.25 if weight is None or weight.is_meta else float(weight.detach().double().mean())
        if name == "rrelu":
            return (getattr(module, "lower", 1 / 8) + getattr(module, "upper", 1 / 3)) / 2
        given = dict(op.settings)
        return float(given.get("negative_slope", given.get(1, getattr(module, "negative_slope", 0.01))))


def branch_ends(trace: Trace) -> dict[str, None]:
    """Find the norms that end the branches of residual blocks: names of their weights, in order.

    At each sum the branch is the side with more products by a weight that are its own; the shortcut has none, or
    one where it projects.
    """
    found: dict[str, None] = {}
    above: dict[int, frozenset[int]] = {}
    for op in trace.ops:
        if _bare_name(op) in ("add", "iadd", "radd") and len(op.inputs) == 2:
            branch = _branch(trace, *op.inputs, above)
            norm = None if branch is None else _norm_before(trace, branch)
            weights = [name for name in norm.params if name.endswith("weight")] if norm is not None else []
            found.update(dict.fromkeys(weights))
    return found


def _branch(trace: Trace, one: int, other: int, above: dict[int, frozenset[int]]) -> int | None:
    sides = [_above(trace, value, above) for value in (one, other)]
    starts = [value in trace.inputs for value in (one, other)]
    if not (sides[0] & sides[1] or any(starts)):
        return None
    own = [sum(_is_weighted(trace.ops[number]) for number in sides[n] - sides[1 - n]) for n in (0, 1)]
    if own[0] == own[1] or min(own) > 1:
        return None
    return one if own[0] > own[1] else other


def _above(trace: Trace, value: int, known: dict[int, frozenset[int]]) -> frozenset[int]:
    """Give the numbers of all operations that a value depends on."""
    if value not in known:
        known[value] = frozenset(op.index for op in trace.upstream(value))
    return known[value]


def _is_weighted(op: Op) -> bool:
    return bool(op.params) and op.name.startswith(_WEIGHTED)


def _norm_before(trace: Trace, value: int, depth: int = 0) -> Op | None:
    """Walk back to the norm that made a value; dropout and a gate (squeeze and excite) may stand between."""
    op = trace.maker(value)
    if op is None or depth > 6:
        return None
    name = _bare_name(op)
    if name.endswith("_norm"):
        return op
    if name in ("mul", "imul", "rmul", "div") or name in _PASSES:
        made = (_norm_before(trace, number, depth + 1) for number in op.inputs)
        return next((one for one in made if one is not None), None)
    return None
