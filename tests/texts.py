"""Tiny models of transformers with tokenizers of their own, and texts whose classes can be learnt."""

from __future__ import annotations

import csv
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from torchgraft.data.base import DataSet, ListSamples

transformers: Any = pytest.importorskip("transformers")
tokenizers: Any = pytest.importorskip("tokenizers")

ARTICLES = ("the", "a", "my", "your", "some")
NOUNS = ("cat", "dog", "teacher", "garden", "river", "house", "train", "song")
VERBS = ("sees", "likes", "finds", "carries", "paints", "hears")
CLASSES = ("plain", "negated")

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
POSITIONS = 40


def sentence(draw: random.Random, *, negated: bool) -> str:
    """A sentence that says something of a noun, or denies it; the words are the same but for one."""
    words = [draw.choice(ARTICLES), draw.choice(NOUNS)]
    words += [draw.choice(("never", "not")), draw.choice(VERBS)] if negated else [draw.choice(VERBS)]
    for number in range(draw.randint(1, 4)):
        words += ["and"] * bool(number) + [draw.choice(ARTICLES), draw.choice(NOUNS)]
    return " ".join(words)


def samples(count: int, seed: int = 0) -> ListSamples:
    draw = random.Random(seed)
    labels = [number % 2 for number in range(count)]
    return ListSamples([sentence(draw, negated=bool(label)) for label in labels], labels)


def text_data(count: int = 160, **fields: Any) -> DataSet:
    """Sentences to be told apart by whether they deny."""
    made: dict[str, Any] = {"train": samples(count), "val": samples(count // 4, seed=1), "classes": CLASSES}
    return DataSet(**{**made, "channels": 0, "size": (0, 0), "split": "made", "kind": "text", **fields})


def write_reviews(path: Path, count: int = 160) -> Path:
    """Write the sentences as a table."""
    texts = samples(count)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label"])
        rows.writerows([text, CLASSES[label]] for text, label in zip(texts.items, texts.labels, strict=True))
    return path


def word_tokenizer() -> Any:
    """A tokenizer of whole words, with BERT's marks around a text."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *ARTICLES, *NOUNS, *VERBS, "never", "not", "and"]
    made = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]")
    )
    made.normalizer = tokenizers.normalizers.BertNormalizer()
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    marks = {"unk": "[UNK]", "pad": "[PAD]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, **{f"{name}_token": mark for name, mark in marks.items()}
    )


def byte_tokenizer(**settings: Any) -> Any:
    """A tokenizer of pieces of bytes, as GPT-2 has it: one mark, none to fill up with."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=330, special_tokens=["<|end|>"], initial_alphabet=alphabet)
    made.train_from_iterator(samples(60).items, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<|end|>", bos_token="<|end|>", **settings
    )


def bert(**settings: Any) -> Any:
    return transformers.BertConfig(
        vocab_size=len(word_tokenizer()), max_position_embeddings=POSITIONS, **SIZES, **settings
    )


def roberta() -> Any:
    return transformers.RobertaConfig(
        vocab_size=len(word_tokenizer()), max_position_embeddings=POSITIONS, pad_token_id=0, **SIZES
    )


def distilbert() -> Any:
    return transformers.DistilBertConfig(
        vocab_size=len(word_tokenizer()), dim=32, n_layers=2, n_heads=2, hidden_dim=64,
        max_position_embeddings=POSITIONS,
    )  # fmt: skip


def gpt2() -> Any:
    return transformers.GPT2Config(
        vocab_size=330, n_embd=32, n_layer=2, n_head=2, n_positions=64, bos_token_id=0, eos_token_id=0
    )


MODELS = {
    "bert": lambda: transformers.BertForMaskedLM(bert()),
    "encoder": lambda: transformers.BertModel(bert()),
    "classifier": lambda: transformers.BertForSequenceClassification(bert(num_labels=3)),
    "roberta": lambda: transformers.RobertaModel(roberta()),
    "distilbert": lambda: transformers.DistilBertForMaskedLM(distilbert()),
    "gpt2": lambda: transformers.GPT2LMHeadModel(gpt2()),
}
"""Models as they are published: mostly with another head than the one that is wanted."""


def written(kind: str, home: Path, tokenizer: Any = ...) -> Path:
    """Write a model with its tokenizer as `save_pretrained` does, and give the folder."""
    torch.manual_seed(0)
    folder = home / kind
    MODELS[kind]().save_pretrained(folder)
    if tokenizer is ...:
        tokenizer = byte_tokenizer() if kind == "gpt2" else word_tokenizer()
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return folder
