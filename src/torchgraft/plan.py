"""Plan the main job: load a base, fit its head and input to the data, choose what is trained and how.

Every choice stands in the recipe. `--set path=value` overrides one: `train.batch=16`, `head.hidden=[512]`,
`freeze.all_but=head`, `input=[3, 64, 64]`, `preprocess.resize=256`, `seed=3`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from torchgraft.data import DataSet, Samples, Stream, parse_data
from torchgraft.data.balance import UNEVEN, balance
from torchgraft.data.base import per_class
from torchgraft.data.objects import as_data_set
from torchgraft.edits.base import Edit, kinds
from torchgraft.errors import DataError, EditError, RecipeError
from torchgraft.fitting import Prepared, check_input, faults_of_texts, fitted, prepared_as
from torchgraft.graft import Graft
from torchgraft.history import figure_name
from torchgraft.loading import load, replay
from torchgraft.reading import facts_of
from torchgraft.recipe import Recipe, TrainPlan
from torchgraft.rules import Finding
from torchgraft.settings import COMMAND_LINE, check_settings, taken
from torchgraft.sources import parse_source
from torchgraft.texts import as_classifier, lined_up
from torchgraft.tokens import Texts
from torchgraft.train.checkpointing import checkpointed_modules
from torchgraft.train.loop import check_training
from torchgraft.train.rates import unfreezing
from torchgraft.train.task import Task
from torchgraft.train.tasks.fit import check_outputs, spread_of, task_for
from torchgraft.train.tasks.losses import Loss, handed_over, trusted

__all__ = ["Planned", "Talk", "Timings", "plan", "planned", "prepared"]


@dataclass(frozen=True)
class Talk:
    """Where the job tells what it does: a word and a sentence for each step, and how far long work is."""

    say: Callable[[str, str], None] = lambda *_: None
    progress: Callable[[int, int], None] = lambda *_: None


@dataclass(frozen=True)
class Timings:
    """Seconds by the name of a step."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Measure what happens inside."""
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


@dataclass(frozen=True)
class Planned:
    """A model that is ready to be trained, and the data for it.

    Attributes:
        graft: holds the model and its recipe.
        data: to train on, and to judge by.
        train: how.
        preprocess: of images or texts; None where the data are tensors.
        findings: that stop nothing.
        timings: of the work until here.
        loss: a trusted one of the user's own, in the place of the task's.
    """

    graft: Graft
    data: DataSet
    train: TrainPlan
    preprocess: Prepared
    findings: tuple[Finding, ...] = ()
    timings: Timings = field(default_factory=Timings)
    loss: Loss | None = None

    @property
    def recipe(self) -> Recipe:
        """All of it as a recipe."""
        return self.graft.recipe


def plan(
    base: str,
    data: str,
    *,
    classes: int | None = None,
    settings: Mapping[str, Any] | None = None,
    trust: bool = False,
    talk: Talk | None = None,
) -> Planned:
    """Plan how a base model is adapted to a data set.

    What costs nothing to check comes first, the base and its weights last.

    Args:
        base: a source, such as `resnet18` or `timm:convnext_tiny`.
        data: a data source, such as `folder:./flowers`.
        classes: how many classes the head gets; as many as the data have when left out.
        settings: what the user sets himself, by path in the recipe.
        trust: whether code of the user's own may be run.
        talk: is told each step.

    Raises:
        SourceError, DataError, RecipeError: what was asked for can't be had.
        EditError: the base can't be fitted to the data; carries the findings.
        TrainError: it can't be trained so.
    """
    talk, given, timings = talk or Talk(), dict(settings or {}), Timings()
    check_settings(given, where=COMMAND_LINE)
    parse_source(base).check(trust=trust)
    own = taken(given, "train")
    freeze = _freeze(taken(given, "freeze"))
    asked = TrainPlan.model_validate({"data": data, **own})
    check_training(asked)
    loss = trusted(asked, trust=trust)
    seed = given.get("seed", 0)
    with timings.of("data"):
        opened = _open(data, seed, talk, strict=own.get("strict", False))
    head = _head(opened, data, classes, taken(given, "head"))
    with timings.of("load"):
        base = as_classifier(base) if opened.kind == "text" else base
        graft = load(base, input=given.get("input"), seed=seed, trust=trust)
    talk.say("load", _weight_of(graft))
    with timings.of("plan"):
        preprocess = fitted(graft, opened, (head, *freeze), taken(given, "preprocess"), talk.say)
        recipe = _put(preprocess, _drafted(graft, data, opened, own), graft, opened, talk)
    return _checked(graft, recipe, opened, timings, talk, loss)


def planned(recipe: Recipe, *, trust: bool = False, talk: Talk | None = None) -> Planned:
    """Make what a recipe says, and open its data.

    Raises:
        RecipeError: the recipe does not say how to train.
        SourceError, DataError, EditError, TrainError: what it names can't be had or does not fit.
    """
    talk, timings, train = talk or Talk(), Timings(), recipe.train
    if train is None:
        raise RecipeError("the recipe does not say how to train", where="train", hint="train: {data: folder:…}")
    if not recipe.base.startswith("object:"):
        parse_source(recipe.base).check(trust=trust)
    check_training(train)
    loss = trusted(train, trust=trust)
    with timings.of("data"):
        opened = _open(train.data, recipe.seed, talk, strict=train.strict)
    with timings.of("load"):
        graft = replay(recipe, trust=trust)
    talk.say("load", _weight_of(graft))
    for edit in graft.recipe.edits:
        talk.say(edit.kind(), edit.sentence())
    recipe = graft.recipe.model_copy(update={"preprocess": recipe.preprocess})
    if recipe.preprocess is None:
        recipe = _put(prepared_as(graft, opened, talk.say), recipe, graft, opened, talk)
    return _checked(graft, recipe, opened, timings, talk, loss)


def prepared(graft: Graft, data: Any, settings: Mapping[str, Any]) -> Planned:
    """Make a training plan for a graft as it stands, and check it against its data: whatever `as_data_set` takes.

    Raises:
        DataError, RecipeError: the data or the settings are wrong.
        EditError: the model does not fit the data; carries the findings.
        TrainError: it can't be trained so.
    """
    text = data if isinstance(data, str) else f"object:{type(data).__name__}"
    settings, loss = handed_over(settings)
    check_settings({f"train.{name}": value for name, value in settings.items()})
    asked = TrainPlan.model_validate({"data": text, **settings})
    check_training(asked)
    loss = loss or trusted(asked, trust=True)
    seed = graft.recipe.seed
    opened = (
        _open(data, seed, Talk(), strict=asked.strict) if isinstance(data, str) else as_data_set(data, seed=seed)
    )
    recipe = _drafted(graft, text, opened, settings)
    if recipe.preprocess is None:
        recipe = _put(prepared_as(graft, opened, Talk().say), recipe, graft, opened, Talk())
    return _checked(graft, recipe, opened, Timings(), Talk(), loss)


def _put(preprocess: Prepared, recipe: Recipe, graft: Graft, data: DataSet, talk: Talk) -> Recipe:
    """Put in how inputs are prepared, where nobody has said it yet; of texts, as the training wants them."""
    if isinstance(preprocess, Texts) and recipe.train is not None:
        preprocess, told = lined_up(graft, data, preprocess, recipe.train)
        if told:
            talk.say("texts", told)
    return recipe.model_copy(update={"preprocess": preprocess})


def _open(text: str, seed: int, talk: Talk, *, strict: bool) -> DataSet:
    opened = parse_data(text).open(seed=seed, strict=strict, progress=talk.progress)
    talk.say(
        "data",
        f"{text}: {len(opened.classes)} {_targets(opened)}, {_counted(opened.train)} training and "
        f"{_counted(opened.val)} validation {_inputs(opened)}; split {opened.split}",
    )
    for note in opened.notes:
        talk.say("data", note)
    if opened.skipped:
        count = len(opened.skipped)
        talk.say("skipped", f"{count} sample{'s' if count > 1 else ''} left out, such as {opened.skipped[0]}")
    return opened


def _counted(samples: Samples) -> str:
    """Count samples; those of a stream may be unknown."""
    return "streamed" if isinstance(samples, Stream) and samples.length is None else str(len(samples))


def _targets(data: DataSet) -> str:
    if len(data.classes) == 1:
        return "quantity" if data.task == "regression" else "label"
    return {"labels": "labels", "regression": "quantities", "mask": "classes of pixels"}.get(data.task, "classes")


def _inputs(data: DataSet) -> str:
    if data.kind != "image":
        return "texts" if data.kind == "text" else "tensors"
    return f"images of {data.size[0]}×{data.size[1]}, {'grey' if data.channels == 1 else 'colour'}"


def _weight_of(graft: Graft) -> str:
    count = sum(parameter.numel() for parameter in graft.module.parameters())
    size = "×".join(map(str, graft.input_shape or ()))
    work = f", {_short(graft.trace().macs)} MACs" if graft.trace().mismatch is None else ""
    return f"{graft.recipe.base}: {_short(count)} parameters{work}{f', input {size}' if size else ''}"


def _short(number: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:g}"


# the edits


def _head(data: DataSet, text: str, classes: int | None, own: Mapping[str, Any]) -> Edit:
    """Draft a head that has an output for every class of the data."""
    names = {"names": data.classes} if data.kind == "text" and data.task in ("classes", "labels") else {}
    task = {} if data.task in ("classes", "mask") else {"task": data.task}
    body = {"classes": classes or len(data.classes), **task, **names, **_units(data), **own}
    if body["classes"] < len(data.classes):
        raise DataError(
            f"the data have {len(data.classes)} classes, more than the {body['classes']} asked for",
            where=text,
            hint=f"leave the number of classes out, or ask for {len(data.classes)} or more",
        )
    return kinds()["head"].of(**body)


def _units(data: DataSet) -> dict[str, Any]:
    """Let quantities start at their means in the training samples, and move by their standard deviations."""
    rows = data.train.labels if data.task == "regression" else ()
    if not len(rows):
        return {}
    means = [_rounded(math.fsum(column) / len(rows)) for column in zip(*rows, strict=True)]
    return {"mean": means, "std": [_rounded(one) for one in spread_of(rows)]}


def _rounded(value: float) -> float:
    """Keep four digits: it is a start, and stands in the recipe."""
    return float(f"{value:.4g}")


def _freeze(own: Mapping[str, Any]) -> tuple[Edit, ...]:
    """Freeze what the user asked for; nothing else, since small rates protect the base."""
    return (kinds()["freeze"].of(**own),) if own else ()


def _is_trained(graft: Graft) -> bool:
    return not graft.is_random and not graft.recipe.base.startswith("object:")


# the training plan


def _drafted(graft: Graft, text: str, data: DataSet, own: Mapping[str, Any]) -> Recipe:
    """Draft the training plan from the size of the data and of the base, then put in what the user set."""
    asked = TrainPlan.model_validate({"data": text, **own})
    whole = _pass(data.train, asked)
    count = min(whole, (asked.per_class or whole) * len(data.classes))
    batch = asked.batch if "batch" in own else min(64, max(8, count // 8))
    epochs = min(60, max(5, math.ceil(_STEPS * batch / max(count, 1))))
    drafted: dict[str, Any] = {
        "data": text,
        "epochs": epochs,
        "batch": batch,
        "optimizer": {"adamw": {"lr": 1e-3, "weight_decay": 0.01}},
        **({} if "optimizer" in own else _rates(graft, data.kind)),  # his own rate is that of all
    }
    return graft.recipe.model_copy(update={"train": TrainPlan.model_validate({**drafted, **own})})


def _pass(samples: Samples, plan: TrainPlan) -> int:
    """Count the samples of an epoch; a stream that nobody counted is as long as the steps that are asked for."""
    if isinstance(samples, Stream) and samples.length is None and plan.steps is not None:
        return plan.steps * plan.batch
    return len(samples)


_STEPS = 300
"""So many steps a plan aims at, between 5 and 60 epochs."""


_RATES_OF_TEXTS = {
    "optimizer": {"adamw": {"lr": 5e-5, "weight_decay": 0.01}},
    "groups": [{"at": "head", "lr": 5e-4}],
}
"""Trained transformers take small rates (Devlin et al., 2019: 5e-5 to 2e-5)."""


def _rates(graft: Graft, kind: str) -> dict[str, Any]:
    """Let the new head learn ten times as fast as the trained base (Howard and Ruder, 2018)."""
    if not _is_trained(graft):
        return {}
    if kind == "text":
        return _RATES_OF_TEXTS
    return {
        "optimizer": {"adamw": {"lr": 3e-4, "weight_decay": 0.01}},
        "groups": [{"at": "head", "lr": 3e-3}],
    }


# the check


def _checked(
    graft: Graft, recipe: Recipe, data: DataSet, timings: Timings, talk: Talk, loss: Loss | None
) -> Planned:
    """Judge what is planned; only where it fits does the graft take the recipe over."""
    train, preprocess = recipe.train, recipe.preprocess
    assert train is not None
    with timings.of("check"):
        check_input(graft, data, preprocess, train)
        task = task_for(graft, data, train, loss=loss)
        findings = graft.check(facts=facts_of(graft, data, preprocess))
        findings = (*findings, *faults_of_texts(graft, data, preprocess, findings))
    errors = [finding for finding in findings if finding.is_error]
    talk.say("check", f"{len(errors)} errors, {len(findings) - len(errors)} other findings")
    for finding in findings:
        talk.say("", str(finding))
    if errors:
        raise EditError(
            "the model does not fit the data",
            where=graft.name,
            hint="see the findings; nothing was trained",
            findings=errors,
        )
    check_outputs(graft, data)  # after the findings, which know what would mend it
    unfreezing(graft, train)
    checkpointed_modules(graft.module, train.checkpointing, roles=graft.roles)
    if train.layer_decay is not None:
        talk.say("rates", f"fall by {train.layer_decay:g} from each layer to the one before it")
    for step in train.unfreeze:
        talk.say("unfreeze", step.sentence())
    for word, sentence in _told(data, train, task):
        talk.say(word, sentence)
    graft.recipe = recipe
    if isinstance(preprocess, Texts):
        graft._looks.forget()  # from here on they have their length
    if train.per_class is not None:
        data = replace(data, train=per_class(data.train, train.per_class, recipe.seed))
    return Planned(graft, data, train, preprocess, findings, timings, loss)


def _told(data: DataSet, train: TrainPlan, task: Task) -> Iterator[tuple[str, str]]:
    """Say how even the classes are where they are not, what one step is, and which state is kept."""
    counted = balance(data)
    if counted is not None and (counted.ratio >= UNEVEN or counted.empty or counted.tiny):
        yield "balance", counted.sentence()
    whole = train.batch * train.accumulate
    gathered = f"{train.accumulate} batches of {train.batch} are one step: {whole} samples, the effective batch"
    yield "batch", gathered if train.accumulate > 1 else f"{whole} samples each step"
    if train.keep == "best":
        yield (
            "judge",
            f"the best state is that of the {'highest' if task.higher else 'lowest'} {figure_name(task.metric)}",
        )
