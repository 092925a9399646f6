"""What is planned for texts: the class of model, the length that they are cut to, and what can't be trained so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from torchgraft.data.base import Stream
from torchgraft.edits.pad import Pad, pads
from torchgraft.errors import DataError, RecipeError, TrainError
from torchgraft.probes.arguments import taken
from torchgraft.probes.batch import Batch
from torchgraft.probes.padding import padding
from torchgraft.rules.texts import FilledUp
from torchgraft.select import selected
from torchgraft.sources import parse_source
from torchgraft.sources.transformers import Transformers
from torchgraft.surgery.told import configs
from torchgraft.tokens import Texts, Tokens
from torchgraft.trace.tree import tensors
from torchgraft.train.feed import moved
from torchgraft.train.texts import digest_of, reader_of, tokenizer_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from torchgraft.data import DataSet
    from torchgraft.graft import Graft
    from torchgraft.rules import Finding
    from torchgraft.trainplan import TrainPlan

__all__ = [
    "Lengths",
    "as_classifier",
    "check_foreign",
    "check_kind",
    "check_texts",
    "filled_up",
    "filling",
    "lengths_of",
    "lined_up",
    "measured",
    "positions",
]

LOOKED = 2000
"""So many training texts, from all over the set, are measured."""

SHORT = 128
"""Up to so many tokens no text is cut off: it costs little."""

_ENDLESS = 10**9
"""What tokenizers give as their length where they know of none is more than this."""


@dataclass(frozen=True)
class Lengths:
    """How long texts are, in tokens, those that the tokenizer adds included.

    Attributes:
        counts: of each text that was measured, in order of length.
        empty: how many of them have no letter.
    """

    counts: tuple[int, ...]
    empty: int = 0

    @property
    def most(self) -> int:
        """The length that 95 % of the texts do not exceed."""
        return self.counts[min(len(self.counts) * 95 // 100, len(self.counts) - 1)]

    @property
    def longest(self) -> int:
        """The length of the longest text."""
        return self.counts[-1]

    def cut(self, length: int) -> int:
        """Count the texts that are longer."""
        return sum(count > length for count in self.counts)

    def limit(self, most: int | None) -> int:
        """Choose what texts are cut to: nothing where they are short or much alike, else what 95 % need, or more.

        Args:
            most: what the model takes; None where it takes any length.
        """
        alike = self.longest <= max(SHORT, 2 * self.most)
        nearly = max(SHORT, -8 * (-self.most // 8))  # a multiple of 8, as hardware likes it
        wanted = self.longest if alike else nearly
        return min(wanted, most or wanted)

    def sentence(self, length: int) -> str:
        """Say how long the texts are, and how many lose their end."""
        cut, every = self.cut(length), f"{len(self.counts):,}"
        lost = f"{cut:,} of {every} lose their end" if cut else "none loses its end"
        empty = f"; {self.empty:,} are empty" if self.empty else ""
        return f"cut to {length} tokens: {lost}; 95 % have at most {self.most}, the longest {self.longest}{empty}"


def as_classifier(base: str) -> str:
    """Name a base so that it has a head for classes of texts: a transformer's, where its files have another."""
    source = parse_source(base)
    return str(source.classifier()) if isinstance(source, Transformers) else base


def check_kind(graft: Graft, data: DataSet) -> None:
    """Refuse texts for a model of images, and images for a model of texts.

    Raises:
        DataError: they don't go together.
    """
    reads = "input_ids" in taken(graft.module)
    if data.kind == "text" and not reads:
        shape = f": {list(graft.input_shape)}" if graft.input_shape else ""
        raise DataError(
            f"the data are texts, and {graft.name} takes no tokens{shape}",
            where=graft.recipe.base,
            hint="take a base that reads texts and has a tokenizer: transformers:FOLDER, or a name on the hub",
        )
    if data.kind == "image" and reads and graft.input_shape is None:
        raise DataError(
            f"the data are images, and {graft.name} reads texts",
            where=graft.recipe.base,
            hint="take a base for images, such as resnet18; texts come from a table: csv:FILE",
        )


def check_foreign(own: Mapping[str, Any], *, kind: str) -> None:
    """Refuse settings of images for texts, and of texts for images.

    Args:
        own: what the user sets, by its path under `preprocess`.
        kind: of the data.

    Raises:
        RecipeError: names the first.
    """
    about, others = ("images", "texts") if kind == "text" else ("texts", "images")
    foreign = next((name for name in own if name.startswith("tokens.") != (kind == "text")), None)
    if foreign is not None:
        raise RecipeError(
            f"'{foreign}' is about {about}, and the data are {others}",
            where=f"preprocess.{foreign}",
            hint="leave it out; preprocess.tokens.max_length is what texts have"
            if kind == "text"
            else "leave it out",
        )


def filling(graft: Graft) -> Pad | None:
    """Give the edit that a model needs to take several texts at once; None where it needs none."""
    if None not in pads(graft.module) or graft.trace().mismatch is None:
        return None
    tokenizer = tokenizer_of(graft)
    known = (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id, 0)
    return Pad(token=next(one for one in known if one is not None))


def measured(graft: Graft, data: DataSet, own: Mapping[str, Any]) -> tuple[Texts, str]:
    """Choose how texts are read, and say so.

    Args:
        graft: the model.
        data: texts.
        own: what the user sets, by its path under `preprocess`.

    Raises:
        RecipeError: there is no tokenizer, it does not fit the model, or a setting is not one of texts.
    """
    check_foreign(own, kind="text")
    asked = Tokens(**{"max_length": 1, **{name.removeprefix("tokens."): value for name, value in own.items()}})
    tokenizer = tokenizer_of(graft, asked)
    lengths = lengths_of(graft, data, asked)
    most = _most(graft.module, tokenizer)
    length = own.get("tokens.max_length") or lengths.limit(most)
    tokens = asked.model_copy(update={"max_length": length, "digest": digest_of(tokenizer)})
    return Texts(tokens=tokens), lengths.sentence(length)


def lined_up(graft: Graft, data: DataSet, texts: Texts, plan: TrainPlan) -> tuple[Texts, str]:
    """Fill all texts up to one length where their head alone is trained, unless the user set it; and say so.

    What comes before the head is then computed once for each text, where batches of several lengths would have it
    computed in every epoch.
    """
    tokens = texts.tokens
    anew = plan.cache == "off" or plan.unfreeze or plan.compile or plan.parallel == "fsdp" or plan.epochs == 1
    if "padding" in tokens.model_fields_set or anew or isinstance(data.train, Stream):
        return texts, ""
    every = list(graft.module.parameters())
    trained = {id(one) for one in every if one.requires_grad}
    if not trained or len(trained) == len(every) or graft.trace().mismatch is not None:
        return texts, ""
    if not trained <= selected(graft.module, "head", roles=graft.roles).keys():
        return texts, ""
    alike = tokens.model_copy(update={"padding": "max_length"})
    told = (
        f"all are filled up to {tokens.max_length} tokens: the head alone is trained, and what comes before it is "
        "computed once for each text"
    )
    return texts.model_copy(update={"tokens": alike}), told


def lengths_of(graft: Graft, data: DataSet, tokens: Tokens) -> Lengths:
    """Measure training texts from all over the set.

    Raises:
        DataError: there is none.
    """
    reader = reader_of(graft, tokens)
    counts, empty = list[int](), 0
    for text in _some(data):
        counts.append(max(reader.length(text), 1))
        empty += not text.strip()
    if not counts:
        raise DataError("there is no text to train on", where="data", hint="add texts with their labels")
    return Lengths(tuple(sorted(counts)), empty)


def check_texts(graft: Graft, texts: Texts, plan: TrainPlan) -> None:
    """Refuse what would break off in the midst of training, or do nothing.

    Raises:
        RecipeError: there is no tokenizer; it has words, or texts have lengths, that the model has no row for; or
            the plan varies images.
        TrainError: the model says something of each token, not of the text.
    """
    _check_plan(plan)
    _check_whole(graft)
    tokens = texts.tokens
    tokenizer = tokenizer_of(graft, tokens)
    _check_words(graft, tokenizer)
    most = positions(graft.module)
    if most is not None and tokens.max_length > most:
        raise RecipeError(
            f"texts of {tokens.max_length} tokens are too long: the model has {most} positions",
            where="preprocess.tokens.max_length",
            hint=f"write {most} or less",
        )


def filled_up(graft: Graft, data: DataSet, texts: Texts) -> tuple[Finding, ...]:
    """Look whether a text is answered alike alone and beside a longer one: one real pass of two texts.

    Returns:
        the finding where it is not.
    """
    weights = list(graft.module.parameters())
    reader = reader_of(graft, texts.tokens)
    prepared = [reader.prepare(text) for text in islice(_some(data), _COMPARED)]
    prepared.sort(key=lambda one: len(one[0]))
    if len(prepared) < 2 or not weights or any(one.is_meta for one in weights):
        return ()
    batch = Batch((), moved(reader.collate([prepared[0], prepared[-1]]), weights[0].device))
    with _evaluated(graft.module):
        seen = padding(batch, _outputs(graft.module, batch), lambda other: _outputs(graft.module, other))
    return tuple(FilledUp().findings(replace(graft.evidence(quick=True), padding=seen)))


_COMPARED = 64
"""Of so many texts, the shortest and the longest are compared."""


def _outputs(model: nn.Module, batch: Batch) -> list[Tensor]:
    return tensors(model(**batch.kwargs))


@contextmanager
def _evaluated(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, and each of its modules back after."""
    import torch

    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def _check_plan(plan: TrainPlan) -> None:
    """Refuse what only images can be varied by."""
    for name in ("augment", "mixup", "cutmix", "views", "channels_last"):
        if getattr(plan, name) != type(plan).model_fields[name].default:
            raise RecipeError(
                f"'{name}' is about images, and the data are texts", where=f"train.{name}", hint="leave it out"
            )


def _check_whole(graft: Graft) -> None:
    """Refuse a model without a head for whole texts."""
    run = graft.trace()
    odd = [shape for shape in run.output_shapes() if len(shape) > 2] if run.mismatch is None else []
    if odd:
        raise TrainError(
            f"the model gives {list(odd[0])} for {run.batch} texts, something of each token, not a row of scores "
            "for each text",
            where=graft.name,
            hint="load it with a head for texts: "
            f"{graft.recipe.base.partition('#')[0]}#AutoModelForSequenceClassification",
        )


def positions(model: nn.Module) -> int | None:
    """Count the positions that a model knows; None where any number will do."""
    told = [getattr(one, "max_position_embeddings", None) for one in configs(model)]
    known = [one for one in told if isinstance(one, int) and one > 0]
    return min([*known, *_tables(model)], default=None)


def _tables(model: nn.Module) -> Iterator[int]:
    """Give the rows of each table of positions; RoBERTa's begins behind its padding."""
    from torch import nn

    for path, module in model.named_modules():
        leaf = path.rpartition(".")[2]
        if isinstance(module, nn.Embedding) and (leaf == "wpe" or leaf.startswith("position")):
            yield module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)


def _most(model: nn.Module, tokenizer: Any) -> int | None:
    """Give the longest text that model and tokenizer take."""
    known = [one for one in (positions(model), tokenizer.model_max_length) if one is not None and one < _ENDLESS]
    return min(known, default=None)


def _check_words(graft: Graft, tokenizer: Any) -> None:
    """Refuse a tokenizer that has more words than the model has rows for."""
    table = _table(graft.module)
    words = {number: word for word, number in tokenizer.get_vocab().items()}
    if table is None or not words or max(words) < table[1]:
        return
    path, rows = table
    beyond = sorted(number for number in words if number >= rows)
    raise RecipeError(
        f"the tokenizer has {len(beyond)} words, such as {words[beyond[0]]!r}, for which the model has no row: "
        f"{path} has {rows}, and their numbers go up to {beyond[-1]}",
        where="preprocess.tokens",
        hint=f"take the base's own tokenizer; or, if the words were added, resize: {{at: {path}, "
        f"inputs: {beyond[-1] + 1}}}",
    )


def _table(model: Any) -> tuple[str, int] | None:
    """Give the path and the rows of the table of words."""
    held = model.get_input_embeddings() if hasattr(model, "get_input_embeddings") else None
    found = next((path for path, one in model.named_modules() if one is held and path), None)
    return (found, int(one.shape[0])) if found and (one := getattr(held, "weight", None)) is not None else None


def _some(data: DataSet) -> Iterator[str]:
    if isinstance(data.train, Stream):
        yield from islice((text for text, _ in data.train.samples(1, 0)), LOOKED)
        return
    count = len(data.train)
    step = max(count / LOOKED, 1.0)
    for place in range(min(count, LOOKED)):
        yield data.train[int(place * step)][0]
