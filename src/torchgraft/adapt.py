"""Carry a plan out: train, judge, keep, report."""

from __future__ import annotations

import math
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchgraft.data.base import Samples, Stream
from torchgraft.errors import TrainError
from torchgraft.history import Evaluation, History, figure_name, shown
from torchgraft.keep import RUNS, save
from torchgraft.plan import Planned, Talk, prepared
from torchgraft.preprocess import Preprocess
from torchgraft.store import Manifest
from torchgraft.store.files import explained, make_folder
from torchgraft.train.evaluate import evaluate
from torchgraft.train.feeding import feed_for
from torchgraft.train.loop import device_of, fit
from torchgraft.train.many.joining import in_words, joined
from torchgraft.train.news import news_of
from torchgraft.train.saving import Saver, has_state, key_of, only_one, states_in
from torchgraft.train.tasks import task_for
from torchgraft.train.watch import SILENT, Watch, both
from torchgraft.view.report import SHOWN, Overlay, Report, Sample, Step, write

if TYPE_CHECKING:
    from PIL.Image import Image

    from torchgraft.data import DataSet
    from torchgraft.graft import Graft
    from torchgraft.train.world import World
    from torchgraft.trainplan import TrainPlan

__all__ = ["Outcome", "carry_out", "recipe_of", "train"]

EXAMPLES = 6
"""So many validation images, one a class, are put beside a report."""
ASKED = 50
"""Of so many validation texts, the shortest is the one that may be asked about."""


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
    with ExitStack() as held:
        with joined(job.train) as world, job.timings.of("train"):
            if world.writes:
                held.enter_context(_only_here(job, folder))
            history, saver = _trained(job, folder, watch, talk, world, resume=resume)
        return _kept(job, folder, history, saver, talk) if world.writes else None


def _kept(job: Planned, folder: Path, history: History, saver: Saver, talk: Talk) -> Outcome:
    """Judge what was trained, keep it as a version, write the report."""
    job.timings.seconds["train"] = history.seconds  # with that before a stop
    with job.timings.of("evaluate"):
        evaluation = _judge(job)
    talk.say("result", _result(job, evaluation))
    if history.skipped:
        talk.say("skipped", _left_out(history.skipped))
    with job.timings.of("save"):
        version = save(
            job.graft,
            folder,
            classes=evaluation.classes,
            metrics={**_known(evaluation), "loss": evaluation.loss},
            history=history,
            note=_note(job, history),
        )
    if history.ended != "interrupted":
        saver.drop()
    stored = len(version.tensors)
    talk.say("keep", f"v{version.number} ({version.id}) in {folder}: {stored} tensors that differ from the base")
    home = folder / "reports" / f"v{version.number}"
    asked = _question(job, home / "images")
    next_commands = _next_commands(_reference(version, folder), asked, folder)
    report = write(_report(job, history, evaluation, next_commands), home)
    return Outcome(version, history, evaluation, report, next_commands)


def _trained(
    job: Planned, folder: Path, watch: Watch, talk: Talk, world: World, *, resume: bool
) -> tuple[History, Saver]:
    """Train, with states under the folder; gives what came out, and who keeps the states."""
    shares = job.train.parallel == "fsdp"
    saver = Saver(_states(job, folder), job.train.save_every, world=world, shares=shares)
    if world.size > 1:
        talk.say("many", in_words(job.train, world, job.graft.module))
    with _begun(job, folder, saver, talk, resume=resume) if world.writes else _SILENCE as news:
        world.meet()
        made: dict[str, Any] = {"saver": saver, "resume": resume, "world": world, "loss": job.loss}
        return fit(job.graft, job.data, job.train, job.preprocess, both(watch, news), **made), saver


@contextmanager
def _begun(job: Planned, folder: Path, saver: Saver, talk: Talk, *, resume: bool) -> Iterator[Watch]:
    """Make the folder ready, and write the figures down that the block gives."""
    aside = None if resume else saver.set_aside()
    if aside is not None:
        told = f"the unfinished training of this recipe lies in {aside} now, until --resume asks for it"
        talk.say("aside", told)
    if not resume or has_state(saver.folder):
        _write_down(job, folder)
    with _logged(job, folder) as news:
        yield news


_SILENCE = nullcontext(SILENT)


def _logged(job: Planned, folder: Path = Path(RUNS)) -> AbstractContextManager[Watch]:
    """Write figures down under the training's own name, which is the same after a stop."""
    name = f"{job.graft.name}-{key_of(job.recipe)}".replace("/", "-")
    return news_of(job.train.log, folder, name, job.recipe.to_yaml())


@contextmanager
def _only_here(job: Planned, folder: Path) -> Iterator[None]:
    """Try the folder, and let nobody else train this recipe in it while the block runs."""
    with explained("nothing can be kept there", folder):
        make_folder(folder)
        with tempfile.TemporaryFile(dir=folder):
            pass
    with only_one(_states(job, folder)):
        yield


def recipe_of(job: Planned, folder: Path) -> Path:
    """Give where the recipe of an unfinished training is kept: it is what the training goes on by."""
    return _states(job, folder) / "recipe.yaml"


def _states(job: Planned, folder: Path) -> Path:
    return states_in(folder) / key_of(job.recipe)


def _write_down(job: Planned, folder: Path) -> None:
    place = recipe_of(job, folder)
    make_folder(place.parent)
    job.recipe.write(place)


def train(
    graft: Graft,
    data: Any,
    *,
    watch: Watch = SILENT,
    out: str | Path | None = None,
    resume: bool = False,
    **settings: Any,
) -> History:
    """Train a graft's model in place: `g.train("folder:./flowers", epochs=5, optimizer={"sgd": {"lr": 1e-3}})`.

    Args:
        graft: what is trained.
        data: a data source or an opened data set; arrays or tensors `(inputs, targets)`; a Dataset, or a pair of
            Datasets or DataLoaders `(train, val)`.
        watch: is told each step and epoch.
        out: a folder: states to go on from are kept under OUT/states until it is finished, figures go to
            OUT/tensorboard. Nothing is kept without it.
        resume: go on with this training where it was stopped, or broke off: a new graft made like the first one,
            the same data and settings, the same `out`.
        settings: the fields of the training plan; those left out are as `torchgraft adapt` plans them. Where `log`
            names a place for figures, they go to ./runs/tensorboard as well.

    Raises:
        DataError, RecipeError: the data or the settings are wrong.
        EditError: the model does not fit the data; it carries the findings.
        TrainError: training can't go on; there is nothing to go on from; or another process trains this in `out`.
        StoreError: the folder can't be written.
    """
    if resume and out is None:
        raise TrainError("there is no folder to go on from", where="resume", hint='name it: out="runs"')
    job = prepared(graft, data, settings)
    if out is not None:
        return _with_states(job, Path(out), watch, resume=resume)
    with joined(job.train) as world, _logged(job) if job.train.log and world.writes else _SILENCE as news:
        return fit(job.graft, job.data, job.train, job.preprocess, both(watch, news), world=world, loss=job.loss)


def _with_states(job: Planned, out: Path, watch: Watch, *, resume: bool) -> History:
    """Train with states to go on from, which go when it is finished."""

    def say(_: str, sentence: str) -> None:
        watch.note(sentence)

    talk = Talk(say=say)
    with ExitStack() as held, joined(job.train) as world:
        if world.writes:
            held.enter_context(_only_here(job, out))
        history, saver = _trained(job, out, watch, talk, world, resume=resume)
        if world.writes and history.ended != "interrupted":
            saver.drop()
        return history


def _left_out(skipped: Sequence[str]) -> str:
    """Say what could not be read while training."""
    count = len(skipped)
    return (
        f"{count} sample{'s' if count > 1 else ''} could not be read and {'were' if count > 1 else 'was'} "
        f"left out, such as {skipped[0]}"
    )


def _judge(job: Planned) -> Evaluation:
    device = device_of(job.train)
    feed = feed_for(job.graft, job.data, job.train, job.preprocess, train=False, device=device)
    task = task_for(job.graft, job.data, job.train, device=device, loss=job.loss)
    return evaluate(job.graft.module, feed, task, job.data.classes, device)


def _known(evaluation: Evaluation) -> dict[str, float]:
    """Give the figures that are numbers."""
    return {name: one for name, one in evaluation.figures.items() if math.isfinite(one)}


def _result(job: Planned, evaluation: Evaluation) -> str:
    """Say how good the model is."""
    judged = f"{evaluation.count} validation {_INPUTS[job.data.kind]}"
    if evaluation.main == "accuracy":
        return f"{evaluation.accuracy:.1%} of {judged} are right"
    told = [f"{figure_name(name)} {shown(name, one)}" for name, one in evaluation.figures.items()]
    return f"{', '.join(told)} on {judged}"


_INPUTS = {"image": "images", "text": "texts", "tensor": "samples"}


def _note(job: Planned, history: History) -> str:
    if history.ended == "interrupted":
        return f"interrupted after epoch {len(history.epochs)}, of {_span(job.train)}"
    chosen = history.best if job.train.keep == "best" else len(history.epochs)
    return f"{job.graft.name} on {job.train.data}, epoch {chosen} of {len(history.epochs)}"


# the report


def _report(job: Planned, history: History, evaluation: Evaluation, next_commands: tuple[str, ...]) -> Report:
    return Report(
        title=f"{job.graft.name} → {job.train.data}",
        task=_task(job),
        history=history,
        evaluation=evaluation,
        samples=_samples(job, evaluation),
        overlays=_overlays(job, evaluation),
        steps=_steps(job),
        findings=job.findings,
        facts=tuple(_facts(job, history)),
        timings=tuple(job.timings.seconds.items()),
        recipe=job.recipe.to_yaml(),
        next_commands=next_commands,
    )


def _reference(version: Manifest, folder: Path) -> str:
    return f"v{version.number}" if str(folder) == RUNS else f"{folder}@v{version.number}"


def _examples(job: Planned, folder: Path) -> Path | None:
    """Put a few validation images beside the report, so that there is something to predict."""
    if job.data.kind != "image" or isinstance(job.data.val, Stream):
        return None
    with explained("the images can't be written", folder):
        folder.mkdir(parents=True, exist_ok=True)
        for word, number in _few(job.data).items():
            job.data.val[number][0].save(folder / f"{word}.png")
    return folder


def _few(data: DataSet) -> dict[str, int]:
    """Choose samples by what their files are called: one a class, or the first ones."""
    if data.task != "classes":
        return {f"{number + 1}": number for number in range(min(EXAMPLES, len(data.val)))}
    first: dict[int, int] = {}
    for number, label in enumerate(data.val.labels):
        if len(first) < EXAMPLES:
            first.setdefault(label, number)
    return {_file_name(data.classes[label]): number for label, number in first.items()}


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def _question(job: Planned, folder: Path) -> str:
    """Give what may be asked of the version, as one writes it in a shell; empty where there is nothing at hand."""
    if job.data.kind != "text":
        images = _examples(job, folder)
        return f"{shlex.quote(str(images))}/*.png" if images else ""
    if isinstance(job.data.val, Stream):
        return ""
    texts = [job.data.val[number][0] for number in range(min(len(job.data.val), ASKED))]
    return f"--text {shlex.quote(min(filter(str.strip, texts), key=len, default=''))}"


def _next_commands(name: str, question: str, folder: Path) -> tuple[str, ...]:
    """Give the commands to try once a version is kept; each works as it stands."""
    place = "" if str(folder) == RUNS else f" {shlex.quote(str(folder))}"
    log = f"torchgraft log{place}"
    return (f"torchgraft predict {shlex.quote(name)} {question}", log) if question else (log,)


def _samples(job: Planned, evaluation: Evaluation) -> tuple[Sample, ...]:
    """Take the samples worth a look: the surest mistakes, then what was right and least sure."""
    if job.data.kind == "tensor" or isinstance(job.data.val, Stream):
        return ()
    texts = job.data.kind == "text"
    right = [guess == target for guess, target in zip(evaluation.predictions, evaluation.targets, strict=True)]
    sure = evaluation.confidence
    order = sorted(range(len(right)), key=lambda n: (right[n], sure[n] if right[n] else -sure[n]))
    return tuple(
        Sample(
            image=None if texts else job.data.val[evaluation.indices[n]][0],
            text=job.data.val[evaluation.indices[n]][0] if texts else "",
            target=evaluation.classes[evaluation.targets[n]],
            prediction=evaluation.classes[evaluation.predictions[n]],
            confidence=evaluation.confidence[n],
        )
        for n in order[:SHOWN]
    )


def _overlays(job: Planned, evaluation: Evaluation) -> tuple[Overlay, ...]:
    """Take the images that went worst, as the model saw them."""
    preprocess = job.preprocess
    if not isinstance(preprocess, Preprocess) or isinstance(job.data.val, Stream):
        return ()
    return tuple(
        Overlay(_seen(job.data.val[one.index][0], preprocess), one.truth, one.guess, one.iou)
        for one in evaluation.masks
    )


def _seen(image: Image, preprocess: Preprocess) -> Image:
    """Give an image as the model saw it: resized and cropped."""
    import PIL.Image

    from torchgraft.features.images import images_of

    shown = images_of(preprocess.transform()(image).unsqueeze(0), preprocess).shown[0]
    return PIL.Image.fromarray((shown * 255).round().astype("uint8"))


def _task(job: Planned) -> str:
    """Say in a sentence what the model is for."""
    names, inputs = job.data.classes, _INPUTS[job.data.kind]
    listed = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    count = len(names)
    plural = "" if count == 1 else "s"
    return {
        "classes": f"Tell {count} classes of {inputs} apart: {listed}",
        "labels": f"Find {count} label{plural} of {inputs}: {listed}",
        "regression": f"Estimate {count} {'quantity' if count == 1 else 'quantities'} from {inputs}: {listed}",
        "mask": f"Find the pixels of {count} class{'' if count == 1 else 'es'} in {inputs}: {listed}",
    }[job.data.task]


def _steps(job: Planned) -> tuple[Step, ...]:
    sizes = job.graft.new_parameters()
    return tuple(
        Step(number, edit.kind(), edit.sentence(), sizes.get(number, 0))
        for number, edit in enumerate(job.recipe.edits, 1)
    )


def _facts(job: Planned, history: History) -> Iterator[tuple[str, str]]:
    parameters = list(job.graft.module.parameters())
    trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    every = sum(parameter.numel() for parameter in parameters)
    data, plan = job.data, job.train
    yield "Base", job.recipe.base
    yield "Data", plan.data
    told = _INPUTS[data.kind].capitalize()
    yield told, f"{_length(data.train)} to train, {_length(data.val)} to validate; split {data.split}"
    if data.skipped:
        yield "Skipped", f"{len(data.skipped)} files: {'; '.join(data.skipped[:5])}"
    if job.graft.input_shape:
        yield "Input", "×".join(map(str, job.graft.input_shape))
    yield "Parameters", f"{every:,}: {trained:,} trainable, {every - trained:,} frozen"
    yield "MACs", f"{job.graft.trace().macs:,} for one {_one(job)}"
    yield (
        "Optimizer",
        f"{plan.optimizer.name}, {_span(plan)}, batch {plan.batch}{_gathered(plan)}, {plan.schedule} schedule",
    )
    rates = [f"{', '.join(group.at)} {group.lr:g}" for group in plan.groups if group.lr is not None]
    yield "Learning rates", "; ".join([*rates, f"{'others ' if rates else ''}{plan.optimizer.lr:g}"])
    yield "Kept state", f"best validation {figure_name(history.metric)}" if plan.keep == "best" else "last epoch"
    yield "Seed", str(job.recipe.seed)


def _one(job: Planned) -> str:
    run, kind = job.graft.trace(), job.data.kind
    words = f" of {run.values[run.inputs[0]].shape[-1]} tokens" if kind == "text" else ""
    return _INPUTS[kind].removesuffix("s") + words


def _length(samples: Samples) -> str:
    known = not isinstance(samples, Stream) or samples.length is not None
    return str(len(samples)) if known else "an unknown number"


def _span(plan: TrainPlan) -> str:
    return f"{plan.steps} steps" if plan.steps is not None else f"{plan.epochs} epochs"


def _gathered(plan: TrainPlan) -> str:
    return f" × {plan.accumulate} = {plan.batch * plan.accumulate} a step" if plan.accumulate > 1 else ""
