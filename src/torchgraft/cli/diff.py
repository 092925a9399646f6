"""`torchgraft diff`: how two models differ."""

from __future__ import annotations

import json as jsonlib
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from torchgraft.cli.console import console, say, shape_of

if TYPE_CHECKING:
    from torchgraft.view.difference import Difference

__all__ = ["diff"]

_STYLES = {"+": "green", "-": "red", "~": "yellow", ">": "cyan", "!": "magenta", "#": "bold", "": ""}


def diff(
    before: str,
    after: str,
    /,
    *,
    input_: Annotated[str | None, Parameter(name="--input")] = None,
    to: str | None = None,
    values: bool = True,
    all_: Annotated[bool, Parameter(name="--all", negative="")] = False,
    exit_code: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
    trust: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Say how two models differ: recipe, modules, parameters, work, and the numbers of every tensor.

    Parameters
    ----------
    before
        A recipe.yaml, a source such as resnet18@none, or a kept version: v3, DIR@v3.
    after
        The same. Two versions are compared by their hashes: what they share is not read.
    input_
        The shape of one input without the batch, such as [3,224,224]; a source mostly knows its own.
    to
        Draw both in one graph into this file: what came is green, what is gone red. The ending says how: .svg,
        .html (interactive), .png, .dot or .json.
    values
        Compare the numbers of tensors; --no-values compares names, shapes and flags alone.
    all_
        Fold nothing: a line for each module and each tensor that differs.
    exit_code
        Leave with exit code 1 where anything differs, as git diff does.
    json
        Print one JSON object with everything, unfolded.
    trust
        Allow code of your own to run.
    """
    if to is not None:
        from torchgraft.view.places import check_place

        check_place(to)

    from torchgraft.comparing import diff_named

    shape = shape_of(input_)
    found = diff_named(before, after, input=shape, trust=trust, values=values, to=to)
    if json:
        print(jsonlib.dumps(found.as_data(), allow_nan=False))
    else:
        _print(found, unfolded=all_)
        if to is not None:
            say("\ndrawn", to)
    return int(exit_code and bool(found))


def _print(found: Difference, *, unfolded: bool) -> None:
    from rich.text import Text

    from torchgraft.view.difftext import FOLDED, text

    out = console()
    for kind, line in text(found, limit=10**6 if unfolded else FOLDED):
        out.print(Text(line, style=_STYLES[kind]))
