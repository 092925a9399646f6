"""The training plan: every choice of a training, as data, with the default that a practitioner would take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    field_validator,
    model_validator,
)

from torchgraft.params.groups import NO_DECAY
from torchgraft.schema import Count, Flag, Names, Number, Rate, Schema, Share

__all__ = ["Group", "Optimizer", "Schedule", "TrainPlan", "Unfreezing"]


class _Rates(BaseModel):
    """The settings that torchgraft reads itself; torch.optim checks the others."""

    model_config = ConfigDict(extra="allow")

    lr: Rate = 0.0
    weight_decay: Rate = 0.0


class Optimizer(Schema):
    """An optimizer of torch.optim by name in small letters, with its settings."""

    name: str = "adamw"
    settings: dict[str, Any] = Field(default_factory=lambda: {"lr": 1e-3})

    @field_validator("settings")
    @classmethod
    def _rates(cls, settings: dict[str, Any]) -> dict[str, Any]:
        _Rates.model_validate(settings)
        return settings

    @property
    def lr(self) -> float:
        """The default learning rate."""
        return float(self.settings.get("lr", 1e-3))


def _read_optimizer(value: Any) -> Any:
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, Mapping) and len(value) == 1 and "name" not in value:
        ((name, settings),) = value.items()
        return {"name": name, "settings": {} if settings is None else settings}
    if isinstance(value, Mapping) and "name" not in value:
        raise ValueError(f"an optimizer is one key, such as sgd: {{lr: 0.001}}; there are {len(value)} here")
    return value


AnyOptimizer = Annotated[
    Optimizer,
    BeforeValidator(_read_optimizer),
    PlainSerializer(lambda optimizer: {optimizer.name: optimizer.settings}),
]


class Group(Schema):
    """Settings of the parameters that `at` selects; where several groups select one, the last wins.

    What is left out is as the optimizer's own settings say; each name is one of torch.optim's.
    """

    at: Names
    lr: Rate | None = None
    weight_decay: Rate | None = None
    momentum: Rate | None = None
    betas: tuple[Share, Share] | None = None
    eps: Rate | None = None
    alpha: Rate | None = None
    rho: Rate | None = None
    dampening: Rate | None = None
    nesterov: Flag | None = None
    amsgrad: Flag | None = None
    centered: Flag | None = None
    lr_decay: Rate | None = None
    momentum_decay: Rate | None = None

    def settings(self) -> dict[str, Any]:
        """Give what differs from the optimizer's own settings."""
        given = {name: getattr(self, name) for name in type(self).model_fields if name != "at"}
        return {name: value for name, value in given.items() if value is not None}


class Unfreezing(Schema):
    """What training unfreezes, and when; until then it stays as the edits left it.

    Attributes:
        epoch: at whose start `at` is unfrozen; the first is 1.
        at: selectors of what is unfrozen.
        lr: its rate; as the groups of the plan say, where it is left out.
        every: instead: train `from` alone at first, and unfreeze one more layer after so many epochs, from the
            output to the input (Howard and Ruder, 2018, gradual unfreezing).
        from_: what is trained from the start.
    """

    epoch: Annotated[int, Field(strict=True, ge=2)] | None = None
    at: Names = ()
    lr: Rate | None = None
    every: Count | None = None
    from_: Names = Field(("head",), alias="from")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.epoch is None) == (self.every is None) or bool(self.at) == (self.epoch is None):
            raise ValueError("an unfreezing is {epoch: 3, at: layer4}, or {every: 1, from: head}")
        return self

    def sentence(self) -> str:
        """Say what is unfrozen when."""
        if self.every is not None:
            pace = "every epoch" if self.every == 1 else f"every {self.every} epochs"
            return f"{', '.join(self.from_)} alone at first, then one more layer {pace}, the last first"
        what = "everything" if self.at == ("**",) else ", ".join(self.at)
        return f"{what} from epoch {self.epoch}" + (f" at {self.lr:g}" if self.lr is not None else "")


def _read_unfreezing(value: Any) -> Any:
    return [value] if isinstance(value, (Mapping, Unfreezing)) else value


class Schedule(Schema):
    """How the learning rates go over the steps of a training, as shares of the rates that the plan names.

    Attributes:
        name: `cosine` falls to `floor` (Loshchilov and Hutter, 2017); `one_cycle` rises and falls once (Smith and
            Topin, 2018), without a warm-up of its own; `step` falls by `factor` every so many epochs; `plateau`
            falls by `factor` when the validation loss has not fallen for `patience` epochs.
        floor: of `cosine` and `one_cycle`: the share at the end.
        rise: of `one_cycle`: the share of all steps over which the rates rise.
        start: of `one_cycle`: the share at the first step.
        every: of `step`: epochs; a third of all where it is left out.
        factor: of `step` and `plateau`.
        patience: of `plateau`: epochs.
    """

    name: Literal["cosine", "constant", "one_cycle", "step", "plateau"] = "cosine"
    floor: Share = 0.0
    rise: Share = 0.3
    start: Share = 0.04
    every: Count | None = None
    factor: Share = 0.1
    patience: Count = 3

    SETTINGS: ClassVar[dict[str, frozenset[str]]] = {
        "cosine": frozenset({"floor"}),
        "constant": frozenset(),
        "one_cycle": frozenset({"floor", "rise", "start"}),
        "step": frozenset({"every", "factor"}),
        "plateau": frozenset({"factor", "patience"}),
    }

    @model_validator(mode="after")
    def _own_settings(self) -> Self:
        foreign = self.model_fields_set - {"name"} - self.SETTINGS[self.name]
        if foreign:
            known = ", ".join(sorted(self.SETTINGS[self.name])) or "no settings"
            raise ValueError(f"{self.name} has no '{min(foreign)}': it takes {known}")
        return self

    def written(self) -> Any:
        """Give it as it stands in a recipe: the name alone, or the name with its settings."""
        settings = {name: value for name, value in self.brief().items() if name != "name"}
        return {self.name: settings} if settings else self.name

    def __str__(self) -> str:
        return self.name


def _read_schedule(value: Any) -> Any:
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, Mapping) and len(value) == 1 and "name" not in value:
        ((name, settings),) = value.items()
        return {"name": name, **(settings or {})}
    return value


AnySchedule = Annotated[
    Schedule, BeforeValidator(_read_schedule), PlainSerializer(lambda schedule: schedule.written())
]

Transforms = tuple[str | dict[str, dict[str, Any]], ...]
"""Transforms of torchvision v2 by name, each alone or with its settings."""


def _read_transforms(value: Any) -> Any:
    """Read `[RandomHorizontalFlip, {RandomRotation: {degrees: 10}}]`; a word alone is one of the ready choices."""
    if isinstance(value, list):
        return tuple({name: {} if own is None else own for name, own in one.items()}
                     if isinstance(one, Mapping) else one for one in value)  # fmt: skip
    return value


class TrainPlan(Schema):
    """How the edited model is trained.

    Attributes:
        data: a data source, such as `folder:./flowers`.
        epochs: passes over the training samples.
        steps: steps of the optimizer; where it is given, training ends after so many and `epochs` is not asked.
        batch: samples that go through the model at once, over all processes together.
        accumulate: batches of one optimizer step: gradients are those of `batch` × `accumulate` samples, memory is
            that of one batch. BatchNorm sees each batch alone.
        checkpointing: selectors of modules whose activations are computed again in the backward pass instead of
            being kept (Chen et al., 2016); the weights come out the same.
        optimizer: one of torch.optim, or of timm.optim, by name.
        groups: other settings for some parameters.
        layer_decay: the factor by which rates fall from each layer to the one before it; None keeps them alike.
        no_decay: what weight decay spares; `[]` spares nothing.
        unfreeze: what is unfrozen while training goes on.
        schedule: how the learning rates go.
        warmup: the share of all steps over which the rates rise from zero (Goyal et al., 2017).
        clip: the norm that gradients are clipped to (Pascanu et al., 2013); None leaves them.
        clip_value: the size that each number of a gradient is cut off at; None leaves them.
        loss: a loss of torch.nn by name (`SmoothL1Loss`, `HuberLoss(delta=0.5)`), or one of your own
            (`python:pkg.mod:function`, which takes outputs and targets); the loss of the head's task where it is
            left out.
        metric: what the best state is judged by: one of the task's figures, `loss`, or one of torchmetrics
            (`torchmetrics:CohenKappa`); the task's first where it is left out.
        label_smoothing: the share of the target that is spread over all classes (Szegedy et al., 2016).
        class_weights: `balanced` weighs each class by how rare it is, a list gives one weight a class.
        mixup: how strongly images are blended: both parameters of the Beta distribution (Zhang et al., 2018); 0.2
            is usual, 0 is off.
        cutmix: how strongly patches are swapped, likewise (Yun et al., 2019); 1.0 is usual, 0 is off.
        ema: keep a moving average of the weights with this decay, and judge and keep that (Polyak and Juditsky,
            1992).
        early_stop: end after so many epochs without a better validation figure.
        precision: of the forward and backward pass, by torch.amp.
        compile: run the model by torch.compile.
        channels_last: lay images and convolutions out with the channels last.
        augment: how training images are varied; `light` turns, shifts, scales and shears up to a tenth, `trivial`
            is TrivialAugment (Müller and Hutter, 2021), a list names transforms of torchvision v2.
        views: so many fixed variants of each training image, one after the other, instead of a new one each time.
        cache: keep what the frozen part of the network gives: `auto` in memory where it fits and pays, `memory`,
            `disk`, or `off`.
        cache_limit: the most that is kept so, in GiB.
        per_class: train on so many samples a class.
        keep: which state the model holds at the end: that of the best validation figure, or the last.
        save_every: seconds between two saved states, beside that at the end of each epoch.
        parallel: under torchrun: `ddp` copies the model to each process, `fsdp` shares it out.
        timeout: seconds that processes wait for one that does not answer.
        workers: processes that read and transform images.
        strict: refuse data with images that can't be read.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        log: where figures go beside TensorBoard: `wandb`, `mlflow`.
    """

    data: str
    epochs: Count = 10
    steps: Count | None = None
    batch: Count = 32
    accumulate: Count = 1
    checkpointing: Names = ()
    optimizer: AnyOptimizer = Optimizer()
    groups: tuple[Group, ...] = ()
    layer_decay: Annotated[float, Field(strict=True, gt=0, le=1)] | None = None
    no_decay: Names = NO_DECAY
    unfreeze: Annotated[tuple[Unfreezing, ...], BeforeValidator(_read_unfreezing)] = ()
    schedule: AnySchedule = Schedule()
    warmup: Annotated[Number, Field(ge=0, le=1)] = 0.1
    clip: Rate | None = 1.0
    clip_value: Rate | None = None
    loss: str | None = None
    metric: str | None = None
    label_smoothing: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    class_weights: Literal["balanced"] | tuple[Rate, ...] | None = None
    mixup: Rate = 0.0
    cutmix: Rate = 0.0
    ema: Annotated[float, Field(strict=True, gt=0, lt=1)] | None = None
    early_stop: Count | None = None
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: Flag = False
    channels_last: Flag = False
    augment: Annotated[Literal["none", "light", "trivial"] | Transforms, BeforeValidator(_read_transforms)] = (
        "none"
    )
    views: Count | None = None
    cache: Literal["auto", "memory", "disk", "off"] = "auto"
    cache_limit: Annotated[float, Field(strict=True, gt=0)] = 4.0
    per_class: Count | None = None
    keep: Literal["best", "last"] = "best"
    save_every: Annotated[float, Field(strict=True, gt=0)] = 300.0
    parallel: Literal["ddp", "fsdp"] = "ddp"
    timeout: Annotated[float, Field(strict=True, gt=0)] = 600.0
    workers: Annotated[int, Field(strict=True, ge=0)] = 0
    strict: Flag = False
    device: str = "auto"
    log: Names = ()
