from __future__ import annotations

import json

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
        (("--to", "nowhere/model.svg"), "there is no folder nowhere"),
        (("--depth", "0"), "a depth of 0 shows nothing"),
        (("--at", "layr1"), "'layr1' matches no module"),
    ],
)
def test_mistakes_are_told_in_three_lines(capsys, arguments, what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, error = run(capsys, "resnet18@none", *arguments)
    assert code == 2
    assert what in error
    assert "do:" in error
    assert not list(tmp_path.iterdir())
