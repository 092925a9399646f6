"""How a text becomes numbers of tokens, as data: the same for training, validation and prediction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from torchgraft.schema import Count, Schema

__all__ = ["Texts", "Tokens"]


class Tokens(Schema):
    """A text as numbers of tokens.

    Attributes:
        max_length: tokens of a text at most, those that the tokenizer adds included; what is over is cut off.
        padding: what a batch is filled up to: its longest text, or `max_length`, so that a text has the same
            shape in every batch and what a frozen part gives for it can be kept.
        tokenizer: where it lies: a folder, or a name on the hub; that which came with the base when left out.
        digest: of its words and of what it makes of a few texts; written when training is planned, so that
            another tokenizer in its place is noticed.
    """

    max_length: Count
    padding: Literal["longest", "max_length"] = "longest"
    tokenizer: str | None = None
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]*$")] = ""


class Texts(Schema):
    """Texts are prepared, not images."""

    tokens: Tokens

    @model_validator(mode="before")
    @classmethod
    def _alone(cls, value: Any) -> Any:
        beside = sorted(map(str, value.keys() - {"tokens"})) if isinstance(value, Mapping) else []
        if beside:
            raise ValueError(f"texts are prepared by 'tokens' alone, without '{beside[0]}'")
        return value
