from __future__ import annotations

import json
import subprocess
import sys

import pytest

from torchgraft.cli.main import main


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main(["draw", *arguments])
    out = capsys.readouterr()
    return int(left.value.code or 0), out.out, out.err


def test_a_model_is_drawn_to_a_file(capsys, tmp_path):
    code, out, _ = run(capsys, "resnet18@none", "--to", str(tmp_path / "model.svg"), "--depth", "1")
    assert code == 0
    assert out.replace("\n", "").endswith("model.svg: 13 boxes, 65 more in closed ones")
    assert (tmp_path / "model.svg").read_text().startswith("<svg")


def test_a_part_is_drawn_with_its_boxes_open(capsys, tmp_path):
    path = tmp_path / "model.dot"
    assert run(capsys, "resnet18@none", "--to", str(path), "--at", "layer2", "--open", "layer2.1")[0] == 0
    assert '"layer2.1.conv1"' in path.read_text()
    assert '"layer2.0.conv1"' not in path.read_text()


def test_a_recipe_is_drawn_with_what_its_edits_put_in(capsys, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("base: resnet18@none\nedits:\n  - head: {classes: 10}\n  - freeze: {all_but: [head]}\n")
    code, out, _ = run(capsys, str(recipe), "--json")
    data = json.loads(out)
    boxes = {box["id"]: box for box in data["root"]["boxes"]}
    assert code == 0
    assert (boxes["fc"]["mark"], boxes["fc"]["edit"], boxes["conv1"]["state"]) == ("new", 1, "frozen")


def test_unfolded_blocks_are_drawn_one_by_one(capsys):
    data = json.loads(run(capsys, "resnet18@none", "--json", "--no-fold")[1])
    layer1 = next(box for box in data["root"]["boxes"] if box["id"] == "layer1")
    assert [box["label"] for box in layer1["boxes"]] == ["0", "1"]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("--to", "model.gif"), "ends in '.gif'"),
        (("--to", "mine.svg"), "no SVG of torchgraft's, and would be lost"),
        (("--to", "nowhere/model.svg"), "there is no folder nowhere"),
        (("--depth", "0"), "a depth of 0 shows nothing"),
        (("--at", "layr1"), "'layr1' matches no module"),
    ],
)
def test_mistakes_are_told_in_three_lines(capsys, arguments, what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.svg").write_text("<svg/>")
    code, _, error = run(capsys, "resnet18@none", *arguments)
    assert code == 2
    assert what in error
    assert "do:" in error
    assert [one.name for one in tmp_path.iterdir()] == ["mine.svg"]
    assert (tmp_path / "mine.svg").read_text() == "<svg/>"


def test_a_pass_that_breaks_off_is_drawn_and_told(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef bad():\n    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(4))\n"
    )
    code, out, _ = run(capsys, "net.py:bad", "--input", "[3,8,8]")
    assert code == 1
    assert "the pass breaks off at 1: S001" in out
    assert (tmp_path / "model.svg").exists()
    assert run(capsys, "net.py:bad", "--input", "[3,8,8]", "--json")[0] == 1


@pytest.mark.parametrize("to", ["model.gif", "nowhere/model.svg", "mine.svg"])
def test_a_file_that_will_not_do_is_told_before_torch_is_loaded(tmp_path, to):
    (tmp_path / "mine.svg").write_text("<svg/>")
    code = f"import sys; from torchgraft.cli.draw import draw; draw('resnet18@none', to={to!r})"
    told = (
        "try:\n    exec(code)\nexcept Exception as error:\n    print(type(error).__name__, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; code = {code!r}\n{told}"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.stdout == "StoreError False\n", done.stderr
