from __future__ import annotations

import json

import pytest

from torchgraft.cli.main import main
from torchgraft.profile.files import check_trace

RECIPE = """
base: bundled:glyphs
edits:
- head: {classes: 10}
train: {data: "sklearn:digits", batch: 16, epochs: 1, optimizer: {sgd: {lr: 0.01}}}
"""

SCRIPT = """
import sys
import torch
from torch import nn

net = nn.Linear(4, 4)
for _ in range(3):
    net(torch.zeros(2, 4)).sum().backward()
print("got", sys.argv[1:])
sys.exit(5 if "--fail" in sys.argv else 0)
"""


def said(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(["profile", *arguments])
    out = capsys.readouterr()
    return ended.value.code, out.out, out.err


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "script.py").write_text(SCRIPT)
    return tmp_path


def test_a_recipe_is_profiled_as_it_is_trained(capsys, folder):
    code, out, _ = said(capsys, "recipe.yaml", "--quick", "--steps", "2", "--to", "trace.json")
    assert code == 0
    for words in (
        "training step",
        "prediction",
        "data, waiting",
        "it goes to",
        "layer3",
        "of tensors at the peak",
    ):
        assert words in out
    assert "ui.perfetto.dev" in out
    assert "traceEvents" in json.loads((folder / "trace.json").read_text())
    check_trace(folder / "trace.json")


def test_a_trace_that_torch_wrote_for_the_user_is_left(capsys, folder):
    before = '{"schemaVersion": 1, "traceEvents": []}'
    (folder / "trace.json").write_text(before)
    code, _, err = said(capsys, "recipe.yaml", "--quick", "--to", "trace.json")
    assert code == 2
    assert "no JSON of torchgraft's, and would be lost" in err
    assert (folder / "trace.json").read_text() == before


def test_a_source_is_profiled_as_data(capsys, folder):
    code, out, _ = said(capsys, "bundled:glyphs", "--quick", "--steps", "1", "--batch", "3", "--json")
    assert code == 0
    data = json.loads(out)
    assert [run["kind"] for run in data["runs"]] == ["training step", "prediction"]
    assert data["runs"][0]["samples"] == 3


def test_everything_after_a_scripts_name_is_the_scripts(capsys, folder):
    code, out, _ = said(capsys, "--to", "t.json", "script.py", "--fail", "--batch", "7", "--json")
    assert code == 5
    assert "got ['--fail', '--batch', '7', '--json']" in out
    assert "ended: exit code 5" in out
    assert (folder / "t.json").exists()


def test_the_trace_is_where_it_was_asked_for_though_the_script_goes_elsewhere(capsys, folder):
    (folder / "elsewhere").mkdir()
    (folder / "script.py").write_text("import os\nos.chdir('elsewhere')\n" + SCRIPT)
    code, _, _ = said(capsys, "--to", "t.json", "script.py")
    assert code == 0
    assert (folder / "t.json").exists()


def test_a_script_as_data_has_its_own_words_first(capsys, folder):
    code, out, _ = said(capsys, "--json", "script.py")
    assert code == 0
    first, last = out.splitlines()
    assert first == "got []"
    assert json.loads(last)["script"]["ended"] == "finished"


def test_a_file_of_another_kind_is_not_written_over(capsys, folder):
    (folder / "mine.json").write_text("{}")
    code, _, err = said(capsys, "bundled:glyphs", "--to", "mine.json")
    assert code == 2
    assert "no JSON of torchgraft's" in err
    assert (folder / "mine.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("arguments", "what", "do"),
    [
        (("resnet19@none",), "resnet19", "did you mean resnet18"),
        (("missing.py",), "can't be read", "check the path"),
        (("bundled:glyphs", "more"), "one argument too many", "script.py"),
        (("bundled:glyphs", "--device", "warp"), "no device 'warp'", "cpu"),
        (
            ("bundled:glyphs", "--to", "trace.txt"),
            "a trace is not written to a file that ends in '.txt'",
            "trace.json",
        ),
        (("bundled:glyphs", "--to", "no/where.json"), "there is no folder no", "make it first"),
    ],
)
def test_mistakes_are_told_in_three_lines(capsys, folder, arguments, what, do):
    code, _, err = said(capsys, *arguments)
    assert code == 2
    assert what in err
    assert do in err
