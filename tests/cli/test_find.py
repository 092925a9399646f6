from __future__ import annotations

import json

import pytest

from torchgraft.cli import main
from torchgraft.recipe import Recipe

RECIPE = """\
# my digits
base: bundled:glyphs
edits:
- head: {classes: 10}
- freeze: {all_but: head}
train:
  data: sklearn:digits   # of scikit-learn
  per_class: 8
  batch: 8
  optimizer: {adamw: {lr: 0.001}}
  groups: [{at: fc, lr: 0.002}]
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def found(*arguments: str, capsys) -> tuple[int, str]:
    with pytest.raises(SystemExit) as left:
        main(["find", *arguments])
    return int(left.value.code or 0), capsys.readouterr().out


def test_a_rate_is_found_drawn_and_written_into_the_recipe(recipe, capsys):
    code, told = found("rate", "recipe.yaml", "--steps", "40", "--write", "--plot", "rate.png", capsys=capsys)
    assert code == 0
    assert "suggestion" in told
    assert (recipe.parent / "rate.png").read_bytes().startswith(b"\x89PNG")
    plan = Recipe.read(recipe).train
    assert plan.optimizer.lr != 0.001
    assert f"suggestion           {plan.optimizer.lr:g}" in told
    assert plan.groups[0].lr == pytest.approx(2 * plan.optimizer.lr, rel=0.06)
    lines = recipe.read_text().splitlines()
    assert lines[0] == "# my digits"
    assert lines[6] == "  data: sklearn:digits   # of scikit-learn"
    assert sum(one != other for one, other in zip(lines, RECIPE.splitlines(), strict=True)) == 2


def test_without_write_the_recipe_stays_and_the_line_to_write_is_told(recipe, capsys):
    code, told = found("rate", "recipe.yaml", "--steps", "40", capsys=capsys)
    assert code == 0
    assert "optimizer: {adamw: {lr: " in told
    assert recipe.read_text() == RECIPE


def test_a_batch_is_found_as_json_and_written(recipe, capsys):
    code, told = found(
        "batch", "recipe.yaml", "--device", "4GB", "--seconds", "3", "--json", "--write", capsys=capsys
    )
    assert code == 0
    data = json.loads(told)
    assert data["largest"] == 80
    assert Recipe.read(recipe).train.batch == data["advised"]


def test_where_nothing_fits_the_exit_code_is_1(recipe, capsys):
    code, told = found("batch", "recipe.yaml", "--device", "601MiB", capsys=capsys)
    assert code == 1
    assert "not even one sample fits" in told
