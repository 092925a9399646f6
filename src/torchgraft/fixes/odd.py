"""The odd one out: a norm of another width than the layers before and behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchgraft.edits.resize import Resize

if TYPE_CHECKING:
    from torchgraft.edits.base import Edit
    from torchgraft.trace import Op, Trace

__all__ = ["is_odd_norm"]


def is_odd_norm(edit: Edit, run: Trace) -> bool:
    """Tell whether an edit resized a norm, and what comes behind takes it as it is now.

    A layer before the norm and one behind it then agreed all along, so the norm's old values never took part in a
    pass. At the end of a model nothing tells who is wrong.

    Args:
        edit: what was done to a model that did not fit.
        run: a pass of the model afterwards.
    """
    if run.mismatch is not None or not isinstance(edit, Resize):
        return False
    norms = [op for op in run.ops if op.path == edit.at and op.name.endswith("_norm")]
    return bool(norms) and all(_is_taken(op, run) for op in norms)


def _is_taken(norm: Op, run: Trace) -> bool:
    """Tell whether a layer, or a sum with what another layer made, takes what a norm gave."""
    passed = set(norm.outputs)
    for op in run.ops[norm.index + 1 :]:
        met = passed.intersection(op.inputs)
        if met and op.params and not op.name.endswith("_norm"):
            return True
        if met and any(_is_like(run, number, met) for number in op.inputs if number not in passed):
            return True
        if met:
            passed.update(op.outputs)
    return False


def _is_like(run: Trace, number: int, met: set[int]) -> bool:
    """Tell whether a tensor that a layer made has the very shape of one that the norm gave."""
    made = any(op.params for op in run.upstream(number))
    return made and any(run.values[number].shape == run.values[one].shape for one in met)
