"""Rotary position embeddings (Su et al., 2021), a handful of products and sums: x·cos + turned(x)·sin."""

from __future__ import annotations

from torchgraft.graph.flow import Flow
from torchgraft.trace import Call, Op

__all__ = ["rotary"]


def rotary(flow: Flow, call: Call) -> dict[int, str]:
    """Find them among the operations of a call: what the box of each says, empty for all but the last."""
    ops = {op.index: op for op in flow.items[call.index] if isinstance(op, Op)}
    found: dict[int, str] = {}
    for op in ops.values():
        if op.name != "add" or len(op.inputs) != 2:
            continue
        products = [ops.get(_maker(flow, value)) for value in op.inputs]
        if any(one is None or one.name != "mul" for one in products):
            continue
        turned = [turn for one in products if one for value in one.inputs for turn in _turned(flow, ops, value)]
        if turned:
            inner = [one.index for one in (*products, *turned) if one]
            found |= {**dict.fromkeys(inner, ""), op.index: "rotary"}
    return found


def _turned(flow: Flow, ops: dict[int, Op], value: int) -> list[Op]:
    """Give the operation that joins one half and the negative of the other, if that made a value."""
    joined = ops.get(_maker(flow, value))
    if joined is None or joined.name not in ("cat", "stack"):
        return []
    makers = [ops.get(_maker(flow, one)) for one in joined.inputs]
    return [joined] if any(one is not None and one.name == "neg" for one in makers) else []


def _maker(flow: Flow, value: int) -> int:
    maker = flow.trace.makers[value]
    return -1 if maker is None else maker
