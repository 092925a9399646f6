"""The recipe: the one document behind Python, YAML, the command line and the web page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    field_validator,
    model_validator,
)

from torchgraft import yamlfile
from torchgraft.edits.base import AnyEdit
from torchgraft.errors import RecipeError, StoreError, nearest
from torchgraft.fault import in_document
from torchgraft.params.groups import NO_DECAY
from torchgraft.preprocess import Preprocess
from torchgraft.schema import Count, Flag, Names, Number, Rate, Schema, Share

__all__ = ["Group", "Optimizer", "Recipe", "TrainPlan", "Unfreezing", "is_recipe"]


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


class TrainPlan(Schema):
    """How the edited model is trained.

    Attributes:
        data: a data source, such as `folder:./flowers`.
        epochs: passes over the training samples.
        batch: samples that go through the model at once.
        accumulate: batches of one optimizer step: gradients are those of `batch` × `accumulate` samples, memory is
            that of one batch. BatchNorm sees each batch alone.
        checkpointing: selectors of modules whose activations are computed again in the backward pass instead of
            being kept (Chen et al., 2016); the weights come out the same.
        optimizer: one of torch.optim, by name.
        groups: other settings for some parameters.
        layer_decay: the factor by which rates fall from each layer to the one before it; None keeps them alike.
        no_decay: what weight decay spares; `[]` spares nothing.
        unfreeze: what is unfrozen while training goes on.
        schedule: how the learning rates go down; cosine ends at zero (Loshchilov and Hutter, 2017).
        warmup: the share of all steps over which the rates rise from zero (Goyal et al., 2017).
        clip: the norm that gradients are clipped to; None leaves them.
        label_smoothing: the share of the target that is spread over all classes (Szegedy et al., 2016).
        precision: of the forward and backward pass, by torch.amp.
        augment: how training images are varied; `light` turns, shifts, scales and shears up to a tenth.
        per_class: train on so many samples a class.
        keep: which state the model holds at the end: that of the best validation accuracy, or the last.
        workers: processes that read and transform images.
        strict: refuse data with images that can't be read.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
    """

    data: str
    epochs: Count = 10
    batch: Count = 32
    accumulate: Count = 1
    checkpointing: Names = ()
    optimizer: AnyOptimizer = Optimizer()
    groups: tuple[Group, ...] = ()
    layer_decay: Annotated[float, Field(strict=True, gt=0, le=1)] | None = None
    no_decay: Names = NO_DECAY
    unfreeze: Annotated[tuple[Unfreezing, ...], BeforeValidator(_read_unfreezing)] = ()
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: Annotated[Number, Field(ge=0, le=1)] = 0.1
    clip: Rate | None = 1.0
    label_smoothing: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    augment: Literal["none", "light"] = "none"
    per_class: Count | None = None
    keep: Literal["best", "last"] = "best"
    workers: Annotated[int, Field(strict=True, ge=0)] = 0
    strict: Flag = False
    device: str = "auto"


def is_recipe(target: str) -> bool:
    """Tell whether a name stands for a recipe file."""
    return Path(target).suffix in (".yaml", ".yml")


class Recipe(Schema):
    """Base, input, edits and training plan: everything it takes to make the model again.

    Attributes:
        torchgraft: the version of the schema.
        base: a source, such as `torchvision:resnet18@IMAGENET1K_V1`.
        input: the shape of one input of the base, without the batch.
        seed: what new weights, splits and orders are drawn from.
        edits: the changes, in order.
        preprocess: how images become tensors; the base's own when left out.
        train: the training plan.
    """

    torchgraft: Literal[1] = 1
    base: str
    input: tuple[Count, ...] | None = None
    seed: Annotated[int, Field(strict=True, ge=0, le=2**32 - 1)] = 0
    edits: tuple[AnyEdit, ...] = ()
    preprocess: Preprocess | None = None
    train: TrainPlan | None = None

    @property
    def title(self) -> str:
        """What the base is called in messages: its name without scheme and weights."""
        return self.base.partition(":")[2].partition("@")[0] or self.base

    @classmethod
    def from_yaml(cls, text: str, *, name: str = "recipe.yaml") -> Recipe:
        """Read a recipe.

        Raises:
            RecipeError: not YAML, an unknown key, a wrong type; says the line.
        """
        document = yamlfile.read(text, name)
        if not isinstance(document.data, dict):
            raise RecipeError(
                "a recipe is a mapping with at least a base",
                where=f"{name}:1",
                hint="base: torchvision:resnet18",
            )
        try:
            return cls.model_validate({"torchgraft": 1, **document.data})
        except ValidationError as error:
            raise in_document(error, cls, document) from None

    @classmethod
    def read(cls, path: str | Path) -> Recipe:
        """Read a recipe from a file.

        Raises:
            RecipeError: there is no such file, or it can't be read.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            near = nearest(path.name, [one.name for one in path.parent.glob("*.y*ml")])
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise RecipeError(
                f"the recipe can't be read: {reason}", where=str(path), hint=near or "check the path"
            ) from error
        return cls.from_yaml(text, name=str(path))

    def write(self, path: str | Path) -> None:
        """Write the recipe to a file.

        Raises:
            StoreError: it can't be written there.
        """
        try:
            Path(path).write_text(self.to_yaml(), encoding="utf-8")
        except OSError as error:
            raise StoreError(
                f"the recipe can't be written: {error.strerror}",
                where=str(path),
                hint="choose a folder of your own",
            ) from error

    @staticmethod
    def value(text: str) -> Any:
        """Read one value as it would stand in a recipe; what is not YAML is taken as the plain text."""
        return yamlfile.value(text)

    def to_yaml(self) -> str:
        """Write the recipe, without what is at its default."""
        data = {"torchgraft": self.torchgraft, **self.brief()}
        return yamlfile.dump(data)

    def base_name(self, name: str) -> str:
        """Give the base's name for a state dict key of the edited model."""
        for edit in reversed(self.edits):
            for new, old in edit.keys().items():
                if name == new or name.startswith(f"{new}."):
                    name = old + name[len(new) :]
        return name
