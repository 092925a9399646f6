"""`torchgraft draw`: a model as a picture."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from torchgraft.cli.console import opened, say

__all__ = ["draw"]


def draw(
    model: str,
    /,
    *,
    to: str = "model.svg",
    depth: int | None = None,
    at: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    open_: Annotated[tuple[str, ...], Parameter(name="--open", negative="")] = (),
    fold: bool = True,
    input_: Annotated[str | None, Parameter(name="--input")] = None,
    json: Annotated[bool, Parameter(negative="")] = False,
    trust: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Draw a model: modules as nested boxes, the operations that matter, shapes on the edges.

    Exit code 1 where the pass breaks off; the picture shows where.

    Parameters
    ----------
    model
        A recipe.yaml, a source such as resnet18@none, or a kept version: v3, DIR@v3.
    to
        The file: .svg, .png, .html (open boxes by a click, search, zoom), .dot (for Graphviz), .json (the data).
    depth
        Open all boxes above this depth: 1 shows the model's own modules alone. As much as can be taken in at a
        glance where it is left out.
    at
        Draw this part alone: a selector, such as layer3 or "blocks[0]"; may be given several times.
    open_
        Open these: selectors, such as "layer[34]"; may be given several times.
    fold
        Draw alike blocks in a row as one, with their number.
    input_
        The shape of one input without the batch, such as [3,224,224]; a source mostly knows its own.
    json
        Print the drawing as one JSON object, and write no file.
    trust
        Allow code of your own to run.
    """
    from torchgraft.errors import RecipeError
    from torchgraft.view.places import check_place

    if depth is not None and depth < 1:
        raise RecipeError(f"a depth of {depth} shows nothing", where="--depth", hint="give 1 or more")
    if not json:
        check_place(to)

    from torchgraft.graph import drawing, written
    from torchgraft.graph.data import as_json

    graft = opened(model, input_, trust=trust)
    drawn = drawing(graft, at=at or None, open=open_ or None, depth=depth, fold=fold)
    if json:
        print(as_json(drawn))
        return int(bool(drawn.broke))
    path = written(drawn, to)
    say("drawn", f"{path}: {drawn.summary()}")
    return int(bool(drawn.broke))
