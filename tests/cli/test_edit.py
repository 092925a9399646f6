"""`torchgraft edit`: every edit on the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from torchgraft.cli.main import main
from torchgraft.edits import kinds
from torchgraft.recipe import Recipe


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(arguments)
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return run


def test_edits_are_applied_in_order_and_written_to_a_recipe(run):
    code, out, _ = run("edit", "bundled:glyphs", "head: {classes: 4, hidden: [16]}", "freeze: {all_but: head}")
    assert code == 0
    assert "edit 1   new head for 4 classes with hidden layers 16" in out
    assert [edit.kind() for edit in Recipe.read("recipe.yaml").edits] == ["head", "freeze"]


def test_a_value_alone_fills_the_first_setting(run):
    assert run("edit", "bundled:glyphs", "head: 4")[0] == 0
    assert Recipe.read("recipe.yaml").edits[0].classes == 4
    assert Recipe.from_yaml("base: bundled:glyphs\nedits:\n- freeze: [conv1, head]\n").edits[0].at == (
        "conv1",
        "head",
    )


def test_a_recipe_takes_more_edits(run):
    run("edit", "bundled:glyphs", "head: 4")
    assert run("edit", "recipe.yaml", "unfreeze")[0] == 0
    assert [edit.kind() for edit in Recipe.read("recipe.yaml").edits] == ["head", "unfreeze"]


def test_an_edit_that_does_not_fit_writes_nothing_and_shows_the_fixes(run, tmp_path):
    wrong = "replace: {at: layer2, with: {nn.Conv2d: {out_channels: 7, kernel_size: 1}}}"
    code, _, err = run("edit", "bundled:glyphs", wrong)
    assert code == 2
    assert "error[S001]" in err
    assert "do:    nothing was written; --fix adapt or --fix propagate makes it fit" in err
    assert not (tmp_path / "recipe.yaml").exists()
    code, out, _ = run("edit", "bundled:glyphs", wrong, "--fix", "adapt")
    assert code == 0
    assert "edit 2   a projection" in out


def test_a_file_that_is_there_is_not_written_over(run):
    run("edit", "bundled:glyphs", "head: 4")
    before = Recipe.read("recipe.yaml")
    code, _, err = run("edit", "bundled:glyphs", "head: 5")
    assert code == 2
    assert "--to" in err
    assert Recipe.read("recipe.yaml") == before


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("haed: 4", "did you mean head"),
        ("head: {classes: none}", "classes: a whole number is needed, not 'none'"),
        ("head: {clases: 4}", "did you mean classes"),
        ("remove", "'at' is missing"),
        ("freeze: {}", "torchgraft edits freeze tells its settings"),
        ("nonsense: 3", "torchgraft edits lists them"),
        ("insert: {after: layer1, module: {block.ECA: {kernl: 3}}}", "did you mean kernel"),
        ("[1, 2]", "a colon, a space"),
        ("head:{classes: 4}", "a colon, a space"),
        ("head: {classes: 4", "a colon, a space"),
        ("freeze: {at: **:BatchNorm2d}", "wants quotes"),
        ("remove: layer9", "did you mean layer"),
    ],
)
def test_what_is_no_edit_is_told(run, text, told):
    code, _, err = run("edit", "bundled:glyphs", text)
    assert code == 2
    assert told in err


def test_no_edit_at_all_is_told(run):
    assert "no edit is given" in run("edit", "bundled:glyphs")[2]


def test_every_edit_is_listed_and_explained(run):
    code, out, _ = run("edits")
    assert code == 0
    assert all(kind in out for kind in kinds())
    assert "Replace the layers that make the output" in run("edits", "head")[1]
    assert "did you mean head" in run("edits", "haed")[2]


def test_a_class_in_the_current_folder_is_put_in_where_it_is_trusted(run, tmp_path):
    code = "from torch import nn\n\nclass Mine(nn.Conv2d):\n    def __init__(self, in_channels):\n"
    (tmp_path / "blocks_of_mine.py").write_text(f"{code}        super().__init__(in_channels, in_channels, 1)\n")
    edit = 'insert: {after: layer1, module: {"blocks_of_mine:Mine": {}}}'
    command = [Path(sys.executable).with_name("torchgraft"), "edit", "bundled:glyphs", edit]
    assert "allow it with --trust" in subprocess.run(command, capture_output=True, text=True, cwd=tmp_path).stderr
    done = subprocess.run([*command, "--trust"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Mine(in_channels=" in done.stdout
    assert "torchgraft check recipe.yaml --trust" in done.stdout
    wrong = [*command[:-1], edit.replace("Mine", "Mime"), "--trust", "--to", "other.yaml"]
    assert "did you mean Mine" in subprocess.run(wrong, capture_output=True, text=True, cwd=tmp_path).stderr
