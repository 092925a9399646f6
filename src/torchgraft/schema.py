"""The strict base of everything that stands in a recipe."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

__all__ = ["Count", "Flag", "Name", "Names", "Number", "Places", "Rate", "Schema", "Share"]


class Schema(BaseModel):
    """A frozen value that knows all its keys: an unknown key or a wrong type is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, validate_default=False)

    def brief(self) -> dict[str, Any]:
        """Give the value as plain data, without what is at its default."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def _several(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Count = Annotated[int, Field(strict=True, ge=1)]
Number = Annotated[float, Field(strict=True)]
Rate = Annotated[float, Field(strict=True, ge=0)]
Flag = Annotated[bool, Field(strict=True)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[^.\s]+$")]
"""The name of one module within its parent: no dots."""
Names = Annotated[tuple[str, ...], BeforeValidator(_several)]
"""One name or a list of names."""
Places = Annotated[tuple[str, ...], BeforeValidator(_several), Field(min_length=1)]
"""One selector or a list of them, which is not empty: nothing named is not everything."""
