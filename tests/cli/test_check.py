from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

RECIPE = """
base: resnet18@none
input: [3, 64, 64]
edits:
  - head: {classes: 10}
  - replace: {at: layer3, with: [{nn.Conv2d: {in_channels: 256, out_channels: 512, kernel_size: 3, padding: 1}},
                                 {nn.BatchNorm2d: {}}, {nn.ReLU: {inplace: true}}, {nn.MaxPool2d: {kernel_size: 2}}]}
"""


def check(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torchgraft", "check", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_a_model_that_fits_is_said_to_fit(tmp_path):
    done = check("resnet18@none", "--input", "[3, 64, 64]", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "all fits\n")


def test_an_input_that_does_not_fit_is_an_error(tmp_path):
    done = check("resnet18@none", "--input", "[1, 64, 64]", "--format", "json", cwd=tmp_path)
    assert done.returncode == 1
    finding = json.loads(done.stdout)
    assert (finding["code"], finding["where"]) == ("S001", "resnet18 / conv1")


def test_a_recipe_is_mended_in_the_open(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    refused = check("recipe.yaml", cwd=tmp_path)
    assert refused.returncode == 1
    assert "error[S001] channels do not match" in refused.stdout
    assert "  adapt  " in refused.stdout
    assert recipe.read_text() == RECIPE
    mended = check("recipe.yaml", "--fix", "adapt", cwd=tmp_path)
    assert mended.returncode == 0, mended.stderr
    assert recipe.read_text().count("- head:") == 1
    assert "- resize: {at: layer3.0, inputs: 128}" in recipe.read_text()
    assert check("recipe.yaml", cwd=tmp_path).returncode == 0


PLANNED = """
base: resnet18@none
input: [3, 32, 32]
edits:
  - head: {classes: 10}
train:
  data: sklearn:digits
  optimizer: {sgd: {lr: 50.0, momentum: 0.9}}
"""


def test_a_recipe_is_checked_with_the_data_and_the_optimizer_of_its_plan(tmp_path):
    (tmp_path / "recipe.yaml").write_text(PLANNED)
    done = check("recipe.yaml", "--data", "plan", "--format", "json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "T012" in {json.loads(line)["code"] for line in done.stdout.splitlines()}


FROZEN = """
base: mobilenet_v2@none
input: [3, 32, 32]
edits:
  - head: {classes: 10}
  - freeze: {all_but: head}
train:
  data: sklearn:digits
"""


def test_what_torchgrafts_own_training_keeps_still_is_no_warning_for_its_plan(tmp_path):
    (tmp_path / "recipe.yaml").write_text(FROZEN)
    done = check("recipe.yaml", "--data", "plan", "--format", "json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = {one["code"]: one["severity"] for one in map(json.loads, done.stdout.splitlines())}
    assert (told["P018"], told["P020"]) == ("note", "note")


def test_a_source_is_checked_with_data_by_name(tmp_path):
    done = check("resnet18@none", "--input", "[3, 32, 32]", "--data", "sklearn:digits", cwd=tmp_path)
    assert done.returncode == 0
    assert "the output has 1000 classes, the data have 10" in done.stdout


def test_data_that_are_not_there_end_the_check(tmp_path):
    done = check("resnet18@none", "--data", "plan", cwd=tmp_path)
    assert (done.returncode, "does not say how to train" in done.stderr) == (2, True)
    assert check("resnet18@none", "--data", "nowhere:x", cwd=tmp_path).returncode == 2


NET = """
import torch
from torch import nn

model = nn.Sequential(nn.Linear(4, 8), nn.Linear(6, 3))
model.input_shape = (4,)
"""


def test_a_model_in_a_file_is_checked_and_its_recipe_says_that_it_needs_trust(tmp_path):
    (tmp_path / "net.py").write_text(NET)
    mended = check("net.py:model", "--fix", cwd=tmp_path)
    assert mended.returncode == 0, mended.stderr
    assert "torchgraft check recipe.yaml --trust" in mended.stderr
    assert check("recipe.yaml", cwd=tmp_path).returncode == 2
    assert check("recipe.yaml", "--trust", cwd=tmp_path).returncode == 0
