from __future__ import annotations

import pytest

from torchgraft.errors import RecipeError
from torchgraft.recipe import Recipe
from torchgraft.searching.written import scaled, with_batch, with_rate, write_over

BLOCK = """\
# the flowers of spring
base: bundled:glyphs   # trained on letters
train:
  data: sklearn:digits
  batch: 64      # what fits
  optimizer:
    adamw: {lr: 0.001, weight_decay: 0.01}   # as always
  groups:
  - at: head   # new
    lr: 0.01
  - {at: conv1, weight_decay: 0.0}
  unfreeze: {epoch: 3, at: layer1, lr: 2e-4}
  epochs: 3

edits:
- head: {classes: 10}
"""

FORMS = [
    BLOCK,
    "base: bundled:glyphs\ntrain: {data: sklearn:digits, optimizer: sgd}\n",
    "base: bundled:glyphs\ntrain: {data: sklearn:digits}\n",
    "base: bundled:glyphs\ntrain:\n  data: sklearn:digits\n",
    "train:\n    data: sklearn:digits\n    optimizer:\n        name: sgd\n        settings:\n            lr: 1e-2\nbase: bundled:glyphs\n",
    "base: bundled:glyphs\ntrain:\n  optimizer: {sgd: {momentum: 0.9}}\n  data: sklearn:digits\n",
    "base: bundled:glyphs\ntrain:\n  optimizer:\n    sgd:\n      lr: .5\n      momentum: 0.9\n\n\n  # a word\n  data: sklearn:digits\n",
    '{"base": "bundled:glyphs", "train": {"data": "sklearn:digits", "batch": 8, "optimizer": {"sgd": {"lr": 0.1}}}}',
    "base: bundled:glyphs\r\ntrain:\r\n  data: sklearn:digits\r\n  batch: 8\r\n",
]


@pytest.mark.parametrize("text", FORMS)
def test_a_batch_is_put_into_a_recipe_however_it_is_written(text):
    new = with_batch(text, 128)
    before, after = Recipe.from_yaml(text), Recipe.from_yaml(new)
    assert after.train.batch == 128
    assert (
        after.model_copy(update={"train": after.train.model_copy(update={"batch": before.train.batch})}) == before
    )


@pytest.mark.parametrize("text", FORMS)
def test_rates_are_put_into_a_recipe_however_it_is_written(text):
    new = with_rate(text, 0.25)
    before, after = Recipe.from_yaml(text), Recipe.from_yaml(new)
    assert after.train == scaled(before.train, 0.25)
    assert after.train.optimizer.lr == pytest.approx(before.train.optimizer.lr / 4, rel=0.05)  # to two digits


def test_only_the_numbers_change_and_every_comment_stays():
    new = with_rate(with_batch(BLOCK, 8), 0.5).splitlines()
    changed = [(old, one) for old, one in zip(BLOCK.splitlines(), new, strict=True) if old != one]
    assert changed == [
        ("  batch: 64      # what fits", "  batch: 8      # what fits"),
        (
            "    adamw: {lr: 0.001, weight_decay: 0.01}   # as always",
            "    adamw: {lr: 0.0005, weight_decay: 0.01}   # as always",
        ),
        ("    lr: 0.01", "    lr: 0.005"),
        ("  unfreeze: {epoch: 3, at: layer1, lr: 2e-4}", "  unfreeze: {epoch: 3, at: layer1, lr: 0.0001}"),
    ]


def test_where_a_number_can_not_be_placed_nothing_is_written():
    text = "base: bundled:glyphs\ntrain: &plan\n  data: sklearn:digits\n  groups: [{at: head, lr: &rate 0.1}, {at: conv1, lr: *rate }]\n"
    with pytest.raises(RecipeError, match="can't be put into the recipe") as refused:
        with_rate(text, 0.5)
    assert "by hand" in refused.value.hint


def test_a_recipe_without_a_plan_is_refused():
    with pytest.raises(RecipeError, match="does not say how to train"):
        with_batch("base: bundled:glyphs\n", 8)


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(BLOCK)
    write_over(path, with_batch(BLOCK, 8))
    assert path.read_text() == BLOCK.replace("64 ", "8 ")
    assert [one.name for one in tmp_path.iterdir()] == ["recipe.yaml"]
