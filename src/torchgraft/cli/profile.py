"""`torchgraft profile`: where a training step and a prediction, or a script, spend time and memory."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from torchgraft.cli.console import console, opened

if TYPE_CHECKING:
    from torchgraft.graft import Graft

__all__ = ["profile"]


def profile(
    target: str,
    /,
    *arguments: Annotated[str, Parameter(allow_leading_hyphen=True)],
    device: str | None = None,
    batch: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    steps: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    input_: Annotated[str | None, Parameter(name="--input")] = None,
    fake: Annotated[bool, Parameter(negative="")] = False,
    quick: Annotated[bool, Parameter(negative="")] = False,
    to: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
    trust: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Say where a training step and a prediction spend time and memory, by module, and what would help.

    A script.py is run as Python would run it, with its own arguments. Everything after its name is the script's:
    options of torchgraft come before it, as in `torchgraft profile --to trace.json train.py --lr 3`.

    Parameters
    ----------
    target
        A recipe.yaml, whose training plan is run with its own data; a source such as resnet18@none, or a kept
        version, with random inputs; or a script.py.
    arguments
        Of the script: all that follows its name is its own, so options of torchgraft come before it:
        torchgraft profile --to trace.json train.py --lr 3.
    device
        cpu, cuda, …; that of the plan, or an accelerator where there is one, when left out.
    batch
        Samples in a step; that of the plan, or 8, when left out.
    steps
        How many steps are measured; as many as are worth it when left out.
    input_
        The shape of one input without the batch, such as [3,224,224]; a source mostly knows its own.
    fake
        Take random inputs where the plan names data.
    quick
        Do not try what may help.
    to
        Write a trace for ui.perfetto.dev or chrome://tracing: trace.json.
    json
        Print one JSON object.
    trust
        Allow code of your own to run.
    """
    from torchgraft.profile import profile as profiled
    from torchgraft.profile.files import as_data, check_trace, write_trace
    from torchgraft.profile.script import is_script, profile_script
    from torchgraft.profile.text import text

    check_trace(to)
    trace = to.absolute() if to is not None else None  # a script may go to another folder
    if is_script(target):
        found, code = profile_script(target, arguments, trace=to is not None)
    else:
        graft, code = _opened(target, arguments, input_, trust=trust), 0
        keep = to is not None
        found = profiled(graft, device=device, batch=batch, steps=steps, fake=fake, tries=not quick, trace=keep)
    if trace is not None:
        write_trace(found, trace)
    if json:
        print(jsonlib.dumps(as_data(found)))
    else:
        out = console()
        out.print(text(found, out.width if out.is_terminal else 120))
        if to is not None:
            out.print(f"\nwritten: {to}; open it at ui.perfetto.dev")
    return code


def _opened(target: str, arguments: tuple[str, ...], input_: str | None, *, trust: bool) -> Graft:
    """Open a recipe, a source or a version.

    Raises:
        TorchgraftError: it can't be had, or was given arguments as if it were a script.
    """
    from torchgraft.errors import TorchgraftError

    if arguments:
        raise TorchgraftError(
            f"'{arguments[0]}' is one argument too many",
            where=f"torchgraft profile {target}",
            hint="only a script.py takes arguments of its own",
        )
    return opened(target, input_, trust=trust)
