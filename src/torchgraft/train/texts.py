"""Texts on their way into a model: read by its tokenizer one by one, filled up batch by batch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchgraft.edits.pad import pads
from torchgraft.errors import RecipeError
from torchgraft.probes.arguments import taken

if TYPE_CHECKING:
    from torch import nn

    from torchgraft.graft import Graft
    from torchgraft.tokens import Tokens

__all__ = ["Reader", "digest_of", "reader_of", "tokenizer_of"]

_TYPES = "token_type_ids"

_PROBES = ("The quick brown fox.", "naïve CAFÉ\t1234 — ", "数据 🙂\n")
"""Texts by which two tokenizers of the same words are told apart: cases, accents, blanks, other scripts."""

_DIGITS = 16
"""Of a digest: enough to notice that something changed."""


@dataclass(frozen=True)
class Reader:
    """A tokenizer as a model wants it. A text is read alike in whatever batch it stands.

    Attributes:
        tokenizer: of transformers.
        max_length: tokens of one text at most.
        fill: what each input is filled up with, by its name; `input_ids` is the first.
        masked: whether the model takes an attention mask.
        left: whether the filling stands before the text.
        blank: the token that stands for a text of which nothing is left.
        whole: every batch is filled up to `max_length`.
    """

    tokenizer: Any
    max_length: int
    fill: dict[str, int]
    masked: bool = True
    left: bool = False
    blank: int = 0
    whole: bool = False

    def prepare(self, text: str) -> tuple[list[int], ...]:
        """Cut a text into tokens: one list of numbers for each input that is filled up, all of one length."""
        read = self.tokenizer(text, truncation=True, max_length=self.max_length, return_attention_mask=False)
        if not read["input_ids"]:
            return ([self.blank], *([value] for value in list(self.fill.values())[1:]))
        return tuple(list(read[name]) for name in self.fill)

    def collate(self, texts: Sequence[tuple[list[int], ...]]) -> dict[str, Tensor]:
        """Make a batch: whole numbers `[N, L]` by the model's names, L tokens being the longest text's, or all."""
        lengths = [len(text[0]) for text in texts]
        filled = self.max_length if self.whole else max(lengths)
        batch = {
            name: self._filled([text[place] for text in texts], filled, value)
            for place, (name, value) in enumerate(self.fill.items())
        }
        if self.masked:
            batch["attention_mask"] = self._filled([[1] * length for length in lengths], filled, 0)
        return batch

    def _filled(self, rows: Sequence[list[int]], length: int, value: int) -> Tensor:
        filling = [[value] * (length - len(row)) for row in rows]
        whole = [[*more, *row] if self.left else [*row, *more] for row, more in zip(rows, filling, strict=True)]
        return torch.tensor(whole, dtype=torch.long)

    def length(self, text: str) -> int:
        """Count the tokens of a whole text, those that the tokenizer adds included."""
        return len(self.tokenizer(text, return_attention_mask=False, verbose=False)["input_ids"])


def tokenizer_of(graft: Graft, tokens: Tokens | None = None) -> Any:
    """Load the tokenizer that a recipe names, or that came with the base.

    Raises:
        RecipeError: there is none, it can't be read, or it is not the one that the recipe was made with.
    """
    place = (tokens.tokenizer if tokens else None) or graft.tokenizer
    if place is None:
        raise RecipeError(
            f"no tokenizer came with {graft.recipe.base}",
            where="preprocess.tokens",
            hint=f"tokenizer.save_pretrained(…) writes one beside the model; {_NAME_ONE}",
        )
    stamp = _stamp(place)
    tokenizer = _loaded(place, stamp)
    if tokens is not None and tokens.digest and tokens.digest != _digest(place, stamp):
        raise RecipeError(
            f"the tokenizer at {place} is not the one that the model was trained with",
            where="preprocess.tokens.digest",
            hint="bring the old one back, or take the digest out of the recipe and train again",
        )
    return tokenizer


_NAME_ONE = "or name another: --set preprocess.tokens.tokenizer=FOLDER"


Stamp = tuple[tuple[str, int, int], ...]


def _stamp(place: str) -> Stamp:
    """Tell the state of a folder's files: name, size and time of change; nothing of a name on the hub."""
    files = sorted(Path(place).iterdir()) if Path(place).is_dir() else []
    told = ((one.name, one.stat()) for one in files if one.is_file() and one.suffix != ".safetensors")
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in told)


@lru_cache(maxsize=4)
def _digest(place: str, stamp: Stamp) -> str:
    return digest_of(_loaded(place, stamp))


@lru_cache(maxsize=4)
def _loaded(place: str, stamp: Stamp) -> Any:  # by the stamp, files that changed are read again
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise RecipeError(
            "texts are read by transformers' tokenizers, and it is not installed",
            where="preprocess.tokens",
            hint="pip install 'torchgraft[transformers]'",
        ) from error
    try:
        return AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    except Exception as error:  # what transformers makes of a broken folder is of any kind
        reason = str(error).strip().splitlines()
        here = "" if Path(place).is_dir() else ", and there is no such folder here"
        raise RecipeError(
            f"the tokenizer at {place} can't be loaded{here}: {reason[0] if reason else type(error).__name__}",
            where="preprocess.tokens",
            hint=f"tokenizer.save_pretrained({place!r}) writes one; {_NAME_ONE}",
        ) from error


def digest_of(tokenizer: Any) -> str:
    """Tell a tokenizer by its words, its special tokens and what it makes of a few texts: a short sha256."""
    words = sorted(tokenizer.get_vocab().items())
    read = [list(tokenizer(text)["input_ids"]) for text in _PROBES]
    special = sorted((name, str(one)) for name, one in tokenizer.special_tokens_map.items())
    return sha256(json.dumps([words, special, read]).encode()).hexdigest()[:_DIGITS]


def reader_of(graft: Graft, tokens: Tokens, tokenizer: Any = None) -> Reader:
    """Set a tokenizer up for a model.

    Args:
        graft: the model.
        tokens: what the recipe says.
        tokenizer: where it is loaded already.

    Raises:
        RecipeError: there is no such tokenizer.
    """
    tokenizer = tokenizer or tokenizer_of(graft, tokens)
    names = taken(graft.module)
    pad = _pad(graft.module, tokenizer)
    fill = {"input_ids": pad}
    if _TYPES in names and any(tokenizer(_PROBES[0], return_token_type_ids=True).get(_TYPES, ())):
        fill[_TYPES] = int(getattr(tokenizer, "pad_token_type_id", 0))  # where all are 0, models take that unasked
    ends = (tokenizer.bos_token_id, tokenizer.eos_token_id, pad)
    return Reader(
        tokenizer,
        tokens.max_length,
        fill,
        masked="attention_mask" in names,
        left=tokenizer.padding_side == "left",
        blank=next(one for one in ends if one is not None),
        whole=tokens.padding == "max_length",
    )


def _pad(model: nn.Module, tokenizer: Any) -> int:
    """Give what fills up: the model's own token, since classifiers look for it; else the tokenizer's."""
    known = (*pads(model), tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    return int(next(one for one in known if one is not None))
