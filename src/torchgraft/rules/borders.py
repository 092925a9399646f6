"""Family S, pixels: what is stretched or cut off without a word."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from torchgraft.rules.finding import Finding, Severity
from torchgraft.rules.rule import Evidence, Rule

if TYPE_CHECKING:
    from torchgraft.trace import Op, Trace

__all__: list[str] = []


class Stretched(Rule):
    """An adaptive pooling gives a larger map than it gets: cells are repeated, and nothing is averaged.

    The pass runs, but what follows was trained on maps of that size with as many different values.
    """

    code = "S022"
    severity: ClassVar[Severity] = "warning"
    title = "a small map is stretched"
    case = "vgg16 given 64×64 images: its 2×2 map becomes 7×7 by repetition"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Compare what each adaptive pooling gets and gives."""
        run = evidence.runs[0]
        for op in run.ops:
            if not op.name.startswith("adaptive_") or not op.inputs or not op.outputs:
                continue
            given, gave = run.values[op.inputs[0]].shape, run.values[op.outputs[0]].shape
            if any(after > before for before, after in zip(given[2:], gave[2:], strict=False)):
                yield self.found(
                    evidence.place(op.path),
                    f"{op.path or 'the forward'} makes {run.show(op.outputs[0])} of {run.show(op.inputs[0])}",
                    hint="give larger images, or resize them",
                )


class CutOff(Rule):
    """The first layer cuts the image into patches, and the last rows or columns fill none: they are not seen."""

    code = "S023"
    severity: ClassVar[Severity] = "note"
    title = "the border of the image is cut off"
    case = "a model with patches of 32 given 300×300 images: it sees 288×288"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look at convolutions on the input whose patches do not overlap."""
        run = evidence.runs[0]
        for op in run.ops:
            seen = _patches(op, run, evidence)
            if seen is not None:
                size = run.values[op.inputs[0]].shape[2:]
                yield self.found(
                    evidence.place(op.path),
                    f"of {'×'.join(map(str, size))} pixels, {'×'.join(map(str, seen))} are seen",
                    hint="resize the images to a multiple of the patch",
                )


def _patches(op: Op, run: Trace, evidence: Evidence) -> tuple[int, ...] | None:
    """Give the size that a layer of patches sees, where it is less than it gets."""
    if not op.name.startswith("conv") or not op.inputs or op.inputs[0] not in run.inputs:
        return None
    layer: Any = evidence.modules.get(op.path)
    kernel, stride, padding = (getattr(layer, name, None) for name in ("kernel_size", "stride", "padding"))
    size = run.values[op.inputs[0]].shape[2:]
    whole = kernel == stride and padding == (0,) * len(size) and isinstance(kernel, tuple)
    if not whole or kernel is None or not any(one % step for one, step in zip(size, kernel, strict=True)):
        return None
    return tuple(one - one % step for one, step in zip(size, kernel, strict=True))
