"""A box in words, for tooltips."""

from __future__ import annotations

from torchgraft.graph.drawing import Box

__all__ = ["told"]


def told(box: Box) -> str:
    """Say what there is to know of a box, a line each."""
    name = f"{box.path}: {box.kind}" if box.path and box.role == "module" else box.kind or box.label
    lines = [
        name if box.role == "module" else f"{box.label} in {box.path}" if box.path else box.label,
        box.detail,
        f"stands for {', '.join(box.folded)}" if box.folded else "",
        f"call {box.call} of {box.calls}" if box.calls > 1 else "",
        f"takes {', '.join(box.given)}" if box.given else "",
        f"gives {', '.join(box.gave)}" if box.gave else "",
        _parameters(box),
        f"{box.macs:,} multiply-accumulates" if box.macs else "",
        f"{box.mark}{f', edit {box.edit}' if box.edit is not None else ''}" if box.mark else "",
        *box.notes,
    ]
    return "\n".join(line for line in lines if line)


def _parameters(box: Box) -> str:
    if not box.parameters:
        return ""
    each = " each" if box.times > 1 and len(box.folded) > 1 else ""
    trained = {box.parameters: "trainable", 0: "frozen"}.get(box.trainable, f"{box.trainable:,} of them trainable")
    return f"{box.parameters:,} parameters{each}, {trained}"
