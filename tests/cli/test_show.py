from __future__ import annotations

import json

import pytest

from torchgraft.cli.main import main

RECIPE = """
base: torchvision:resnet18@none
input: [3, 64, 64]
edits:
- head: {classes: 5}
- freeze: {all_but: [head]}
"""


def said(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(["show", *arguments])
    out = capsys.readouterr()
    return ended.value.code, out.out, out.err


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return str(path)


def test_a_model_is_shown_as_a_tree(capsys):
    code, out, _ = said(capsys, "resnet18@none")
    assert code == 0
    assert out.splitlines()[1].split()[:2] == ["resnet18", "(ResNet)"]
    assert "1.81 G MACs" in out
    assert "11,689,512 parameters" in out


def test_a_recipe_is_shown_with_its_edits(capsys, recipe):
    code, out, _ = said(capsys, recipe)
    assert code == 0
    assert "new, edit 1" in out
    assert "2,565 trainable, 11,176,512 frozen, 2,565 new" in out


def test_a_part_is_shown_to_a_depth_as_data(capsys, recipe):
    code, out, _ = said(capsys, recipe, "--at", "layer4", "--depth", "1", "--json")
    assert code == 0
    assert [one["path"] for one in json.loads(out)["rows"]] == ["layer4", "layer4.0", "layer4.1"]


def test_shares_of_parameters_and_what_goes_in_are_shown(capsys, recipe):
    code, out, _ = said(capsys, recipe, "--by", "params", "--takes", "--train")
    assert code == 0
    assert "of params" in out
    assert "takes" in out.splitlines()[0]
    assert "training mode" in out


def test_a_pass_that_breaks_off_leaves_with_1(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef bad():\n    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(4))\n"
    )
    code, out, _ = said(capsys, "net.py:bad", "--input", "[3,8,8]")
    assert (code, "breaks off here" in out) == (1, True)
    assert said(capsys, "net.py:bad", "--input", "[3,8,8]", "--json")[0] == 1


@pytest.mark.parametrize("name", ["net.py", "net.py:nofactory"])
def test_the_factories_that_are_there_are_named(capsys, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(
        "from torch import nn\nfrom torch.nn import ReLU\ndef tiny():\n    return nn.ReLU()\n"
        "def sized(n):\n    return nn.Linear(n, n)\ndef _own():\n    return tiny()\nready = nn.ReLU()\n"
    )
    code, _, err = said(capsys, name)
    assert code == 2
    assert err.splitlines()[2].endswith(": net.py:tiny, net.py:ready")


@pytest.mark.parametrize(
    ("arguments", "what", "do"),
    [
        (("resnet18@none", "--at", "layre4"), "'layre4' matches no", "did you mean layer4"),
        (("resnet19@none",), "resnet19", "did you mean resnet18"),
        (("resnet18@none", "--input", "[3, 0]"), "input", "sizes"),
        (("resnet18@none", "--depth", "-1"), "depth", "1 its parts"),
    ],
)
def test_mistakes_are_told_in_three_lines(capsys, arguments, what, do):
    code, _, err = said(capsys, *arguments)
    assert code == 2
    assert what in err
    assert do in err
