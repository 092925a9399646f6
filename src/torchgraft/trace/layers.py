"""Which layers make a model's output, and which ones read its input: found by tracing, not by name."""

from __future__ import annotations

from torchgraft.trace.record import Op, Trace

__all__ = ["input_layers", "output_layers"]

_WEIGHTED = ("linear", "conv", "addmm", "matmul", "bilinear")


def output_layers(trace: Trace) -> list[str]:
    """Give the paths of the modules whose weights make the outputs, in the order of the pass.

    Walks back from each output to the nearest operation that multiplies by a weight. Auxiliary heads are
    found when the trace was taken in training mode.
    """
    found: dict[str, int] = {}
    for output in trace.outputs:
        for op in _nearest_weighted(trace, output):
            found.setdefault(op.path, op.index)
    return sorted(found, key=lambda path: found[path])


def _nearest_weighted(trace: Trace, output: int) -> list[Op]:
    found: list[Op] = []
    seen: set[int] = set()
    queue = [output]
    while queue:
        op = trace.maker(queue.pop())
        if op is None or op.index in seen:
            continue
        seen.add(op.index)
        if op.params and op.name.startswith(_WEIGHTED):
            found.append(op)
        elif not (op.params and op.name.endswith("_norm")):  # what a norm ends is a backbone without a head
            queue.extend(op.inputs)
    return found


def input_layers(trace: Trace) -> list[str]:
    """Give the paths of the modules with weights that read the model's inputs first."""
    reached = set(trace.inputs)
    found: dict[str, None] = {}
    for op in trace.ops:
        if not reached.intersection(op.inputs):
            continue
        if op.params:
            found.setdefault(op.path)
        else:
            reached.update(op.outputs)
    broke = trace.mismatch
    if broke is not None and broke.params and reached.intersection(broke.inputs):
        found.setdefault(broke.path)
    return list(found)
