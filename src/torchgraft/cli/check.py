"""`torchgraft check`: does it fit?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from torchgraft.cli.console import console
from torchgraft.errors import EditError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchgraft.recipe import Recipe
    from torchgraft.rules import Finding

__all__ = ["check"]


def check(
    model: str,
    /,
    *,
    input_: Annotated[str | None, Parameter(name="--input")] = None,
    fix: Literal["adapt", "propagate"] | None = None,
    format_: Annotated[Literal["text", "json"], Parameter(name="--format")] = "text",
    trust: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Judge a model on fake tensors and say what does not fit, where and why. Exit code 1 where errors remain.

    Parameters
    ----------
    model
        A recipe.yaml, or a source such as resnet18@none or python:pkg.mod:factory.
    input_
        The shape of one input without the batch, such as [3,224,224]; a source mostly knows its own.
    fix
        Mend the edits of a recipe that do not fit, and write the edits that this takes into it.
    format_
        text, or json: one finding a line.
    trust
        Allow code of your own to run.
    """
    from torchgraft.recipe import Recipe
    from torchgraft.settings import check_settings

    shape = Recipe.value(input_) if input_ else None
    check_settings({"input": shape}, where="--input")
    path = Path(model)
    if path.suffix in (".yaml", ".yml"):
        found = _check_recipe(path, Recipe.read(path), fix, trust=trust)
    else:
        from torchgraft.loading import load

        found = load(model, input=shape, trust=trust).check()
    _print(found, format_)
    return int(any(finding.is_error for finding in found))


def _check_recipe(
    path: Path, recipe: Recipe, fix: Literal["adapt", "propagate"] | None, *, trust: bool
) -> Sequence[Finding]:
    """Replay a recipe; mend what does not fit where that is asked for."""
    from torchgraft.loading import replay

    try:
        graft = replay(recipe, trust=trust, fix=fix)
    except EditError as error:
        if not error.findings:
            raise
        return error.findings
    if fix is not None and len(graft.recipe.edits) > len(recipe.edits):
        graft.recipe.write(path)
        console(stderr=True).print(f"mended: {path} has {len(graft.recipe.edits) - len(recipe.edits)} new edits")
    return graft.check()


def _print(found: Sequence[Finding], form: str) -> None:
    out = console()
    for finding in found:
        out.print(finding.to_json() if form == "json" else f"{finding}\n")
    if form == "text":
        errors = sum(finding.is_error for finding in found)
        out.print(f"{errors} errors, {len(found) - errors} other findings" if found else "all fits")
