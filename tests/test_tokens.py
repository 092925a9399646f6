"""How texts are prepared, as it stands in a recipe."""

from __future__ import annotations

import pytest

from torchgraft.errors import RecipeError
from torchgraft.preprocess import Preprocess
from torchgraft.recipe import Recipe
from torchgraft.settings import check_settings
from torchgraft.tokens import Texts, Tokens

BASE = "base: transformers:bert@none\npreprocess:\n  "


def test_a_recipe_prepares_texts_or_images():
    texts = Recipe.from_yaml(f"{BASE}tokens: {{max_length: 64, digest: 0a1b}}\n")
    images = Recipe.from_yaml(f"{BASE}size: [8, 8]\n")
    assert texts.preprocess == Texts(tokens=Tokens(max_length=64, digest="0a1b"))
    assert images.preprocess == Preprocess(size=(8, 8))
    assert all(Recipe.from_yaml(one.to_yaml()) == one for one in (texts, images))
    assert "tokens: {max_length: 64, digest: 0a1b}" in texts.to_yaml()


@pytest.mark.parametrize(
    ("written", "what", "hint"),
    [
        ("tokens: {max_lenght: 64}", "there is no key 'max_lenght'", "did you mean max_length?"),
        ("tokens: {max_length: 0}", "preprocess.tokens.max_length: a number of 1 or more", "write 1 or more"),
        ("tokens: {}", "'max_length' is missing", "add preprocess.tokens.max_length"),
        (
            "tokens: 64",
            "preprocess.tokens: a mapping is needed",
            "its keys are max_length, padding, tokenizer, digest",
        ),
        ("{tokens: {max_length: 8}, size: [8, 8]}", "'tokens' alone, without 'size'", ""),
        ("tokenz: {max_length: 8}", "there is no key 'tokenz'", "size"),
        ("size: [8]", "preprocess.size: the list is too short", "write [a, b]"),
    ],
)
def test_a_mistake_is_told_with_its_line(written, what, hint):
    with pytest.raises(RecipeError) as error:
        Recipe.from_yaml(BASE + written + "\n")
    assert what in error.value.what
    assert hint in error.value.hint
    assert error.value.where == ("recipe.yaml:2" if written.startswith("{") else "recipe.yaml:3")  # of the mapping


def test_a_setting_is_checked_by_its_path():
    check_settings({"preprocess.tokens.max_length": 64, "preprocess.tokens.tokenizer": "./mine"})
    with pytest.raises(RecipeError, match="a number of 1 or more is needed"):
        check_settings({"preprocess.tokens.max_length": 0})
    with pytest.raises(RecipeError) as error:
        check_settings({"preprocess.max_length": 64})
    assert error.value.hint == "did you mean preprocess.tokens.max_length?"
    with pytest.raises(RecipeError, match="there is no setting"):
        check_settings({"preprocess.tokens.digest": "00"})
