"""`torchgraft train`: what a recipe describes."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from torchgraft.cli.face import Face, face

if TYPE_CHECKING:
    from torchgraft.adapt import Outcome
    from torchgraft.plan import Planned, Talk

__all__ = ["carried_out", "plan_in_words", "talk_of", "train"]


def train(
    recipe: Path,
    /,
    *,
    out: Path = Path("runs"),
    resume: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
    every_step: Annotated[bool, Parameter(negative="")] = False,
    trust: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Make the model that a recipe describes, check it, train it, and keep the result.

    Ctrl-C, and the SIGTERM of a scheduler, end it after the step that runs, keep what was reached, and leave with
    130; a second Ctrl-C ends it at once. Curves for TensorBoard are written to OUT/tensorboard.

    Parameters
    ----------
    recipe
        A recipe.yaml, such as `torchgraft adapt … --dry-run` writes.
    out
        The folder that the version, the report and the states of unfinished trainings go to.
    resume
        Go on with the training of this recipe that was stopped, at the step where it was.
    json
        Print one JSON object a line for each event: told, begin, step (one a second), epoch, saved, finding, end,
        result, error.
    every_step
        With --json: an event for each batch.
    trust
        Allow a recipe that runs your own code.
    """
    with face(json=json, every_step=every_step) as shown:
        from torchgraft.recipe import Recipe

        read = Recipe.read(recipe)
        from torchgraft.plan import planned

        job = planned(read, trust=trust, talk=talk_of(shown))
        shown.say("train", plan_in_words(job))
        return carried_out(job, out, shown, recipe=recipe, resume=resume)


def talk_of(shown: Face) -> Talk:
    """Let the library tell its steps to a face."""
    from torchgraft.plan import Talk

    return Talk(say=shown.say, progress=shown.progress)


def plan_in_words(job: Planned) -> str:
    """Say what is trained, and how."""
    parameters = list(job.graft.module.parameters())
    trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    every = sum(parameter.numel() for parameter in parameters)
    plan = job.train
    rates = [f"{', '.join(group.at)} at {group.lr:g}" for group in plan.groups if group.lr is not None]
    rest = f"{'the rest' if rates else 'everything'} at {plan.optimizer.lr:g}"
    long = _counted(plan.steps, "step") if plan.steps is not None else _counted(plan.epochs, "epoch")
    together = f" × {plan.accumulate} = {plan.batch * plan.accumulate} a step" if plan.accumulate > 1 else ""
    return (
        f"{trained:,} of {every:,} parameters, {long}, batch {plan.batch}{together}, "
        f"{plan.optimizer.name}, learning rate: {', '.join([*rates, rest])}"
    )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count > 1 else ''}"


def carried_out(job: Planned, out: Path, shown: Face, *, recipe: Path | None = None, resume: bool = False) -> int:
    """Train what is planned, and tell what came out.

    Args:
        job: what is trained.
        out: the folder of the outcome.
        shown: where it is told.
        recipe: the file that it was read from; where there is none, the run's own copy is named.
        resume: go on where it was stopped.

    Returns:
        the exit code.
    """
    from torchgraft.adapt import carry_out, recipe_of
    from torchgraft.keep import RUNS
    from torchgraft.train.saving import has_state

    with shown.shown():
        done = carry_out(job, out, watch=shown.watch(), talk=talk_of(shown), resume=resume)
    if done is None:  # another process of a torchrun tells what came out
        return 0
    name = f"v{done.version.number}" if str(out) == RUNS else f"{out}@v{done.version.number}"
    stopped = done.history.ended == "interrupted"
    again = _going_on(job, out, recipe) if stopped and has_state(recipe_of(job, out).parent) else ""
    if stopped:
        epochs = _counted(len(done.history.epochs), "epoch") if done.history.epochs else "less than one epoch"
        shown.say("stopped", f"after {epochs}; the state reached is kept as {name}")
        shown.say("go on", again or "no state was saved before the stop: begin anew")
    shown.say("report", str(done.report))
    shown.say("next", "\n".join(done.next_commands))
    shown.result(**_facts(done, name), resume=again or None)
    return 130 if stopped else 0


def _going_on(job: Planned, out: Path, recipe: Path | None) -> str:
    from torchgraft.adapt import recipe_of
    from torchgraft.keep import RUNS
    from torchgraft.train.many.speaking import command

    named = shlex.quote(str(recipe or recipe_of(job, out)))
    place = "" if str(out) == RUNS else f" --out {shlex.quote(str(out))}"
    return f"{command()} train {named}{place} --resume"


def _facts(done: Outcome, name: str) -> dict[str, object]:
    return {
        "version": name,
        "report": str(done.report),
        "ended": done.history.ended,
        "best": done.history.best,
        "metrics": dict(done.version.metrics),
        "next": list(done.next_commands),
    }
