"""A graft as a drawing: what is drawn, and how it is written to a file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torchgraft.graph.build import Names, built
from torchgraft.graph.drawing import BREAK, Box, Drawing
from torchgraft.graph.files import written
from torchgraft.graph.holdings import Holdings
from torchgraft.graph.opening import deepest, narrowed, opened
from torchgraft.probes.arguments import input_names
from torchgraft.rules import judge
from torchgraft.select import modules
from torchgraft.trace import Trace
from torchgraft.view.places import check_place
from torchgraft.view.summary_text import si

if TYPE_CHECKING:
    from torchgraft.graft import Graft

__all__ = ["draw", "drawing"]


def drawing(
    graft: Graft,
    *,
    at: str | Iterable[str] | None = None,
    open: str | Iterable[str] | None = None,
    depth: int | None = None,
    fold: bool = True,
) -> Drawing:
    """Draw a graft's model as data.

    Args:
        graft: whose model it is; it is traced on fake tensors, if it was not before.
        at: selectors of the part that is drawn; all of the model where none are given.
        open: selectors of the modules that are shown open.
        depth: open all modules above this depth; 1 shows the model's own modules.
        fold: draw alike blocks in a row as one.

    Raises:
        SelectionError: a selector matches nothing.
        SourceError: the shape of the input is not known.
    """
    trace = graft.trace()
    model = getattr(graft.module, "_orig_mod", graft.module)
    holdings = Holdings(model, graft.added, graft.recipe.edits)
    words = _words(graft, trace)
    root = built(trace, holdings, _names(graft, trace), fold=fold, words=words)
    if at is not None:
        root = narrowed(root, modules(model, at, roles=graft.roles))
    shown = list(modules(model, open, roles=graft.roles)) if open is not None else []
    found = deepest(root, depth) if depth is not None else opened(root, shown)
    if shown and depth is not None:
        found |= opened(root, shown)
    return Drawing(_title(graft, root.path), root, found, _facts(graft, trace, root, words))


def draw(
    graft: Graft,
    to: str | Path | None = None,
    *,
    at: str | Iterable[str] | None = None,
    open: str | Iterable[str] | None = None,
    depth: int | None = None,
    fold: bool = True,
) -> Drawing | Path:
    """Draw a graft's model: `g.draw("model.svg")`, or `g.draw()` in a notebook.

    Args:
        graft: whose model it is.
        to: a file that ends in .svg, .png, .html, .dot or .json.
        at: see `drawing`.
        open: see `drawing`.
        depth: see `drawing`.
        fold: see `drawing`.

    Returns:
        the drawing as data, or the path of the file.

    Raises:
        StoreError: the file can't be written, or its ending says nothing.
        SelectionError: a selector matches nothing.
        SourceError: the shape of the input is not known.
    """
    if to is not None:
        check_place(to)
    made = drawing(graft, at=at, open=open, depth=depth, fold=fold)
    return made if to is None else written(made, to)


def _names(graft: Graft, trace: Trace) -> Names:
    outputs = list(trace.calls[0].names) if trace.calls else []
    if len(outputs) != len(trace.outputs):
        outputs = [""] * len(trace.outputs)
    return Names(_unlike(_input_names(graft, trace), "input"), _unlike(outputs, "output"))


def _input_names(graft: Graft, trace: Trace) -> list[str]:
    """Name inputs as the forward pass does; a single one that is just called `x` goes without."""
    names = list(input_names(graft._inputs(), graft.module))
    if len(names) != len(trace.inputs) or names in (["x"], ["input"], ["inputs"]):
        return [""] * len(trace.inputs)
    return names


def _unlike(names: Sequence[str], noun: str) -> list[str]:
    """Give every input or output a name of its own."""
    found: list[str] = []
    for number, name in enumerate(names, 1):
        plain = name or (noun if len(names) == 1 else f"{noun} {number}")
        found.append(plain if plain not in found else f"{plain} {number}")
    return found


def _words(graft: Graft, trace: Trace) -> tuple[str, ...]:
    """Give the words of the finding about where the pass breaks off."""
    if trace.mismatch is None:
        return ()
    errors = [one for one in judge(graft.evidence(quick=True), errors=True) if one.is_error]
    if not errors:
        return (trace.mismatch.message,)
    return (f"{errors[0].code} {errors[0].title}", *errors[0].facts)


def _title(graft: Graft, path: str) -> str:
    return f"{graft.name}, {path}" if path else graft.name


def _facts(graft: Graft, trace: Trace, root: Box, words: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    facts = [("parameters", f"{root.parameters:,}")]
    facts += [("trainable", f"{root.trainable:,}")] if root.trainable != root.parameters else []
    facts += [("multiply-accumulates", si(root.macs))] if root.macs else []
    facts += [("input", ", ".join(root.given))] if root.given else []
    facts += [("edits", str(len(graft.recipe.edits)))] if graft.recipe.edits else []
    if trace.mismatch is not None:
        facts.append((BREAK, f"{trace.mismatch.path or 'the model itself'}: {' – '.join(words[:2])}"))
    return tuple(facts)
