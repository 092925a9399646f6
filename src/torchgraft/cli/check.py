"""`torchgraft check`: does it fit?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from torchgraft.cli.console import console, recipe_path, shape_of

if TYPE_CHECKING:
    from torchgraft.review import Review

__all__ = ["check"]


def check(
    model: str,
    /,
    *,
    input_: Annotated[str | None, Parameter(name="--input")] = None,
    data: str | None = None,
    weights: str | None = None,
    fix: str | None = None,
    to: str | None = None,
    prove: Annotated[bool, Parameter(negative="")] = False,
    real: Annotated[bool, Parameter(negative="")] = False,
    format_: Annotated[Literal["text", "json", "sarif", "github"], Parameter(name="--format")] = "text",
    trust: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Judge a model on fake tensors and say what does not fit, where and why. Exit code 1 where errors remain.

    Parameters
    ----------
    model
        A recipe.yaml, a source such as resnet18@none or python:pkg.mod:factory, or file.py:factory.
    input_
        The shape of one input without the batch, such as [3,224,224]; a source mostly knows its own.
    data
        Run a few real samples as well, forward and backward on a copy: a data source, such as folder:./images, or
        plan for the data and the optimizer of the recipe's training plan.
    weights
        A file of weights that the model should hold: say what of it fits.
    fix
        Mend what does not fit, and write the edits that this takes into the recipe: the best fix, or --fix=2 for
        the second, or --fix=NAME.
    to
        Where to write the recipe of a model that was mended; recipe.yaml when left out.
    prove
        Run one real forward and backward pass as well.
    real
        Follow the pass with small real tensors, for a model whose flow depends on values.
    format_
        text; json: one finding a line; sarif; or github: annotations of a workflow.
    trust
        Allow code of your own to run; naming file.py:factory does so for that file.
    """
    from torchgraft.cli.formats import FORMATS
    from torchgraft.review import review

    shape = shape_of(input_)
    seen = review(model, input=shape, data=data, weights=weights, fix=fix, prove=prove, real=real, trust=trust)
    if seen.added:
        _write(seen, model, to)
    console().print(FORMATS[format_](seen, model))
    return int(any(finding.is_error for finding in seen.findings))


def _write(seen: Review, model: str, to: str | None) -> None:
    """Write the mended recipe: over the one that was checked, or to a new file."""
    path = recipe_path(model, to, other="mended.yaml")
    seen.recipe.write(path)
    edits = "1 new edit" if seen.added == 1 else f"{seen.added} new edits"
    trusted = " --trust" if seen.recipe.base.startswith("python:") else ""  # the recipe names code of the user's
    console(stderr=True).print(f"mended: {path} has {edits}; look again with: torchgraft check {path}{trusted}")
