"""What every edit is: a frozen description of one change that knows how to apply itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import PlainSerializer, PlainValidator, ValidationError

from torchgraft.errors import RecipeError, nearest
from torchgraft.family import gather, kind_of
from torchgraft.schema import Schema
from torchgraft.wording import refusal

if TYPE_CHECKING:
    from torchgraft.surgery.journal import Surgery

__all__ = ["AnyEdit", "Edit", "kinds"]


class Edit(Schema, ABC):
    """One change of a model, as data."""

    registry: ClassVar[dict[str, type[Edit]]] = {}
    structural: ClassVar[bool] = True
    """Whether the edit changes what the forward pass computes, so that it must be traced again."""

    needs_fit: ClassVar[bool] = False
    """Whether the edit reads its place off a trace of the whole pass, so that the model must run before it."""

    written: ClassVar[frozenset[str]] = frozenset()
    """The fields that applying the edit writes, for replay; nobody needs to set them."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Edit.registry[cls.kind()] = cls

    @classmethod
    def kind(cls) -> str:
        """The name of the edit in recipes: its class name in small letters."""
        return kind_of(cls.__name__)

    @abstractmethod
    def apply(self, surgery: Surgery) -> Self:
        """Change the model, and give the edit back with every size and place written out."""

    @abstractmethod
    def sentence(self) -> str:
        """Say in words what the edit does."""

    def __eq__(self, other: object) -> bool:
        """Two edits are equal when they say the same, whatever was noted while they were applied."""
        return type(self) is type(other) and isinstance(other, Edit) and self.brief() == other.brief()

    __hash__ = None  # type: ignore[assignment]  # settings may be lists and mappings

    def keys(self) -> Mapping[str, str]:
        """Map new prefixes of state dict keys to the base's: what an edit wrote as `moved`, where it moved any."""
        moved: Mapping[str, str] = getattr(self, "moved", {})
        return moved

    @classmethod
    def settings(cls) -> list[str]:
        """Give the settings that one may make, in their order."""
        named = {name: field.alias or name for name, field in cls.model_fields.items()}
        return [shown for name, shown in named.items() if name not in cls.written]

    @classmethod
    def of(cls, *args: Any, **kwargs: Any) -> Self:
        """Make the edit as the method of a graft does: positional arguments fill the fields in order.

        Raises:
            RecipeError: an argument is unknown, missing or of the wrong type.
        """
        names = [field.alias or name for name, field in cls.model_fields.items()]
        if len(args) > len(names):
            raise RecipeError(f"{cls.kind()} takes at most {len(names)} arguments", where=cls.kind())
        values = dict(zip(names, args, strict=False))
        doubled = sorted(values.keys() & kwargs.keys())
        if doubled:
            raise RecipeError(f"{cls.kind()} got '{doubled[0]}' twice", where=cls.kind())
        try:
            return cls(**values, **kwargs)
        except ValidationError as error:
            raise refusal(error, cls.kind(), cls.settings()) from None


def kinds() -> dict[str, type[Edit]]:
    """Give every edit there is, by kind."""
    gather("torchgraft.edits")
    return dict(sorted(Edit.registry.items()))


def _read(value: Any) -> Edit:
    if isinstance(value, Edit):
        return value
    if not isinstance(value, Mapping) or len(value) != 1:
        raise ValueError("an edit is one key and its settings, such as 'head: {classes: 10}'")
    ((kind, body),) = value.items()
    known = kinds()
    if kind not in known:
        raise ValueError(f"there is no edit '{kind}'; {nearest(str(kind), known) or 'one of ' + ', '.join(known)}")
    if body is not None and not isinstance(body, Mapping):  # one setting alone is the first: `remove: layer4`
        first, field = next(iter(known[kind].model_fields.items()))
        body = {field.alias or first: body}
    return known[kind].model_validate({} if body is None else body)


def _write(edit: Edit) -> dict[str, Any]:
    return {edit.kind(): edit.brief()}


AnyEdit = Annotated[Edit, PlainValidator(_read), PlainSerializer(_write)]
"""An edit in a recipe: one key that names its kind, and its settings."""
