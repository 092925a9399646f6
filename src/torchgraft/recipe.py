"""The recipe: the one document behind Python, YAML, the command line and the web page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, ValidationError

from torchgraft import yamlfile
from torchgraft.edits.base import AnyEdit
from torchgraft.errors import RecipeError, StoreError, nearest
from torchgraft.fault import in_document
from torchgraft.preprocess import Preprocess
from torchgraft.schema import Count, Schema
from torchgraft.tokens import Texts
from torchgraft.trainplan import Group, Optimizer, Schedule, TrainPlan, Unfreezing

__all__ = ["AnyPreprocess", "Group", "Optimizer", "Recipe", "Schedule", "TrainPlan", "Unfreezing", "is_recipe"]


def _prepares(value: Any) -> str:
    """Tell whether a preparation is that of texts or of images."""
    return "texts" if isinstance(value, Texts) or (isinstance(value, Mapping) and "tokens" in value) else "images"


AnyPreprocess = Annotated[
    Annotated[Preprocess, Tag("images")] | Annotated[Texts, Tag("texts")], Discriminator(_prepares)
]
"""How images become tensors, or texts tokens."""


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
        preprocess: how images become tensors, the base's own when left out; or how texts become tokens.
        train: the training plan.
    """

    torchgraft: Literal[1] = 1
    base: str
    input: tuple[Count, ...] | None = None
    seed: Annotated[int, Field(strict=True, ge=0, le=2**32 - 1)] = 0
    edits: tuple[AnyEdit, ...] = ()
    preprocess: AnyPreprocess | None = None
    train: TrainPlan | None = None

    @property
    def title(self) -> str:
        """What the base is called in messages: its name without scheme, weights and class."""
        return self.base.partition(":")[2].partition("#")[0].partition("@")[0] or self.base

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
