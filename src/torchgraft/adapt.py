"""Carry a plan out: train, judge, keep, report."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchgraft.history import Evaluation, History
from torchgraft.keep import RUNS, save
from torchgraft.plan import Planned, Talk, prepared
from torchgraft.store import Manifest
from torchgraft.store.files import explained, make_folder
from torchgraft.train.batches import batches
from torchgraft.train.evaluate import evaluate
from torchgraft.train.loop import device_of, fit
from torchgraft.train.many.joining import joined
from torchgraft.train.news import news_of
from torchgraft.train.saving import Saver, key_of, states_in
from torchgraft.train.watch import SILENT, Watch, both
from torchgraft.view.report import SHOWN, Report, Sample, Step, write

if TYPE_CHECKING:
    from torchgraft.data import DataSet
    from torchgraft.graft import Graft

__all__ = ["Outcome", "carry_out", "recipe_of", "train"]

EXAMPLES = 6
"""So many validation images, one a class, are put beside a report."""


@dataclass(frozen=True)
class Outcome:
    """What came out: the kept version, how good it is, where the report lies, and what to try next."""

    version: Manifest
    history: History
    evaluation: Evaluation
    report: Path
    next_commands: tuple[str, ...]


def carry_out(
    job: Planned, folder: Path, *, watch: Watch = SILENT, talk: Talk | None = None, resume: bool = False
) -> Outcome | None:
    """Train a planned model, judge it on the validation samples, keep it as a version, write the report.

    States to go on from are kept under `folder/states` until it is finished. After Ctrl-C the state reached so far
    is judged and kept as well.

    Args:
        job: what is trained.
        folder: that everything goes to.
        watch: is told what happens.
        talk: is told each step.
        resume: go on with this training where it was stopped.

    Returns:
        what came out; None in every process of several but the first, which does all but the training alone.

    Raises:
        StoreError: the folder, the version or the report can't be written; the folder is tried before training.
        TrainError: training can't go on.
    """
    talk = talk or Talk()
    with joined(job.train) as world, job.timings.of("train"):
        where, shares = states_in(folder) / key_of(job.recipe), job.train.parallel == "fsdp"
        saver = Saver(where, job.train.save_every, world=world, shares=shares)
        with _begun(job, folder, saver, talk, resume=resume) if world.writes else nullcontext(SILENT) as news:
            world.meet()
            made: dict[str, Any] = {"saver": saver, "resume": resume, "world": world}
            history = fit(job.graft, job.data, job.train, job.preprocess, both(watch, news), **made)
    if not world.writes:
        return None
    with job.timings.of("evaluate"):
        evaluation = _judge(job)
    talk.say("result", f"{evaluation.accuracy:.1%} of {len(evaluation.targets)} validation images are right")
    with job.timings.of("save"):
        version = save(
            job.graft,
            folder,
            classes=evaluation.classes,
            metrics={"accuracy": evaluation.accuracy, "loss": evaluation.loss},
            history=history,
            note=_note(job, history),
        )
    if history.ended != "interrupted":
        saver.drop()
    stored = len(version.tensors)
    talk.say("keep", f"v{version.number} ({version.id}) in {folder}: {stored} tensors that differ from the base")
    home = folder / "reports" / f"v{version.number}"
    next_commands = _next_commands(_reference(version, folder), _examples(job, home / "images"), folder)
    report = write(_report(job, history, evaluation, next_commands), home)
    return Outcome(version, history, evaluation, report, next_commands)


@contextmanager
def _begun(job: Planned, folder: Path, saver: Saver, talk: Talk, *, resume: bool) -> Iterator[Watch]:
    """Make the folder ready, and write the figures down that the block gives."""
    _check_folder(folder)
    aside = None if resume else saver.set_aside()
    if aside is not None:
        talk.say("aside", f"an unfinished training of this recipe lies in {aside} now; --resume goes on with one")
    _write_down(job, folder)
    name = f"{job.graft.name}-{key_of(job.recipe)}".replace("/", "-")
    with news_of(job.train.log, folder, name, job.recipe.to_yaml()) as news:
        yield news


def _check_folder(folder: Path) -> None:
    with explained("nothing can be kept there", folder):
        make_folder(folder)
        with tempfile.TemporaryFile(dir=folder):
            pass


def recipe_of(job: Planned, folder: Path) -> Path:
    """Give where the recipe of an unfinished training is kept: it is what the training goes on by."""
    return states_in(folder) / key_of(job.recipe) / "recipe.yaml"


def _write_down(job: Planned, folder: Path) -> None:
    place = recipe_of(job, folder)
    make_folder(place.parent)
    job.recipe.write(place)


def train(graft: Graft, data: str | DataSet, *, watch: Watch = SILENT, **settings: Any) -> History:
    """Train a graft's model in place: `g.train("folder:./flowers", epochs=5, optimizer={"sgd": {"lr": 1e-3}})`.

    Args:
        graft: what is trained.
        data: a data source, or an opened data set.
        watch: is told each step and epoch.
        settings: the fields of the training plan; those left out are as `torchgraft adapt` plans them.

    Raises:
        DataError, RecipeError: the data or the settings are wrong.
        EditError: the model does not fit the data; it carries the findings.
        TrainError: training can't go on.
    """
    job = prepared(graft, data, settings)
    with joined(job.train) as world:
        return fit(job.graft, job.data, job.train, job.preprocess, watch, world=world)


def _judge(job: Planned) -> Evaluation:
    loader = batches(job.data.val, job.preprocess.transform(), job.train, train=False)
    names = _class_names(job)
    return evaluate(job.graft.module, loader, names, device_of(job.train))


def _class_names(job: Planned) -> tuple[str, ...]:
    """Name every output: those beyond the data's classes have no name of their own."""
    outputs = job.graft.trace().output_shapes()[0][1]
    known = job.data.classes
    return (*known, *(f"(class {number})" for number in range(len(known), outputs)))


def _note(job: Planned, history: History) -> str:
    if history.ended == "interrupted":
        return f"interrupted after epoch {len(history.epochs)} of {job.train.epochs}"
    chosen = history.best if job.train.keep == "best" else len(history.epochs)
    return f"{job.graft.name} on {job.train.data}, epoch {chosen} of {len(history.epochs)}"


# the report


def _report(job: Planned, history: History, evaluation: Evaluation, next_commands: tuple[str, ...]) -> Report:
    return Report(
        title=f"{job.graft.name} → {job.train.data}",
        task=f"Tell {len(job.data.classes)} classes of images apart: {', '.join(job.data.classes[:12])}"
        + (", …" if len(job.data.classes) > 12 else ""),
        history=history,
        evaluation=evaluation,
        samples=_samples(job, evaluation),
        steps=_steps(job),
        findings=job.findings,
        facts=tuple(_facts(job)),
        timings=tuple(job.timings.seconds.items()),
        recipe=job.recipe.to_yaml(),
        next_commands=next_commands,
    )


def _reference(version: Manifest, folder: Path) -> str:
    return f"v{version.number}" if str(folder) == RUNS else f"{folder}@v{version.number}"


def _examples(job: Planned, folder: Path) -> Path:
    """Put a few validation images beside the report, so that there is something to predict."""
    names = job.data.classes
    seen: set[int] = set()
    with explained("the images can't be written", folder):
        folder.mkdir(parents=True, exist_ok=True)
        for number, label in enumerate(job.data.val.labels):
            if label not in seen and len(seen) < EXAMPLES:
                seen.add(label)
                word = "".join(letter if letter.isalnum() else "-" for letter in names[label])
                job.data.val[number][0].save(folder / f"{word}.png")
    return folder


def _next_commands(name: str, images: Path, folder: Path) -> tuple[str, ...]:
    """Give the commands to try once a version is kept; each works as it stands."""
    place = "" if str(folder) == RUNS else f" {shlex.quote(str(folder))}"
    return (f"torchgraft predict {shlex.quote(name)} {shlex.quote(str(images))}/*.png", f"torchgraft log{place}")


def _samples(job: Planned, evaluation: Evaluation) -> tuple[Sample, ...]:
    """Take the samples worth a look: the surest mistakes, then what was right and least sure."""
    right = [guess == target for guess, target in zip(evaluation.predictions, evaluation.targets, strict=True)]
    sure = evaluation.confidence
    order = sorted(range(len(right)), key=lambda n: (right[n], sure[n] if right[n] else -sure[n]))
    return tuple(
        Sample(
            image=job.data.val[n][0],
            target=evaluation.classes[evaluation.targets[n]],
            prediction=evaluation.classes[evaluation.predictions[n]],
            confidence=evaluation.confidence[n],
        )
        for n in order[:SHOWN]
    )


def _steps(job: Planned) -> tuple[Step, ...]:
    sizes = job.graft.new_parameters()
    return tuple(
        Step(number, edit.kind(), edit.sentence(), sizes.get(number, 0))
        for number, edit in enumerate(job.recipe.edits, 1)
    )


def _facts(job: Planned) -> Iterator[tuple[str, str]]:
    parameters = list(job.graft.module.parameters())
    trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    every = sum(parameter.numel() for parameter in parameters)
    data, plan = job.data, job.train
    yield "Base", job.recipe.base
    yield "Data", plan.data
    yield "Images", f"{len(data.train)} to train, {len(data.val)} to validate; split {data.split}"
    if data.skipped:
        yield "Skipped", f"{len(data.skipped)} files: {'; '.join(data.skipped[:5])}"
    yield "Input", "×".join(map(str, job.graft.input_shape or ()))
    yield "Parameters", f"{every:,}: {trained:,} trainable, {every - trained:,} frozen"
    yield "MACs", f"{job.graft.trace().macs:,} for one image"
    yield (
        "Optimizer",
        f"{plan.optimizer.name}, {plan.epochs} epochs, batch {plan.batch}, {plan.schedule} schedule",
    )
    rates = [f"{', '.join(group.at)} {group.lr:g}" for group in plan.groups if group.lr is not None]
    yield "Learning rates", "; ".join([*rates, f"{'others ' if rates else ''}{plan.optimizer.lr:g}"])
    yield "Kept state", "best validation accuracy" if plan.keep == "best" else "last epoch"
    yield "Seed", str(job.recipe.seed)
