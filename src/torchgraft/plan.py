"""Plan the main job: load a base, fit its head and input to the data, choose what is trained and how.

Every choice stands in the recipe. `--set path=value` overrides one: `train.batch=16`, `head.hidden=[512]`,
`freeze.all_but=head`, `input=[3, 64, 64]`, `preprocess.resize=256`, `seed=3`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

from torchgraft.data import DataSet, parse_data
from torchgraft.data.base import per_class
from torchgraft.edits.base import kinds
from torchgraft.errors import DataError, EditError, RecipeError, nearest
from torchgraft.graft import Graft, load, replay
from torchgraft.preprocess import Preprocess
from torchgraft.recipe import Recipe, TrainPlan
from torchgraft.rules import Finding
from torchgraft.rules.rule import DataFacts

__all__ = ["Planned", "Talk", "Timings", "plan", "planned", "prepared", "settings_of"]


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
    """A model that is ready to be trained, and the data for it."""

    graft: Graft
    data: DataSet
    train: TrainPlan
    preprocess: Preprocess
    findings: tuple[Finding, ...] = ()
    timings: Timings = field(default_factory=Timings)

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
    """
    talk, given, timings = talk or Talk(), dict(settings or {}), Timings()
    seed = int(given.pop("seed", 0))
    with timings.of("load"):
        graft = load(base, input=given.pop("input", None), seed=seed, trust=trust)
    talk.say("load", _weight_of(graft))
    with timings.of("data"):
        opened = _open(data, given, seed, talk)
    with timings.of("plan"):
        _check_classes(classes, opened, data)
        preprocess = _fit_input(graft, opened, given, talk)
        _apply(graft, "head", {"classes": classes or len(opened.classes)}, given, talk)
        _freeze(graft, opened, given, talk)
        drafted = _drafted(graft, data, opened, given)
    _refuse_unknown(given)
    graft.recipe = drafted.model_copy(update={"preprocess": preprocess, "edits": graft.recipe.edits})
    return _checked(graft, opened, preprocess, timings, talk)


def planned(recipe: Recipe, *, trust: bool = False, talk: Talk | None = None) -> Planned:
    """Make what a recipe says, and open its data.

    Raises:
        RecipeError: the recipe does not say how to train.
        SourceError, DataError, EditError: what it names can't be had or does not fit.
    """
    talk, timings = talk or Talk(), Timings()
    if recipe.train is None:
        raise RecipeError("the recipe does not say how to train", where="train", hint="train: {data: folder:…}")
    with timings.of("load"):
        graft = replay(recipe, trust=trust)
    talk.say("load", _weight_of(graft))
    for edit in graft.recipe.edits:
        talk.say(edit.kind(), edit.sentence())
    with timings.of("data"):
        opened = _open(recipe.train.data, {"train.strict": recipe.train.strict}, recipe.seed, talk)
    preprocess = recipe.preprocess or _preprocess_of(graft)
    graft.recipe = graft.recipe.model_copy(update={"preprocess": preprocess})
    return _checked(graft, opened, preprocess, timings, talk)


def prepared(graft: Graft, data: str | DataSet, settings: Mapping[str, Any]) -> Planned:
    """Make a training plan for a graft as it stands, and check it against its data.

    Raises:
        DataError, RecipeError: the data or the settings are wrong.
        EditError: the model does not fit the data; carries the findings.
    """
    text = data if isinstance(data, str) else "object:DataSet"
    given = {f"train.{name}": value for name, value in settings.items()}
    opened = _open(data, given, graft.recipe.seed, Talk()) if isinstance(data, str) else data
    preprocess = graft.recipe.preprocess or _preprocess_of(graft)
    drafted = _drafted(graft, text, opened, given)
    edits = graft.recipe.edits
    graft.recipe = drafted.model_copy(update={"preprocess": preprocess, "edits": edits})
    return _checked(graft, opened, preprocess, Timings(), Talk())


def settings_of(texts: list[str] | tuple[str, ...]) -> dict[str, Any]:
    """Read `path=value` texts; values are YAML.

    Raises:
        RecipeError: a text has no `=`, or its value is not YAML.
    """
    settings: dict[str, Any] = {}
    for text in texts:
        path, equals, value = text.partition("=")
        if not equals:
            raise RecipeError(f"'{text}' sets nothing", where=f"--set {text}", hint="write path=value")
        try:
            settings[path.strip()] = Recipe.value(value)
        except yaml.YAMLError:
            raise RecipeError(
                f"'{value}' is not YAML", where=f"--set {text}", hint="quote it, or write [a, b]"
            ) from None
    return settings


def _open(text: str, given: Mapping[str, Any], seed: int, talk: Talk) -> DataSet:
    strict = bool(given.get("train.strict", False))
    opened = parse_data(text).open(seed=seed, strict=strict, progress=talk.progress)
    talk.say(
        "data",
        f"{text}: {len(opened.classes)} classes, {len(opened.train)} training and {len(opened.val)} validation "
        f"images of {opened.size[0]}×{opened.size[1]}, {'grey' if opened.channels == 1 else 'colour'}; "
        f"split {opened.split}",
    )
    if opened.skipped:
        count = len(opened.skipped)
        talk.say(
            "skipped", f"{count} file{'s' if count > 1 else ''} that can't be read, such as {opened.skipped[0]}"
        )
    return opened


def _weight_of(graft: Graft) -> str:
    count = sum(parameter.numel() for parameter in graft.module.parameters())
    size = "×".join(map(str, graft.input_shape or ()))
    work = f", {_short(graft.trace().macs)} MACs" if graft.trace().mismatch is None else ""
    return f"{graft.recipe.base}: {_short(count)} parameters{work}, input {size}"


def _short(number: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:g}"


def _check_classes(classes: int | None, data: DataSet, text: str) -> None:
    if classes is not None and classes < len(data.classes):
        raise DataError(
            f"the data have {len(data.classes)} classes, more than the {classes} asked for",
            where=text,
            hint=f"leave --classes out, or set it to {len(data.classes)} or more",
        )


# the input


def _preprocess_of(graft: Graft) -> Preprocess:
    """Take the base's own preparation of images, or a plain one for its input."""
    shape = graft.input_shape
    if shape is None or len(shape) != 3 or shape[0] not in (1, 3):
        raise EditError(
            f"{graft.name} does not take images: its input is {list(shape or ())}",
            where=graft.recipe.base,
            hint="say the shape: --set input=[3, 224, 224]",
        )
    channels: Literal[1, 3] = 1 if shape[0] == 1 else 3
    size = (shape[1], shape[2])
    known = graft.preprocess or Preprocess(size=size)
    fitted = known if known.size == size else known.with_size(size)
    return fitted.with_channels(channels)


def _fit_input(graft: Graft, data: DataSet, given: dict[str, Any], talk: Talk) -> Preprocess:
    """Make the base take the data's channels, or convert the images where it can't."""
    own = graft.input_shape
    if own is not None and len(own) == 3 and own[0] != data.channels:
        try:
            if getattr(graft.module, "transform_input", False):
                raise EditError("the model picks single colours out of its input")
            _apply(graft, "input", {"channels": data.channels}, given, talk)
        except EditError as error:
            talk.say("input", f"kept at {own[0]} channels, the images are converted: {error.what}")
    preprocess = _uncropped(_preprocess_of(graft), data)
    changed = {key.partition(".")[2]: given.pop(key) for key in list(given) if key.startswith("preprocess.")}
    if changed:
        preprocess = _valid(Preprocess, {**preprocess.model_dump(), **changed}, "preprocess")
    shown = "×".join(map(str, preprocess.size))
    talk.say(
        "images",
        f"{'stretched' if preprocess.resize is None else 'cropped'} to {shown}, normalised as the base's",
    )
    return preprocess


def _uncropped(preprocess: Preprocess, data: DataSet) -> Preprocess:
    """Cut no border off images that are smaller than the input: they are framed tightly already."""
    small = max(data.size) <= min(preprocess.size)
    return preprocess.model_copy(update={"resize": None}) if small else preprocess


# the edits


def _apply(graft: Graft, kind: str, body: dict[str, Any], given: dict[str, Any], talk: Talk) -> None:
    """Apply one edit of the plan, with what the user set for it."""
    prefix = f"{kind}."
    own = {key[len(prefix) :]: given.pop(key) for key in list(given) if key.startswith(prefix)}
    graft.apply(kinds()[kind].of(**{**body, **own}))
    talk.say(kind, graft.recipe.edits[-1].sentence())


def _freeze(graft: Graft, data: DataSet, given: dict[str, Any], talk: Talk) -> None:
    """Freeze what the user asked for; nothing else, since small rates protect the base."""
    if any(key.startswith("freeze.") for key in given):
        _apply(graft, "freeze", {}, given, talk)


def _is_trained(graft: Graft) -> bool:
    return not graft.recipe.base.endswith("@none") and not graft.recipe.base.startswith("object:")


# the training plan


def _drafted(graft: Graft, text: str, data: DataSet, given: dict[str, Any]) -> Recipe:
    """Draft the training plan from the size of the data and of the base, then put in what the user set."""
    own = {key.partition(".")[2]: given.pop(key) for key in list(given) if key.startswith("train.")}
    asked: TrainPlan = _valid(TrainPlan, {"data": text, **own}, "train")
    count = min(len(data.train), (asked.per_class or len(data.train)) * len(data.classes))
    batch = asked.batch if "batch" in own else min(64, max(8, count // 8))
    epochs = min(60, max(5, math.ceil(_STEPS * batch / max(count, 1))))
    drafted: dict[str, Any] = {
        "data": text,
        "epochs": epochs,
        "batch": batch,
        "optimizer": {"adamw": {"lr": 1e-3, "weight_decay": 0.01}},
        **_rates(graft),
    }
    return graft.recipe.model_copy(update={"train": TrainPlan.model_validate({**drafted, **own})})


_STEPS = 400
"""So many steps a plan aims at, between 5 and 60 epochs."""


def _rates(graft: Graft) -> dict[str, Any]:
    """Let the new head learn ten times as fast as the trained base (Howard and Ruder, 2018)."""
    if not _is_trained(graft):
        return {}
    return {
        "optimizer": {"adamw": {"lr": 3e-4, "weight_decay": 0.01}},
        "groups": [{"at": "head", "lr": 3e-3}],
    }


def _valid(cls: Any, values: Mapping[str, Any], place: str) -> Any:
    """Validate what the user set, and say which setting is wrong."""
    from pydantic import ValidationError

    try:
        return cls.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        path = path if path.startswith(place) else f"{place}.{path}"
        owner = TrainPlan if place == "train" else Preprocess
        hint = nearest(path.rpartition(".")[2], owner.model_fields)
        what = "there is no such setting" if first["type"] == "extra_forbidden" else first["msg"]
        raise RecipeError(
            f"{path}: {what}",
            where=f"--set {path}=…",
            hint=hint if first["type"] == "extra_forbidden" and hint else "torchgraft adapt --help lists them",
        ) from None


def _refuse_unknown(given: Mapping[str, Any]) -> None:
    for path in given:
        known = ["train", "preprocess", "input", "seed", *kinds()]
        raise RecipeError(
            f"'{path}' can't be set here",
            where=f"--set {path}=…",
            hint=nearest(path.partition(".")[0], known) or f"paths begin with {', '.join(known)}",
        )


# the check


def _checked(graft: Graft, data: DataSet, preprocess: Preprocess, timings: Timings, talk: Talk) -> Planned:
    train = graft.recipe.train
    assert train is not None
    with timings.of("check"):
        findings = graft.check(_facts(graft, data, preprocess))
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
    if train.per_class is not None:
        data = _fewer(data, per_class(data.train, train.per_class, graft.recipe.seed))
    return Planned(graft, data, train, preprocess, findings, timings)


def _fewer(data: DataSet, train: Any) -> DataSet:
    from dataclasses import replace

    return replace(data, train=train)


def _facts(graft: Graft, data: DataSet, preprocess: Preprocess) -> DataFacts:
    labels = [*data.train.labels, *data.val.labels]
    counts = [0] * len(data.classes)
    for label in data.train.labels:
        if 0 <= label < len(counts):
            counts[label] += 1
    known = graft.preprocess.with_channels(preprocess.channels) if graft.preprocess else None
    return DataFacts(
        classes=len(data.classes),
        labels=(min(labels), max(labels)),
        counts=tuple(counts),
        normalisation=(preprocess.mean, preprocess.std),
        trained_with=(known.mean, known.std) if known else None,
    )
