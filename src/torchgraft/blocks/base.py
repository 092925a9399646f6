"""What every block is: a frozen description with sizes that may be left open, which builds a plain module."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import ValidationError, model_validator

from torchgraft.errors import EditError, RecipeError, nearest
from torchgraft.family import gather
from torchgraft.schema import Schema
from torchgraft.wording import refusal

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Block", "Start", "refused"]

Start = Literal["identity"] | None
"""How a block starts: newly initialised, or so that it gives just what it takes."""


class Block(Schema, ABC):
    """A module as data. Sizes that the place determines are None until `fitted` reads them off a shape."""

    registry: ClassVar[dict[str, type[Block]]] = {}

    parts: ClassVar[tuple[str, ...]] = ()
    """The fields that hold descriptions of modules: each is built for what the block is given."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Block.registry[cls.__name__] = cls

    def __init__(self, **given: Any) -> None:
        """Describe a block.

        Raises:
            RecipeError: a setting is unknown, missing or of the wrong type.
        """
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise refusal(error, type(self).__name__, list(type(self).model_fields)) from None

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # so reading a recipe does not come by here

    @model_validator(mode="before")
    @classmethod
    def _starts(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and "start" in value and "start" not in cls.model_fields:
            raise ValueError(
                f"{cls.__name__} can't start as the identity: what it gives has another shape or meaning than "
                "what it takes; leave start out"
            )
        return value

    @abstractmethod
    def fitted(self, shape: tuple[int, ...]) -> Block:
        """Fill open sizes from the shape of the tensor that arrives, batch included."""

    @abstractmethod
    def build(self) -> nn.Module:
        """Build the plain module, newly initialised from torch's global generator."""

    def __str__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{key}={value}' for key, value in self.brief().items())})"

    @staticmethod
    def named(name: str) -> type[Block]:
        """Look a block up by its class name.

        Raises:
            RecipeError: there is no such block.
        """
        gather("torchgraft.blocks")
        if name not in Block.registry:
            raise RecipeError(
                f"there is no block '{name}'",
                where=f"block.{name}",
                hint=nearest(name, Block.registry) or f"one of {', '.join(sorted(Block.registry))}",
            )
        return Block.registry[name]


def refused(block: Block, why: str, hint: str) -> EditError:
    """Make the error that a block raises; whoever builds it knows the place."""
    kind = type(block).__name__
    return EditError(f"{kind} {why}", where=f"block.{kind}", hint=hint)
