"""Pad: the token that fills batches of texts up to one length, told to the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from torchgraft.edits.base import Edit
from torchgraft.errors import EditError
from torchgraft.surgery.told import Told

if TYPE_CHECKING:
    from torchgraft.surgery.journal import Surgery

__all__ = ["Pad", "pads"]

Token = Annotated[int, Field(strict=True, ge=0)]


class Pad(Edit):
    """Tell a language model which token fills up short texts.

    A classifier of transformers that reads the last token of a text, such as GPT-2's, finds it by this token, and
    takes no batch of more than one text without. Weights are not changed.

    Attributes:
        token: its number, less than the number of words.
    """

    token: Token

    def apply(self, surgery: Surgery) -> Pad:
        """Write it into every configuration that names such a token.

        Raises:
            EditError: there is none, or the number is of no word.
        """
        told = [one for one in Told(surgery.model).configs if "pad_token_id" in vars(one)]
        if not told:
            raise EditError(
                "no configuration of the model names a token that fills up",
                where="pad",
                hint="only models of transformers that read texts have one",
            )
        words = [count for one in told if isinstance(count := getattr(one, "vocab_size", None), int)]
        if words and self.token >= max(words):
            raise EditError(
                f"there is no token {self.token}: the model has {max(words)}",
                where="pad",
                hint=f"give a number from 0 to {max(words) - 1}, such as tokenizer.eos_token_id",
            )
        for config in told:
            surgery.set(config, "pad_token_id", self.token)
        return self

    def sentence(self) -> str:
        """Say what fills up."""
        return f"short texts are filled up with token {self.token}"


def pads(model: Any) -> list[int | None]:
    """Give the token that each configuration of a model names to fill up with; empty where none speaks of it."""
    return [vars(one)["pad_token_id"] for one in Told(model).configs if "pad_token_id" in vars(one)]
