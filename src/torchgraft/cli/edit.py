"""`torchgraft edit` and `torchgraft edits`: change a model by edits, and see which there are."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from torchgraft.cli.console import console, recipe_path, say, shape_of
from torchgraft.errors import EditError, TorchgraftError, nearest

if TYPE_CHECKING:
    pass

__all__ = ["edit", "edits"]


def edit(
    model: str,
    /,
    *edits: str,
    input_: Annotated[str | None, Parameter(name="--input")] = None,
    fix: Literal["adapt", "propagate"] | None = None,
    to: str | None = None,
    trust: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Apply edits to a model or a recipe, check each on fake tensors, and write the recipe.

    Parameters
    ----------
    model
        A recipe.yaml, a source such as resnet18@none or python:pkg.mod:factory, or file.py:factory.
    edits
        One or more, each as in a recipe: 'head: {classes: 10, hidden: [512]}' 'freeze: {all_but: head}'. A value
        alone fills the first setting: 'remove: layer4'. torchgraft edits lists them.
    input_
        The shape of one input without the batch, such as [3,224,224]; a source mostly knows its own.
    fix
        Make what does not fit by itself fit: adapt restores what the place gave before, propagate resizes what
        comes after.
    to
        Where to write the recipe: over the one that was given, or to recipe.yaml, when left out.
    trust
        Allow code of your own to run; naming file.py:factory does so for that file.
    """
    from torchgraft.editing import edited

    if not edits:
        raise TorchgraftError(
            "no edit is given", where=f"torchgraft edit {model}", hint="such as 'head: {classes: 10}'"
        )
    path = recipe_path(model, to, other="edited.yaml")
    shape = shape_of(input_)
    try:
        done = edited(model, edits, fix=fix, input=shape, trust=trust)
    except EditError as error:
        raise EditError(error.what, error.where, _taken(error), findings=error.findings) from None
    for number, one, size in done.steps:
        say(f"edit {number}", one.sentence() + (f"   {size:+,} parameters" if size else ""))
    for finding in done.findings:
        console().print(f"\n{finding}")
    done.recipe.write(path)
    say("recipe", f"{path}; look again with: torchgraft check {path}{' --trust' if trust else ''}")
    return int(any(finding.is_error for finding in done.findings))


def _taken(refused: EditError) -> str:
    """Say how a fix is taken here, where one is offered."""
    offered = {fix.name for one in refused.findings for fix in one.fixes} & {"adapt", "propagate"}
    ways = " or ".join(f"--fix {name}" for name in sorted(offered))
    return f"nothing was written; {ways} makes it fit, as below" if ways else refused.hint


def edits(kind: str | None = None, /) -> int:
    """List every edit there is, or explain one.

    Parameters
    ----------
    kind
        Such as head.
    """
    from rich.table import Table

    from torchgraft.edits.base import kinds

    known = kinds()
    if kind is None:
        table = Table("edit", "does", "settings", box=None, pad_edge=False, header_style="bold")
        for name, cls in known.items():
            table.add_row(name, (inspect.getdoc(cls) or "").partition("\n")[0], ", ".join(cls.settings()))
        console().print(table)
        return 0
    if kind not in known:
        hint = nearest(kind, known) or "torchgraft edits lists them"
        raise TorchgraftError(f"there is no edit '{kind}'", where=kind, hint=hint)
    console().print(f"{kind}: {', '.join(known[kind].settings())}\n\n{inspect.getdoc(known[kind])}")
    return 0
