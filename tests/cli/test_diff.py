from __future__ import annotations

import json

import pytest

import torchgraft as tg
from torchgraft.cli import main

SHAPE = "--input=[3,32,32]"


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    tg.load("resnet18@none", input=(3, 32, 32)).head(3).recipe.write(path)
    return str(path)


def said(capsys, *arguments):
    with pytest.raises(SystemExit) as left:
        main(["diff", *arguments])
    out, err = capsys.readouterr()
    return left.value.code, out, err


def test_two_models_are_compared(capsys, recipe):
    code, out, _ = said(capsys, "resnet18@none", recipe, SHAPE)
    assert code == 0
    assert "+ head: {classes: 3, at: [fc]}" in out
    assert "fc.weight  1000×512 → 3×512" in out
    assert out.splitlines()[-1].startswith("parameters 11,689,512 → 11,178,051 (-4.4 %)")


def test_the_exit_code_says_whether_they_differ_where_asked(capsys, recipe):
    assert said(capsys, "resnet18@none", recipe, SHAPE, "--exit-code")[0] == 1
    code, out, _ = said(capsys, recipe, recipe, "--exit-code")
    assert code == 0
    assert "no difference: 122 tensors" in out


def test_json_is_one_object(capsys, recipe):
    _, out, _ = said(capsys, "resnet18@none", recipe, SHAPE, "--json")
    data = json.loads(out)
    assert [(one["name"] if "name" in one else one["after"], one["way"]) for one in data["tensors"]] == [
        ("fc.weight", "reshaped"),
        ("fc.bias", "reshaped"),
    ]


def test_values_may_be_left_out(capsys):
    _, out, _ = said(capsys, "resnet18@none", "resnet34@none", SHAPE, "--no-values")
    assert "+ layer3.[2-5]  BasicBlock × 4" in out
    assert "values not compared" in out


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("resnet18@none", "nothing.yaml"), "can't be read"),
        (("resnet19@none", "resnet18@none"), "resnet19"),
        (("v1", "resnet18@none"), "no version is kept here"),
    ],
)
def test_a_mistake_is_explained_in_three_lines(capsys, tmp_path, monkeypatch, arguments, what):
    monkeypatch.chdir(tmp_path)
    code, _, err = said(capsys, *arguments)
    assert code == 2
    assert what in err


def test_it_is_drawn(capsys, recipe, tmp_path):
    path = tmp_path / "diff.svg"
    code, out, _ = said(capsys, "resnet18@none", recipe, SHAPE, f"--to={path}")
    assert code == 0
    assert str(path) in out
    assert path.read_text().lstrip().startswith("<svg")
