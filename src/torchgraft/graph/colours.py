"""The colours of a drawing, by what they say: one palette for light paper, one for dark."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DARK", "LIGHT", "Colours"]


@dataclass(frozen=True)
class Colours:
    """Each as `#rrggbb`.

    `page` lies behind everything, `paper` is a closed box, `cell` an operation, `group` an open box; `edge` is a
    tensor's way. Blue and amber, frozen and trainable, differ for every eye.
    """

    page: str
    paper: str
    cell: str
    group: str
    ink: str
    soft: str
    faint: str
    line: str
    edge: str
    accent: str
    frozen: str
    trainable: str
    new: str
    repaired: str
    added: str
    removed: str
    changed: str


LIGHT = Colours(
    page="#f7f7f5",
    paper="#ffffff",
    cell="#eef0f2",
    group="#f0f1f1",
    ink="#1c2126",
    soft="#5c6670",
    faint="#818a94",
    line="#cfd5da",
    edge="#8b959f",
    accent="#2463c4",
    frozen="#5f97d0",
    trainable="#dd8a2a",
    new="#1a7f4b",
    repaired="#7a4fc4",
    added="#1a7f4b",
    removed="#c8372d",
    changed="#ad3278",
)
DARK = Colours(
    page="#14171b",
    paper="#22282f",
    cell="#2b323a",
    group="#1a1e23",
    ink="#e7eaed",
    soft="#a3adb8",
    faint="#7c8792",
    line="#3d4650",
    edge="#6f7b87",
    accent="#79aef5",
    frozen="#6ea8e0",
    trainable="#e6a04f",
    new="#5cc88d",
    repaired="#b394f2",
    added="#5cc88d",
    removed="#f2857b",
    changed="#ea86bd",
)
