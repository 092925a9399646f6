"""The size of the image: tables of positions, or a network that needs larger images than it is given."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torchgraft.edits.input import Input
from torchgraft.edits.remove import Remove
from torchgraft.fixes.cause import Cause, Edits, Fault, Proposal
from torchgraft.fixes.features import PASSES
from torchgraft.fixes.places import before_break, before_call, before_op
from torchgraft.fixes.shape import grow, times

__all__ = ["Sizes"]

_NATURAL = (28, 32, 64, 96, 128, 160, 192, 224, 256, 299, 320, 384, 448, 512)
"""Sides that image models are built for: multiples of the usual stride 32, MNIST's 28, Inception's 299."""


class Sizes(Cause):
    """The model does not take images of this size."""

    def proposals(self, fault: Fault) -> Iterator[Proposal]:
        """Interpolate its tables, stretch the images, or take out what makes the map too small."""
        if fault.at is None or len(fault.example) != 1 or len(fault.example[0]) != 4:
            return
        given = fault.example[0]
        cut = _cut(fault, given)
        says = f"cuts {cut} of the border" if cut else "its tables of positions are interpolated"
        ways: tuple[Edits, ...] = (
            (Input(size=given[2:]),),
            (Input(channels=given[1], size=given[2:]),),
        )
        if not _of_channels(fault):
            yield Proposal("size", ways, says, harm=2 if cut else 0)
        size = _runs_at(fault, given) if _depends(fault) else None
        if size is not None:
            says = f"stretches {times(given[2:])} images to {times(size)}"
            yield Proposal("stretch", _first(fault, grow(size)), says, harm=2)
        if "pool" in fault.at.op and "Pool" in fault.at.kind:
            says = "the map keeps its size there, which later layers were not trained on"
            yield Proposal("keep-size", ((Remove(at=fault.at.path),),), says, harm=3)


def _of_channels(fault: Fault) -> bool:
    """Tell whether the first layer refuses the channels of the image: its size comes after that."""
    at, shape = fault.at, fault.arrived
    first = at is not None and at.op.startswith("conv") and at.inputs[:1] == fault.run.inputs[:1]
    return first and len(shape) > 1 and shape[1] != fault.held("in_channels")


def _depends(fault: Fault) -> bool:
    """Tell whether the size of the image can be what the pass broke off at: channels and lost flattens are not."""
    at, shape = fault.at, fault.arrived
    if at is None or at.op.endswith("_norm"):
        return False
    if at.op == "linear":
        return len(shape) == 2 and any(True for _ in fault.through(at.inputs[0], PASSES))
    return not at.op.startswith("conv") or (len(shape) > 1 and shape[1] == fault.held("in_channels"))


def _runs_at(fault: Fault, given: tuple[int, ...]) -> tuple[int, int] | None:
    """Find the nearest natural size that the model runs at: the next larger ones first."""
    import torch

    from torchgraft.trace import trace

    dtype = getattr(torch, fault.run.values[fault.run.inputs[0]].dtype) if fault.run.inputs else torch.float32
    short = min(given[2:])
    larger = [side for side in _NATURAL if side > short]
    smaller = [side for side in reversed(_NATURAL) if side < short]
    for side in (*larger, *smaller):
        size = (round(given[2] * side / short), round(given[3] * side / short))
        shape = (*given[:2], *size)
        image = torch.empty(shape, device="meta", dtype=dtype)
        runs = (trace(fault.model, image, train=train) for train in (False, True))
        if all(run.mismatch is None and not _is_dense(run.output_shapes(), size) for run in runs):
            return size
    return None


def _is_dense(outputs: list[tuple[int, ...]], size: tuple[int, int]) -> bool:
    """Tell whether an output is a map of the image's size, which must not be stretched with it."""
    return any(shape[-2:] == size for shape in outputs if len(shape) > 2)


def _cut(fault: Fault, given: tuple[int, ...]) -> str:
    """Say how much of the border a patch embedding leaves out: what its stride does not divide."""
    for module in fault.modules.values():
        held: dict[str, Any] = vars(module)
        if held.get("kernel_size") == held.get("stride") != (1, 1) and held.get("in_channels") == given[1]:
            rest = [size % step for size, step in zip(given[2:], held["stride"], strict=True)]
            named = [
                f"{count} {word}{'s' if count > 1 else ''}"
                for count, word in zip(rest, ("row", "column"), strict=True)
            ]
            return " and ".join(word for word, count in zip(named, rest, strict=True) if count)
    return ""


def _first(fault: Fault, spec: Any) -> tuple[Edits, ...]:
    """Put a module before all that reads the image."""
    image = fault.run.inputs[0]
    readers = [op for op in fault.run.ops if image in op.inputs]
    if len(readers) == 1:
        return before_op(fault, readers[0], readers[0].inputs.index(image), spec)
    if not readers and fault.at is not None and image in fault.at.inputs:
        return before_break(fault, fault.at.inputs.index(image), spec)
    return () if readers else before_call(fault, image, spec)
