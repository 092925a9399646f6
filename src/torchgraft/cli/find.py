"""`torchgraft find rate` and `torchgraft find batch`: settings of a training, found by trying."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from torchgraft.cli.console import say
from torchgraft.cli.face import Face, Words
from torchgraft.cli.train import talk_of

if TYPE_CHECKING:
    from torchgraft.plan import Planned

__all__ = ["find"]


def find(
    what: Literal["rate", "batch"],
    recipe: Path,
    /,
    *,
    device: str | None = None,
    low: float = 1e-7,
    high: float = 10.0,
    steps: Annotated[int, Parameter(validator=Number(gte=20))] = 100,
    seconds: Annotated[float, Parameter(validator=Number(gt=0))] = 60.0,
    plot: Path | None = None,
    write: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
    trust: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Find the learning rate, or the size of a batch, by trying; nothing of what is tried is kept.

    Parameters
    ----------
    what
        rate: raise the learning rate at every step, and see where the loss falls and where it breaks.
        batch: the largest batch that fits, proved by training two steps, and the smallest that is as fast as any.
    recipe
        A recipe.yaml with a training plan.
    device
        For batch: what it has to fit into: 24GB, 24GiB, cuda, cpu; the plan's device when left out.
    low
        For rate: the first.
    high
        For rate: the last.
    steps
        For rate: how many are tried.
    seconds
        For batch: about so long speeds are measured.
    plot
        For rate: draw the curve to this file, such as rate.png.
    write
        Write what is suggested into the recipe: the optimizer's lr with every group's in proportion, or train.batch;
        the rest of the file stays as it is.
    json
        Print one JSON object.
    trust
        Allow a recipe that runs your own code.
    """
    from torchgraft.plan import planned
    from torchgraft.recipe import Recipe

    read = Recipe.read(recipe)
    shown = Face() if json else Words()
    job = planned(read, trust=trust, talk=talk_of(shown))
    if what == "rate":
        found, new = _rate(job, recipe, low, high, steps, plot)
    else:
        found, new = _batch(job, recipe, device, seconds)
    print(jsonlib.dumps(found) if json else found["text"])
    if write and new is not None:
        from torchgraft.searching.written import write_over

        write_over(recipe, new)
        shown.say("written", str(recipe))
    return 0
