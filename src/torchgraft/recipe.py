"""The recipe: the one document behind Python, YAML, the command line and the web page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, PlainSerializer, ValidationError

from torchgraft.edits.base import AnyEdit, kinds
from torchgraft.errors import RecipeError, nearest
from torchgraft.preprocess import Preprocess
from torchgraft.schema import Count, Flag, Names, Number, Rate, Schema

__all__ = ["Group", "Optimizer", "Recipe", "TrainPlan"]


class Optimizer(Schema):
    """An optimizer of torch.optim by name in small letters, with its settings."""

    name: str = "adamw"
    settings: dict[str, Any] = Field(default_factory=lambda: {"lr": 1e-3})

    @property
    def lr(self) -> float:
        """The default learning rate."""
        return float(self.settings.get("lr", 1e-3))


def _read_optimizer(value: Any) -> Any:
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, Mapping) and len(value) == 1 and "name" not in value:
        ((name, settings),) = value.items()
        return {"name": name, "settings": settings or {}}
    return value


AnyOptimizer = Annotated[
    Optimizer,
    BeforeValidator(_read_optimizer),
    PlainSerializer(lambda optimizer: {optimizer.name: optimizer.settings}),
]


class Group(Schema):
    """Settings of the parameters that `at` selects; where several groups select one, the last wins."""

    at: Names
    lr: Rate | None = None
    weight_decay: Rate | None = None

    def settings(self) -> dict[str, float]:
        """Give what differs from the optimizer's own settings."""
        return {key: value for key, value in self.brief().items() if key != "at"}


class TrainPlan(Schema):
    """How the edited model is trained.

    Attributes:
        data: a data source, such as `folder:./flowers`.
        epochs: passes over the training samples.
        batch: samples in one step.
        optimizer: one of torch.optim, by name.
        groups: other settings for some parameters.
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
    optimizer: AnyOptimizer = Optimizer()
    groups: tuple[Group, ...] = ()
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
    seed: Annotated[int, Field(strict=True)] = 0
    edits: tuple[AnyEdit, ...] = ()
    preprocess: Preprocess | None = None
    train: TrainPlan | None = None

    @classmethod
    def from_yaml(cls, text: str, *, name: str = "recipe.yaml") -> Recipe:
        """Read a recipe.

        Raises:
            RecipeError: not YAML, an unknown key, a wrong type; says the line.
        """
        try:
            node = yaml.compose(text, Loader=_Loader)
            data = yaml.load(text, Loader=_Loader)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = mark.line + 1 if mark else 1
            problem = getattr(error, "problem", None) or str(error)
            raise RecipeError(
                f"this is not YAML: {problem}",
                where=f"{name}:{line}",
                hint="correct the line, or the one before",
            ) from None
        if not isinstance(data, dict):
            raise RecipeError(
                "a recipe is a mapping with at least a base",
                where=f"{name}:1",
                hint="base: torchvision:resnet18",
            )
        try:
            return cls.model_validate({"torchgraft": 1, **data})
        except ValidationError as error:
            raise _told(error, node, name) from None

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

    @staticmethod
    def value(text: str) -> Any:
        """Read one value as it would stand in a recipe; raises yaml.YAMLError."""
        return yaml.load(text, Loader=_Loader)

    def to_yaml(self) -> str:
        """Write the recipe, without what is at its default."""
        data = {"torchgraft": self.torchgraft, **self.brief()}
        return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)

    def base_name(self, name: str) -> str:
        """Give the base's name for a state dict key of the edited model."""
        for edit in reversed(self.edits):
            for new, old in edit.keys().items():
                if name == new or name.startswith(f"{new}."):
                    name = old + name[len(new) :]
        return name


class _Loader(yaml.SafeLoader):
    """YAML 1.2's numbers and booleans: `1e-3` is a number, `on` and `no` are words."""


def _resolvers() -> dict[str, list[tuple[str, Any]]]:
    import re

    kept = {"tag:yaml.org,2002:null", "tag:yaml.org,2002:merge"}
    table = {
        first: [(tag, pattern) for tag, pattern in pairs if tag in kept]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    number = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|^[-+]?\.(inf|Inf)$|^\.(nan|NaN)$")
    for first in "-+0123456789":
        table.setdefault(first, []).append(("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$")))
    for first in "-+.0123456789":
        table.setdefault(first, []).append(("tag:yaml.org,2002:float", number))
    for first in "tTfF":
        table.setdefault(first, []).append(("tag:yaml.org,2002:bool", re.compile(r"^(true|True|false|False)$")))
    return table


_Loader.yaml_implicit_resolvers = _resolvers()


def _integer(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))  # in base ten, whatever it begins with


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)


class _Dumper(yaml.SafeDumper):
    """Block style outside, flow style for lists of plain values and small mappings within an edit."""


def _sequence(dumper: yaml.SafeDumper, items: list[Any]) -> yaml.Node:
    plain = all(not isinstance(item, (dict, list)) for item in items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=plain)


def _mapping(dumper: yaml.SafeDumper, items: dict[str, Any]) -> yaml.Node:
    plain = all(not isinstance(item, dict) for item in items.values()) and len(items) > 0
    short = plain and len(str(items)) < 80 and not any(isinstance(i, list) and len(i) > 6 for i in items.values())
    return dumper.represent_mapping("tag:yaml.org,2002:map", items, flow_style=bool(short))


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    odd = any(character in "\x85\u2028\u2029\ufeff" for character in text)  # PyYAML reads these as line ends
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if odd else None)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(list, _sequence)
_Dumper.add_representer(dict, _mapping)


def _told(error: ValidationError, node: Any, name: str) -> RecipeError:
    """Turn the first validation error into what, where with the line, and what to do."""
    # A misspelt key is the cause of the key that is missing beside it.
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    loc = tuple(first["loc"])
    path, line, kind = _walk(node, loc)
    if first["type"] == "extra_forbidden":
        known = _fields_at(loc, kind)
        return RecipeError(
            f"there is no key '{loc[-1]}'",
            where=f"{name}:{line}",
            hint=nearest(str(loc[-1]), known) or f"one of {', '.join(known)}",
        )
    if first["type"] == "missing":
        return RecipeError(f"'{loc[-1]}' is missing", where=f"{name}:{line}", hint=f"add {path}: …")
    message = first["msg"].removeprefix("Value error, ")
    given = first.get("input")
    shown = f", not {given!r}" if isinstance(given, (str, int, float, bool)) and "'" not in message else ""
    return RecipeError(
        f"{path or 'the recipe'}: {message}{shown}", where=f"{name}:{line}", hint="correct that line"
    )


def _walk(node: Any, loc: tuple[str | int, ...]) -> tuple[str, int, str]:
    """Follow the place of an error through the YAML nodes, as deep as they go.

    The key that names an edit's kind stands in the YAML, but not in the place: it is stepped over and given back.
    """
    line, kind = 1, ""
    for part in loc:
        keys = _keys(node)
        if part not in keys and len(keys) == 1:
            ((kind, (line, node)),) = keys.items()
            keys = _keys(node)
        if part in keys:
            line, node = keys[str(part)]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return ".".join(str(part) for part in loc), line, kind


def _keys(node: Any) -> dict[str, tuple[int, Any]]:
    """Give the line and the value of each key of a YAML mapping."""
    if not isinstance(node, yaml.MappingNode):
        return {}
    return {str(key.value): (key.start_mark.line + 1, value) for key, value in node.value}


def _fields_at(loc: tuple[str | int, ...], kind: str) -> list[str]:
    """Name the keys that are known where an unknown one was found."""
    owners: dict[str, type[Schema]] = {"train": TrainPlan, "preprocess": Preprocess}
    owner: type[Schema] = owners.get(str(loc[0]), Recipe)
    if loc[0] == "edits":
        owner = kinds().get(kind, Recipe)
    elif "groups" in loc[1:-1]:
        owner = Group
    return [field.alias or name for name, field in owner.model_fields.items()]
