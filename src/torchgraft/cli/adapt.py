"""`torchgraft adapt` and `torchgraft train`: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from torchgraft.cli.console import Live, count, say

if TYPE_CHECKING:
    from torchgraft.plan import Planned, Talk

__all__ = ["adapt", "train"]


def adapt(
    base: str,
    /,
    *,
    data: str,
    classes: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    epochs: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    out: Path = Path("runs"),
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    strict: Annotated[bool, Parameter(negative="")] = False,
    trust: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Take a trained base model, fit it to a data set, check it, train it, and keep the result.

    Parameters
    ----------
    base
        torchvision:NAME[@WEIGHTS], timm:NAME, python:pkg.mod:factory, file:weights.safetensors@BASE,
        bundled:NAME; a bare name means torchvision. @none takes random weights.
    data
        folder:PATH (a folder of class folders), torchvision:CIFAR10 and the like, sklearn:digits.
    classes
        How many classes the new head gets; as many as the data have when left out.
    epochs
        Passes over the training images; chosen from their number when left out.
    set_
        Set anything of the plan: train.batch=16, head.hidden=[512], freeze.all_but=head, input=[3,64,64],
        seed=3. May be given several times.
    out
        The folder that the version and the report go to.
    dry_run
        Stop after the plan and write it to recipe.yaml.
    strict
        Refuse data with images that can't be read, instead of skipping them.
    trust
        Allow a base that runs your own code (python:…).
    """
    from torchgraft.plan import plan
    from torchgraft.settings import settings_of

    settings = settings_of(set_ or [])
    if epochs is not None:
        settings["train.epochs"] = epochs
    if strict:
        settings["train.strict"] = True
    job = plan(base, data, classes=classes, settings=settings, trust=trust, talk=_talk())
    say("train", _plan_in_words(job))
    if dry_run:
        written = Path("recipe.yaml")
        job.recipe.write(written)
        say("recipe", f"{written}; run it with: torchgraft train {written}")
        return 0
    return _carry_out(job, out)


def train(
    recipe: Path,
    /,
    *,
    out: Path = Path("runs"),
    trust: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Make the model that a recipe describes, check it, train it, and keep the result.

    Parameters
    ----------
    recipe
        A recipe.yaml, such as `torchgraft adapt … --dry-run` writes.
    out
        The folder that the version and the report go to.
    trust
        Allow a recipe that runs your own code.
    """
    from torchgraft.recipe import Recipe

    read = Recipe.read(recipe)
    from torchgraft.plan import planned

    job = planned(read, trust=trust, talk=_talk())
    say("train", _plan_in_words(job))
    return _carry_out(job, out)


def _talk() -> Talk:
    from torchgraft.plan import Talk

    return Talk(say=say, progress=count)


def _plan_in_words(job: Planned) -> str:
    parameters = list(job.graft.module.parameters())
    trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    every = sum(parameter.numel() for parameter in parameters)
    rates = [f"{', '.join(group.at)} at {group.lr:g}" for group in job.train.groups if group.lr is not None]
    rest = f"{'the rest' if rates else 'everything'} at {job.train.optimizer.lr:g}"
    epochs = f"{job.train.epochs} epoch{'s' if job.train.epochs > 1 else ''}"
    return (
        f"{trained:,} of {every:,} parameters, {epochs}, batch {job.train.batch}, "
        f"{job.train.optimizer.name}, learning rate: {', '.join([*rates, rest])}"
    )


def _carry_out(job: Planned, out: Path) -> int:
    from torchgraft.adapt import carry_out
    from torchgraft.keep import RUNS
    from torchgraft.train.loop import Watch

    with Live(job.train.epochs).shown() as live:
        done = carry_out(job, out, watch=Watch(step=live.step, epoch=live.epoch), talk=_talk())
    name = f"v{done.version.number}" if str(out) == RUNS else f"{out}@v{done.version.number}"
    if done.history.ended == "interrupted":
        say("stopped", f"after {len(done.history.epochs)} epochs; the state reached is kept as {name}")
    say("report", str(done.report))
    say("next", "\n".join(done.next_commands))
    return 130 if done.history.ended == "interrupted" else 0
