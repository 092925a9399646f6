"""`torchgraft memory`: does training fit?"""

from __future__ import annotations

import json as jsonlib
import shlex
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from torchgraft.cli.console import console, shape_of
from torchgraft.errors import RecipeError

__all__ = ["memory"]


def memory(
    model: str,
    /,
    *,
    device: str | None = None,
    batch: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    precision: str | None = None,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    input_: Annotated[str | None, Parameter(name="--input")] = None,
    json: Annotated[bool, Parameter(negative="")] = False,
    quick: Annotated[bool, Parameter(negative="")] = False,
    trust: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Predict the memory that training takes, and say whether it fits. Exit code 1 where it does not.

    Nothing is trained: the steps run on fake tensors, so the batch may be as large as one likes.

    Parameters
    ----------
    model
        A recipe.yaml, a source such as resnet18@none, or a kept version: v3, DIR@v3. Without a training plan the
        defaults are taken.
    device
        What it has to fit into: 24GB, 24GiB, 16000MiB; or cuda, cuda:1, mps, cpu for what is free there now.
    batch
        Samples that go through the model at once; the plan's when left out.
    precision
        fp32, bf16 or fp16; the plan's when left out.
    set_
        Set anything of the plan: train.accumulate=4, 'train.optimizer={sgd: {lr: 0.1, momentum: 0.9}}',
        'train.checkpointing=[layer3.*]'. May be given several times.
    input_
        The shape of one input without the batch, such as [3,224,224]; a source mostly knows its own.
    json
        Print one JSON object.
    quick
        Predict the plan as it is, and look neither for the largest batch nor for remedies.
    trust
        Allow code of your own to run; naming file.py:factory does so for that file.
    """
    from torchgraft.keep import open_named
    from torchgraft.memory import memory as predicted
    from torchgraft.memory import room_of
    from torchgraft.memory.text import text
    from torchgraft.settings import COMMAND_LINE, check_settings, settings_of, taken

    settings = settings_of(set_ or [])
    check_settings(settings, where=COMMAND_LINE)
    own = taken(settings, "train") | {
        name: one for name, one in (("batch", batch), ("precision", precision)) if one is not None
    }
    shape = shape_of(input_) if input_ else settings.pop("input", None)
    check_settings({f"train.{name}": one for name, one in own.items()}, where="{}")
    if settings:
        raise _misplaced(model, *next(iter(settings.items())))
    if device is not None:
        room_of(device)  # told before the model is loaded
    graft = open_named(model, input=shape, trust=trust)
    found = predicted(graft, device, help=not quick, **own)
    if json:
        print(jsonlib.dumps(found.as_data()))
    else:
        out = console()
        out.print(text(found, out.width if out.is_terminal else None, model=model))
    return int(any(finding.is_error for finding in found.findings))


def _misplaced(model: str, name: str, value: Any) -> RecipeError:
    """Say where a setting belongs that is not the plan's: an edit has a command of its own."""
    from torchgraft.edits.base import kinds
    from torchgraft.recipe import is_recipe

    kind, _, setting = name.partition(".")
    if kind not in kinds():
        return RecipeError(
            f"'{name}' says nothing about memory",
            where=f"--set {name}",
            hint="set the plan: train.…; or the shape of the input: input=[3,224,224]",
        )
    edit = shlex.quote(f"{kind}: {{{setting}: {value}}}" if setting else f"{kind}: {value}")
    written = model if is_recipe(model) else "recipe.yaml"
    return RecipeError(
        f"{kind} is an edit, and --set changes the training plan",
        where=f"--set {name}",
        hint=f"torchgraft edit {shlex.quote(model)} {edit} writes it down; "
        f"torchgraft memory {shlex.quote(written)} then counts it",
    )
