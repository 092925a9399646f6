"""`torchgraft find rate` and `torchgraft find batch`: settings of a training, found by trying."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from torchgraft.cli.face import Face, Words
from torchgraft.cli.train import talk_of

if TYPE_CHECKING:
    from torchgraft.plan import Planned

__all__ = ["batch", "rate"]


def rate(
    recipe: Path,
    /,
    *,
    low: float = 1e-7,
    high: float = 10.0,
    steps: Annotated[int, Parameter(validator=Number(gte=20))] = 100,
    plot: Path | None = None,
    write: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
    trust: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Find a learning rate: raise it at every step, and see where the loss falls and where it breaks.

    Parameters
    ----------
    recipe
        A recipe.yaml with a training plan. What is tried is not kept.
    low
        The first rate of the optimizer; groups keep their ratio to it.
    high
        The last rate.
    steps
        How many rates, each for one optimizer step.
    plot
        Draw the curve to this file, such as rate.png.
    write
        Write the suggestion into the recipe, every group in proportion; the rest of the file stays as it is.
    json
        Print one JSON object.
    trust
        Allow a recipe that runs your own code.
    """
    shown, job = _opened(recipe, json=json, trust=trust)
    from torchgraft.searching.plot import draw_rates
    from torchgraft.searching.verbs import rate_of

    found = rate_of(job, low=low, high=high, tries=steps)
    _print(found, json=json)
    if plot is not None:
        shown.say("plot", str(draw_rates(found, plot)))
    if write:
        from torchgraft.searching.written import with_rate, write_over

        write_over(recipe, with_rate(recipe.read_text(encoding="utf-8"), found.factor))
        shown.say("written", f"train.optimizer of {recipe}: lr {found.suggestion:g}, groups in proportion")
    else:
        shown.say(
            "recipe", f"optimizer: {{{job.train.optimizer.name}: {{lr: {found.suggestion:g}, …}}}}; or --write"
        )
    return 0


def batch(
    recipe: Path,
    /,
    *,
    device: str | None = None,
    seconds: Annotated[float, Parameter(validator=Number(gt=0))] = 60.0,
    write: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
    trust: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Find the largest batch that fits, proved by training two steps, and the smallest that is as fast as any.

    Exit code 1 where not even one sample fits.

    Parameters
    ----------
    recipe
        A recipe.yaml with a training plan. What is tried is not kept.
    device
        What it has to fit into: 24GB, 24GiB, cuda, cpu; the plan's device when left out.
    seconds
        About so long speeds are measured.
    write
        Write the advised size into the recipe as train.batch; the rest of the file stays as it is.
    json
        Print one JSON object.
    trust
        Allow a recipe that runs your own code.
    """
    shown, job = _opened(recipe, json=json, trust=trust)
    from torchgraft.searching.verbs import batch_of

    found = batch_of(job, device, seconds=seconds)
    _print(found, json=json)
    if write and found.advised:
        from torchgraft.searching.written import with_batch, write_over

        write_over(recipe, with_batch(recipe.read_text(encoding="utf-8"), found.advised))
        shown.say("written", f"train.batch of {recipe}: {found.advised}; the rates are as they were")
    return 0 if found.largest else 1


def _opened(recipe: Path, *, json: bool, trust: bool) -> tuple[Face, Planned]:
    from torchgraft.recipe import Recipe

    read = Recipe.read(recipe)
    from torchgraft.plan import planned

    shown = Face() if json else Words()
    return shown, planned(read, trust=trust, talk=talk_of(shown))


def _print(found: Any, *, json: bool) -> None:
    print(jsonlib.dumps(found.as_data()) if json else f"\n{found}\n")
