from __future__ import annotations

import json

import pytest

from torchgraft.cli.main import main
from torchgraft.recipe import Recipe

RECIPE = """
base: torchvision:resnet18@none
input: [3, 64, 64]
edits:
- head: {classes: 5}
- freeze: {stages: 3}
train:
  data: folder:nowhere
  optimizer: {adamw: {lr: 0.001}}
  groups: [{at: head, lr: 0.01}]
  layer_decay: 0.5
"""


def said(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(["params", *arguments])
    out = capsys.readouterr()
    return ended.value.code, out.out, out.err


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return str(path)


def test_a_models_parameters_are_listed(capsys):
    code, out, _ = said(capsys, "resnet18@none")
    assert code == 0
    assert out.splitlines()[0].split() == [
        "parameter",
        "shape",
        "numbers",
        "dtype",
        "trained",
        "mean",
        "std",
        "min",
        "max",
        "zeros",
    ]
    assert "62 tensors, 11,689,512 parameters, 11,689,512 trainable, 0 frozen" in out


def test_a_part_is_opened_by_selectors(capsys):
    code, out, _ = said(capsys, "resnet18@none", "--at", "layer4[-1] & norms", "--at", "head")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:-2]] == [
        "layer4.1.bn1.weight",
        "layer4.1.bn1.bias",
        "layer4.1.bn2.weight",
        "layer4.1.bn2.bias",
        "fc.weight",
        "fc.bias",
    ]


def test_a_recipe_with_a_plan_tells_groups_rates_and_decays(capsys, recipe):
    code, out, _ = said(capsys, recipe, "--at", "layer4", "--at", "fc", "--at", "conv1", "--json")
    assert code == 0
    rows = {row["path"]: row for row in json.loads(out)["parameters"]}
    assert (rows["fc.weight"]["lr"], rows["fc.weight"]["weight_decay"], rows["fc.weight"]["edit"]) == (
        0.01,
        0.01,
        1,
    )
    assert (rows["layer4.1.conv1.weight"]["lr"], rows["layer4.0.conv1.weight"]["lr"]) == (0.0005, 0.00025)
    assert rows["layer4.1.bn1.weight"]["weight_decay"] == 0
    assert (rows["conv1.weight"]["group"], rows["conv1.weight"]["trainable"]) == ("", False)


def test_a_kept_version_is_opened(capsys, tmp_path):
    from torchgraft.loading import replay

    kept = replay(Recipe.from_yaml(RECIPE)).save(tmp_path / "runs")
    code, out, _ = said(capsys, f"{tmp_path / 'runs'}@v{kept.number}", "--at", "head")
    assert code == 0
    assert "fc.weight" in out
    assert "5×512" in out


@pytest.mark.parametrize(
    ("arguments", "what", "do"),
    [
        (("resnet18@none", "--at", "layre4"), "'layre4' matches no", "did you mean layer4"),
        (("resnet19@none",), "resnet19", "did you mean resnet18"),
        (("missing.yaml",), "can't be read", "check the path"),
        (("resnet18@none", "--input", "[3, 0]"), "input", "sizes"),
    ],
)
def test_mistakes_are_told_in_three_lines(capsys, arguments, what, do):
    code, _, err = said(capsys, *arguments)
    assert code == 2
    assert what in err
    assert do in err
