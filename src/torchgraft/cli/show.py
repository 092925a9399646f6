"""`torchgraft show`: what a model is made of."""

from __future__ import annotations

import json as jsonlib
from typing import Annotated, Literal

from cyclopts import Parameter

from torchgraft.cli.console import console, opened

__all__ = ["show"]


def show(
    model: str,
    /,
    *,
    depth: int | None = None,
    at: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    by: Literal["macs", "params", "memory"] = "macs",
    takes: Annotated[bool, Parameter(negative="")] = False,
    train: Annotated[bool, Parameter(negative="")] = False,
    input_: Annotated[str | None, Parameter(name="--input")] = None,
    json: Annotated[bool, Parameter(negative="")] = False,
    trust: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Show a model as a tree: what each module gives, its parameters, work and memory, and its share of the whole.

    Exit code 1 where the pass breaks off, with the reason at the top.

    Parameters
    ----------
    model
        A recipe.yaml, a source such as resnet18@none, file.py:factory, or a kept version: v3, DIR@v3.
    depth
        How deep: 1 shows the parts of the model, 2 theirs. As deep as is well read when left out; equal blocks of
        a long model are folded.
    at
        Only these modules and what is in them: a selector, such as layer3 or head; may be given several times.
    by
        What shares are of: the work (multiply-accumulates), the parameters, or the memory of the activations.
    takes
        Show what each module is given as well.
    train
        Follow the pass in training mode.
    input_
        The shape of one input without the batch, such as [3,224,224]; a source mostly knows its own.
    json
        Print one JSON object with every row, unfolded.
    trust
        Allow code of your own to run.
    """
    from torchgraft.view.summary import as_data
    from torchgraft.view.summary import show as shown
    from torchgraft.view.summary_text import coloured

    graft = opened(model, input_, trust=trust)
    found = shown(graft, at or None, depth, by=by, takes=takes, train=train)
    if json:
        print(jsonlib.dumps(as_data(found)))
        return int(bool(found.broke))
    out = console()
    out.print(coloured(found, out.width if out.is_terminal else None))
    return int(bool(found.broke))
