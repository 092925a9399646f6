from __future__ import annotations

import json

import pytest

from torchgraft.cli.main import main

NET = """
import torch
from torch import nn

def fixed():
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 8 * 8, 10))

def words():
    return nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(12, 2)), torch.tensor([[1, 2, 30]])
"""
RECIPE = """
base: resnet18@none
input: [3, 64, 64]
edits:
  - head: {classes: 10}
  - replace: {at: layer3.0.conv1, with: {nn.Conv2d: {in_channels: 7, out_channels: 9, kernel_size: 3}}}
"""


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "recipe.yaml").write_text(RECIPE)

    def run(*words):
        with pytest.raises(SystemExit) as left:
            main(["check", *words])
        out = capsys.readouterr()
        return left.value.code, out.out, out.err

    return run


def test_a_factory_in_a_file_is_checked(run):
    code, out, _ = run("net.py:fixed", "--input", "[3, 16, 16]")
    assert code == 1
    assert "error[S002] features do not match" in out
    assert "1 error, no other findings" in out


def test_a_factory_may_give_an_example_as_well(run):
    code, out, _ = run("net.py:words")
    assert code == 1
    assert "error[S013] an index is out of range" in out


def test_sarif_names_rule_level_and_line(run):
    code, out, _ = run("recipe.yaml", "--format", "sarif")
    assert code == 1
    log = json.loads(out)
    result = log["runs"][0]["results"][0]
    assert (log["version"], result["ruleId"], result["level"]) == ("2.1.0", "S001", "error")
    place = result["locations"][0]["physicalLocation"]
    assert (place["artifactLocation"]["uri"], place["region"]["startLine"]) == ("recipe.yaml", 6)
    assert {rule["id"] for rule in log["runs"][0]["tool"]["driver"]["rules"]} >= {"S001"}


def test_github_gets_one_line_a_finding(run):
    code, out, _ = run("recipe.yaml", "--format", "github")
    assert code == 1
    (line,) = [one for one in out.splitlines() if one.startswith("::error")]
    assert line.startswith("::error file=recipe.yaml,line=6,title=S001 channels do not match::")
    assert "%0A" in line


def test_fix_without_a_value_takes_the_best_and_writes_a_recipe(run, tmp_path):
    code, out, err = run("net.py:fixed", "--input", "[3, 16, 16]", "--fix", "--to", "mended.yaml", "--prove")
    assert code == 0
    assert "proved" in out
    assert "mended: mended.yaml has 1 new edit" in err
    assert "AdaptiveAvgPool2d" in (tmp_path / "mended.yaml").read_text()


def test_the_second_fix_of_a_recipe_is_another(run, tmp_path):
    assert run("recipe.yaml", "--fix")[0] == 0
    best = (tmp_path / "recipe.yaml").read_text()
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    assert run("recipe.yaml", "--fix=2")[0] == 0
    assert (tmp_path / "recipe.yaml").read_text() not in (best, RECIPE)


def test_a_fix_that_is_not_offered_is_refused_and_nothing_is_written(run, tmp_path):
    code, _, err = run("recipe.yaml", "--fix=9")
    assert (code, "there is no fix '9' here" in err) == (2, True)
    assert (tmp_path / "recipe.yaml").read_text() == RECIPE


def test_a_recipe_that_is_there_is_not_written_over(run, tmp_path):
    code, _, err = run("net.py:fixed", "--input", "[3, 16, 16]", "--fix")
    assert (code, "there is a recipe.yaml already" in err) == (2, True)
    assert (tmp_path / "recipe.yaml").read_text() == RECIPE
