from __future__ import annotations

import json
import subprocess
import sys

import pytest
from PIL import Image
from sklearn.datasets import load_digits

from torchgraft.cli.main import main
from torchgraft.loading import load


def said(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(["features", *arguments])
    out = capsys.readouterr()
    return ended.value.code, out.out, out.err


@pytest.fixture
def digits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = load_digits()
    paths = []
    for number in (3, 8):
        paths.append(f"digit{number}.png")
        Image.fromarray((found.images[number] * 255 / 16).astype("uint8")).save(paths[-1])
    return paths


def test_maps_are_drawn_where_nothing_else_is_said(capsys, digits, tmp_path):
    code, out, _ = said(capsys, "bundled:glyphs", digits[0])
    assert (code, out) == (0, "features.png   feature maps of 4 layers\n")
    with Image.open(tmp_path / "features.png") as drawn:
        assert drawn.width == 2000


@pytest.mark.parametrize(
    ("arguments", "summary"),
    [
        (("--at", "layer2", "--over", "--top", "4"), "feature maps of layer2"),
        (("--kind", "grad-cam"), "grad-cam at layer3: class "),
        (("--kind", "grad-cam", "--class", "5", "--at", "layer2"), "grad-cam at layer2: class 5 "),
        (("--kind", "score-cam", "--at", "stem"), "score-cam at stem: class "),
        (("--class", "7", "--at", "layer3", "--dark"), "feature maps of layer3"),
    ],
)
def test_each_kind_is_drawn(capsys, digits, tmp_path, arguments, summary):
    code, out, _ = said(capsys, "bundled:glyphs", *digits, *arguments, "--to", "out.png")
    assert code == 0
    assert out.startswith(f"out.png   {summary}")
    assert Image.open(tmp_path / "out.png").height > 300


def test_filters_need_no_image(capsys, digits, tmp_path):
    code, out, _ = said(capsys, "bundled:glyphs", "--kind", "filters")
    assert (code, out) == (0, "features.png   filters of stem.0\n")


def test_statistics_are_a_table_and_a_picture_where_one_is_named(capsys, digits, tmp_path):
    code, out, _ = said(capsys, "bundled:glyphs", digits[0], "--kind", "statistics", "--at", "**:ReLU")
    assert code == 0
    assert " ".join(out.splitlines()[0].split()) == "layer kind shape mean std min max zeros dead channels"
    assert "layer1.relu (call 2)" in out
    assert not (tmp_path / "features.png").exists()
    code, out, _ = said(capsys, "bundled:glyphs", digits[0], "--kind", "statistics", "--to", "s.png")
    assert out.splitlines()[-1] == "s.png   statistics of 29 layers"


def test_attention_of_a_small_transformer(capsys, digits, tmp_path):
    (tmp_path / "net.py").write_text(
        "import timm\n"
        "def net():\n"
        "    return timm.create_model('vit_tiny_patch16_224', img_size=32, patch_size=8, depth=2, num_classes=3)\n"
    )
    code, out, _ = said(capsys, "net.py:net", digits[0], "--kind", "attention", "--input", "[3,32,32]")
    assert (code, out) == (0, "features.png   attention of 2 layers\n")


def test_json_is_one_object_and_draws_nothing(capsys, digits, tmp_path):
    code, out, _ = said(capsys, "bundled:glyphs", digits[0], "--at", "layer2", "--json", "--top", "2")
    found = json.loads(out)
    assert code == 0
    assert (found["kind"], found["images"], found["random"]) == ("maps", ["digit3.png"], False)
    assert [len(one["channels"]) for one in found["layers"]] == [2]
    assert not (tmp_path / "features.png").exists()
    code, out, _ = said(capsys, "bundled:glyphs", digits[0], "--kind", "statistics", "--json")
    assert json.loads(out)["layers"][0]["name"] == "stem.0"


def test_random_weights_are_told(capsys, digits):
    code, out, _ = said(capsys, "bundled:glyphs@none", digits[0], "--at", "layer2")
    assert code == 0
    assert "random weights" in out


def test_a_kept_version_knows_the_names_of_its_classes(capsys, digits, tmp_path):
    g = load("bundled:glyphs").head(classes=10)
    g.save("runs", classes=[f"digit {number}" for number in range(10)])
    code, out, _ = said(capsys, "runs@v1", digits[0], "--kind", "grad-cam", "--class", "digit 3")
    assert code == 0
    assert "grad-cam at layer3: digit 3 " in out


@pytest.mark.parametrize(
    ("arguments", "what", "do"),
    [
        (("bundled:glyphs",), "no image is named", "IMAGE.png"),
        (("bundled:glyphs", "none.png"), "no such image", "check the path"),
        (("bundled:glyphs", "text.png"), "can't be read", "give an image file"),
        (("bundled:glyphs", "digit3.png", "--at", "layre2"), "'layre2' matches no", "did you mean layer2"),
        (("bundled:glyphs", "digit3.png", "--kind", "attention"), "no attention here", "--kind maps"),
        (
            ("bundled:glyphs", "digit3.png", "--kind", "grad-cam", "--at", "fc"),
            "no map is given there",
            "[N, C, H, W]",
        ),
        (("bundled:glyphs", "digit3.png", "--kind", "grad-cam", "--class", "one"), "no class 'one'", "0 to 296"),
        (("bundled:glyphs", "digit3.png", "--to", "digit8.png"), "no PNG of torchgraft's", "name another file"),
        (("bundled:glyphs", "digit3.png", "--to", "digit3.png"), "the file that is read", "name another file"),
        (("bundled:glyphs", "digit3.png", "--to", "text.png"), "no PNG", "name another file"),
        (("bundled:glyphs", "digit3.png", "--to", "out.svg"), "ends in '.svg'", "--to out.png"),
        (("bundled:glyphs", "digit3.png", "--kind", "filters", "--at", "fc"), "no convolution", "--kind maps"),
        (("bundled:glyphs", "digit3.png", "--kind", "map"), "map", "--help"),
    ],
)
def test_mistakes_are_told_in_three_lines(capsys, digits, tmp_path, arguments, what, do):
    (tmp_path / "text.png").write_text("no image")
    before = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    code, _, err = said(capsys, *arguments)
    assert code == 2
    assert what in err
    assert do in err
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == before


def test_a_sheet_is_drawn_anew_but_not_over_itself_as_an_image(capsys, digits, tmp_path):
    asked = ("bundled:glyphs", "--kind", "filters", "--to", "out.png")
    assert [said(capsys, *asked)[0] for _ in range(2)] == [0, 0]
    assert said(capsys, "bundled:glyphs", "out.png", "--to", "out.png")[0] == 2


@pytest.mark.parametrize(
    "arguments",
    [("none.png",), ("text.png",), ("digit3.png", "--to", "out.svg"), ("digit3.png", "--to", "digit3.png"), ()],
)
def test_what_costs_nothing_to_see_is_told_before_torch_is_loaded(digits, tmp_path, arguments):
    (tmp_path / "text.png").write_text("no image")
    code = (
        "import sys\nfrom torchgraft.cli.main import main\n"
        f"try:\n    main(['features', 'bundled:glyphs', *{arguments!r}])\n"
        "except SystemExit as left:\n    print(left.code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "2 False\n", done.stderr


def test_help_needs_no_torch():
    code = "import sys; from torchgraft.cli.main import app; app(['features', '--help'], exit_on_error=False)"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; sys.exit('torch' in sys.modules)"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "grad-cam" in done.stdout
