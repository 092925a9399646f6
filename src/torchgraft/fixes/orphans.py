"""Orphans: a new output layer that nothing uses, or sizes that were only declared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from torchgraft.edits.base import Edit
from torchgraft.edits.head import Head
from torchgraft.edits.remove import Remove
from torchgraft.edits.resize import Resize
from torchgraft.fixes.cause import Cause, Fault, Proposal

__all__ = ["Declared", "Orphans"]


class Orphans(Cause):
    """A layer for other classes was assigned to a name or a level that the forward pass does not know."""

    warnings: ClassVar[frozenset[str]] = frozenset({"P002"})
    gives_up: ClassVar[frozenset[str]] = frozenset({"P002"})

    def proposals(self, fault: Fault) -> Iterator[Proposal]:
        """Take the orphan out, and give its classes to the layer that makes the output."""
        codes = (*self.warnings, "S005")
        if fault.finding is None or fault.finding.code not in codes or fault.at is not None or not fault.path:
            return
        classes = _last_width(fault, fault.path)
        shapes = {shape[1] for shape in fault.run.output_shapes() if len(shape) == 2}
        if classes and shapes and shapes != {classes}:
            gone: list[Edit] = [Remove(at=path) for path in _orphans(fault, classes)]
            says = f"the output has {classes} classes, the old output layer is lost"
            yield Proposal("head", ((*gone, Head(classes=classes)),), says)


def _last_width(fault: Fault, path: str) -> int:
    """Give the outputs of the last linear layer in a module."""
    widths = [vars(one).get("out_features", 0) for one in fault.modules[path].modules()]
    return next((int(width) for width in reversed(widths) if width), 0)


def _orphans(fault: Fault, classes: int) -> list[str]:
    """Give the outermost modules that no pass calls and that end in this many classes."""
    used = {name.rpartition(".")[0] for op in fault.run.ops for name in op.params}
    idle = [
        path
        for path in fault.modules
        if path
        and path not in fault.run.called
        and not any(one == path or one.startswith(f"{path}.") for one in used)
        and _last_width(fault, path) == classes
    ]
    return [path for path in idle if not any(path.startswith(f"{one}.") for one in idle)]


class Declared(Cause):
    """An attribute says another size than the weight has."""

    def proposals(self, fault: Fault) -> Iterator[Proposal]:
        """Make a new head of the declared size, or let the attributes say what the weights are."""
        if fault.finding is None or fault.finding.code != "S011" or fault.at is not None:
            return
        from torchgraft.trace import output_layers

        layer: Any = fault.modules.get(fault.path)
        if layer is None:
            return
        out = int(vars(layer).get("out_features") or vars(layer).get("out_channels") or 0)
        outputs, inputs = (int(size) for size in layer.weight.shape[:2])
        if fault.path in output_layers(fault.run) and out != outputs:
            says = f"the output has {out} classes, the old output layer is lost"
            yield Proposal("head", ((Head(classes=out, at=(fault.path,)),),), says)
        else:
            groups = int(vars(layer).get("groups", 1))
            yield Proposal("resize", ((Resize(at=fault.path, inputs=inputs * groups, outputs=outputs),),))
