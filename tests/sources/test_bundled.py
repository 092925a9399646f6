"""The base model that torchgraft brings along."""

from __future__ import annotations

import hashlib
from importlib import resources

import pytest
import torch
from safetensors import safe_open

from torchgraft.data.lettering.classes import CLASSES
from torchgraft.errors import SourceError
from torchgraft.preprocess import Preprocess
from torchgraft.recipe import Recipe
from torchgraft.sources.base import parse_source

HOME = resources.files("torchgraft.bundled")


def test_it_loads_with_its_input_and_preprocessing() -> None:
    base = parse_source("bundled:glyphs").load()
    assert base.text == "bundled:glyphs"
    assert base.input == (1, 16, 16)
    assert base.preprocess == Preprocess(size=(16, 16), channels=1, mean=(0.5,), std=(0.5,))
    assert base.module(torch.zeros(2, *base.input)).shape == (2, len(CLASSES))


def test_its_weights_are_not_the_random_ones() -> None:
    trained = parse_source("bundled:glyphs").load().module.state_dict()
    drawn = parse_source("bundled:glyphs@none").load().module.state_dict()
    assert list(trained) == list(drawn)
    assert not [name for name in trained if torch.equal(trained[name], drawn[name])]


def test_random_weights_are_drawn_from_the_seed() -> None:
    one, same, other = (
        parse_source("bundled:glyphs@none").load(seed=seed).module.state_dict()["fc.weight"] for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_it_never_saw_a_digit() -> None:
    assert not set(CLASSES) & set("0123456789")


def test_the_file_is_small_and_says_which_recipe_made_it() -> None:
    with resources.as_file(HOME / "glyphs.safetensors") as path, safe_open(str(path), framework="pt") as file:
        notes = file.metadata()
        assert path.stat().st_size < 1_500_000
    assert notes["base"] == "bundled:glyphs"
    assert notes["recipe"] == hashlib.sha256((HOME / "glyphs.yaml").read_bytes()).hexdigest()
    assert float(notes["accuracy"]) > 0.8


def test_the_recipe_beside_it_is_a_recipe() -> None:
    recipe = Recipe.from_yaml((HOME / "glyphs.yaml").read_text(encoding="utf-8"))
    assert recipe.base == "bundled:glyphs@none"
    assert recipe.train is not None
    assert recipe.train.data.startswith("letters:")


def test_it_reads_letters_it_was_not_trained_on() -> None:
    pytest.importorskip("scipy")
    from PIL import Image

    from torchgraft.data.lettering.render import render

    base = parse_source("bundled:glyphs").load()
    assert base.preprocess is not None
    images, labels = render(500, 999)
    inputs = torch.stack([base.preprocess.transform()(Image.fromarray(image)) for image in images])
    with torch.no_grad():
        guesses = base.module.eval()(inputs).argmax(1)
    assert float((guesses == torch.from_numpy(labels)).float().mean()) > 0.7


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("bundled:glyph", "brings no model 'glyph'", "did you mean glyphs"),
        ("bundled:zzz", "brings no model 'zzz'", "one of bundled:glyphs"),
        ("bundled:glyphs@v2", "has no weights 'v2'", "bundled:glyphs@none"),
    ],
)
def test_what_is_not_there_is_refused(text: str, what: str, hint: str) -> None:
    with pytest.raises(SourceError, match=rf"{what}(.|\n)*{hint}"):
        parse_source(text).load()
