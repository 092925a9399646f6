"""`torchgraft params`: what a model holds."""

from __future__ import annotations

import json as jsonlib
from typing import Annotated

from cyclopts import Parameter

from torchgraft.cli.console import console, opened

__all__ = ["params"]


def params(
    model: str,
    /,
    *,
    at: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    input_: Annotated[str | None, Parameter(name="--input")] = None,
    json: Annotated[bool, Parameter(negative="")] = False,
    trust: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """List the parameters of a model: shape, whether they are trained, rate, decay, and what values they hold.

    Parameters
    ----------
    model
        A recipe.yaml, a source such as resnet18@none, or a kept version: v3, DIR@v3. A recipe with a training plan
        says the groups, rates and decays too.
    at
        Only these: a selector, such as layer3, head, norms or "layer3.** & not norms"; may be given several times.
        Long models are folded by module; --at opens a part.
    input_
        The shape of one input without the batch, such as [3,224,224]; a source mostly knows its own.
    json
        Print one JSON object with every parameter, unfolded.
    trust
        Allow code of your own to run.
    """
    from torchgraft.train.rates import groups_of
    from torchgraft.view.params import as_data, table, too_much
    from torchgraft.view.params import params as listed

    graft = opened(model, input_, trust=trust)
    plan = graft.recipe.train
    found = listed(graft, at or None, groups=groups_of(graft, plan) if plan is not None else None)
    if json:
        print(jsonlib.dumps(as_data(found)))
        return 0
    out = console()
    left = too_much(found, out.width) if out.is_terminal else []
    out.print(table(found, without=left))
    out.print(f"\n{found.totals()}")
    if left:
        columns = ", ".join(name or "edit" for name in left)
        out.print(f"too wide for this window: {columns}; a pipe shows them (… | less -S), --json too")
    return 0
