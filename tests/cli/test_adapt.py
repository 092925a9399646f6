"""The mistakes that `torchgraft adapt` and its kin refuse, in this process."""

from __future__ import annotations

import pytest

from torchgraft.cli import main

GLYPHS = ["adapt", "bundled:glyphs", "--data", "sklearn:digits"]


def told(*arguments: str, capsys) -> list[str]:
    """Run a command that must be refused, and give what, where and what to do."""
    with pytest.raises(SystemExit) as left:
        main(arguments)
    lines = capsys.readouterr().err.strip().splitlines()
    assert left.value.code == 2, lines
    assert [line[:7] for line in lines] == ["error: ", "where: ", "do:    "]
    return [line[7:] for line in lines]


@pytest.mark.parametrize(
    ("arguments", "what", "where", "do"),
    [
        ([*GLYPHS, "--set", "seed=x"], "seed: a whole number", "--set seed=…", "0 to 4294967295"),
        ([*GLYPHS, "--set", "seed=99999999999999999999"], "seed: a number of", "--set seed=…", "0 to 4294967295"),
        (
            [*GLYPHS, "--set", "input=[3,32,-1]"],
            "input.2: a number of 1",
            "--set input=…",
            "list of positive sizes",
        ),
        ([*GLYPHS, "--set", "epochs=3"], "no setting 'epochs'", "--set epochs=…", "did you mean train.epochs?"),
        ([*GLYPHS, "--set", "train.data=x"], "no setting 'train.data'", "--set train.data=…", "--data"),
        ([*GLYPHS, "--set", "freeze.at=[**"], "matches no module", "", ""),
        ([*GLYPHS, "--set", "train.optimizer=lbfgs"], "can't train with lbfgs", "train.optimizer", "adamw"),
        ([*GLYPHS, "--epochs", "0"], '"0" for --epochs', "torchgraft adapt", "--help"),
        ([*GLYPHS, "--classes", "-1"], "--classes", "torchgraft adapt", "--help"),
        (["predict", "v1", "x.png", "--top", "0"], '"0" for --top', "torchgraft predict", "--help"),
        (["predict", "v1", "x.png", "--top", "-1"], "--top", "torchgraft predict", "--help"),
        (["check", "bundled:glyphs", "--input", "x"], "input: a list is needed", "--input", "positive sizes"),
        (["check", "bundled:glyphs", "--input", "[1,"], "input: a list is needed", "--input", "positive sizes"),
        (["check", "python::x", "--trust"], "'' can't be imported", "python::x", "package.module"),
        (["train", "nowhere.yaml"], "the recipe can't be read", "nowhere.yaml", "check the path"),
        (
            ["adapt", "resnet81", "--data", "sklearn:digits"],
            "no model 'resnet81'",
            "torchvision:resnet81",
            "resnet18",
        ),
    ],
)
def test_a_mistake_is_told_in_three_lines(arguments, what, where, do, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = told(*arguments, capsys=capsys)
    assert what in lines[0]
    assert where in lines[1]
    assert do in lines[2]


def test_a_pattern_that_is_not_yaml_is_taken_as_it_stands(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main([*GLYPHS, "--dry-run", "--set", "freeze.at=**"])
    assert left.value.code == 0
    assert "**" in (tmp_path / "recipe.yaml").read_text()


@pytest.mark.parametrize("recipe", ["base: bundled:glyphs\ntrain: {data: sklearn:digits, epochs: 1}\n"])
def test_a_place_where_nothing_can_be_kept_is_told_before_training(recipe, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "r.yaml").write_text(recipe)
    with pytest.raises(SystemExit) as left:
        main(["train", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "file")])
    done = capsys.readouterr()
    assert left.value.code == 2
    assert "nothing can be kept there: a file stands where a folder should be" in done.err
    assert "epoch " not in done.out


def test_a_recipe_that_can_not_be_written_is_told(capsys, tmp_path, monkeypatch):
    (tmp_path / "recipe.yaml").mkdir()
    monkeypatch.chdir(tmp_path)
    assert "the recipe can't be written" in told(*GLYPHS, "--dry-run", capsys=capsys)[0]
