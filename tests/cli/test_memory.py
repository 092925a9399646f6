from __future__ import annotations

import json

import pytest

from torchgraft.cli.main import main

RECIPE = """
base: bundled:glyphs
edits:
- head: {classes: 5}
- freeze: {all_but: [head, layer3]}
train:
  data: folder:nowhere
  batch: 16
  optimizer: {sgd: {lr: 0.1, momentum: 0.9}}
"""


def said(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(["memory", *arguments])
    out = capsys.readouterr()
    return ended.value.code, out.out, out.err


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return str(path)


def test_a_recipe_that_fits_ends_well(capsys, recipe):
    code, out, _ = said(capsys, recipe, "--device", "8GB")
    assert code == 0
    assert "for batch 16, fp32, sgd with momentum, loss: the loss of the head's tasks" in out
    assert "fits: " in out
    assert "the largest batch that fits: " in out


def test_one_that_does_not_fit_ends_with_1_and_says_what_helps(capsys, recipe):
    code, out, _ = said(capsys, recipe, "--device", "660MiB", "--batch", "1024")
    assert code == 1
    assert "does not fit: " in out
    assert "--set train.batch=512 --set train.accumulate=2" in out


def test_settings_of_the_plan_are_taken(capsys, recipe):
    code, out, _ = said(
        capsys, recipe, "--quick", "--precision", "bf16", "--set", "train.checkpointing=[layer3.*]"
    )
    assert code == 0
    assert "bf16" in out
    assert "checkpointing layer3.*" in out


def test_json_is_one_object(capsys, recipe):
    _, out, _ = said(capsys, recipe, "--device", "8GB", "--quick", "--json")
    found = json.loads(out)
    assert found["facts"]["batch"] == "16"
    assert found["fits"] is True
    assert sum(found["kinds"].values()) == found["peak"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--device", "24"), "'24' is neither a size nor a device"),
        (("--set", "store.keep=3"), "--set store.keep"),
        (("--set", "head.classes=3"), "head is an edit"),
        (("--set", "freeze.all_but=head"), "recipe.yaml 'freeze: {all_but: head}'"),
        (("--device", "8", "GB"), "write --device 8GB"),
        (("--set", "train.batches=3"), "train.batches"),
        (("--precision", "fp8"), "precision"),
        (("--batch", "0"), "batch"),
        (("--set", "train.checkpointing=[nowhere]"), "nowhere"),
    ],
)
def test_mistakes_are_told_in_three_lines(capsys, recipe, arguments, words):
    code, _, err = said(capsys, recipe, *arguments)
    assert code == 2
    assert words in err
    assert "Traceback" not in err
