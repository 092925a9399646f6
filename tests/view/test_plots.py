"""The pictures: sized as promised, never blank, never broken by names or figures."""

from __future__ import annotations

import io
import math
import subprocess
import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from torchgraft.history import Epoch, Evaluation, History
from torchgraft.view import plots
from torchgraft.view.canvas import DARK, LIGHT, label, percent, trim
from torchgraft.view.plots import Sample


def history(count: int, **changes: float) -> History:
    epochs = tuple(
        Epoch(
            **{
                "number": number,
                "train_loss": 2 / number,
                "train_accuracy": 1 - 0.5 / number,
                "val_loss": 2.2 / number,
                "val_accuracy": 1 - 0.6 / number,
                "lr": 0.01 / number,
                "seconds": 1.0,
                **changes,
            }
        )
        for number in range(1, count + 1)
    )
    return History(epochs=epochs, best=count, seconds=float(count))


def evaluation(names: list[str], each: int = 7) -> Evaluation:
    targets = np.repeat(np.arange(len(names)), each)
    predictions = np.where(np.arange(len(targets)) % 5 == 0, (targets + 1) % len(names), targets)
    confusion = np.zeros((len(names), len(names)), int)
    np.add.at(confusion, (targets, predictions), 1)
    return Evaluation(
        classes=tuple(names),
        accuracy=float((targets == predictions).mean()),
        loss=0.5,
        confusion=tuple(map(tuple, confusion.tolist())),
        targets=tuple(targets.tolist()),
        predictions=tuple(predictions.tolist()),
        confidence=(0.9,) * len(targets),
    )


def sample(right: bool, confidence: float, size: tuple[int, int] = (8, 8), mode: str = "L") -> Sample:
    image = Image.linear_gradient("L").resize(size).convert(mode)
    return Sample(image, "three", "three" if right else "eight", confidence)


def opened(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png)).convert("RGB")


def colors(picture: Image.Image) -> set[tuple[int, int, int]]:
    return {color for _, color in picture.getcolors(picture.width * picture.height)}


def rgb(color: str) -> tuple[int, int, int]:
    return tuple(bytes.fromhex(color[1:]))


@pytest.mark.parametrize(("count", "palette"), [(1, LIGHT), (1, DARK), (2, LIGHT), (30, LIGHT), (300, DARK)])
def test_curves_of_any_length_are_drawn(count, palette):
    picture = opened(plots.curves(history(count), palette))
    assert picture.size == (1840, 840)
    assert picture.getpixel((0, 0)) == rgb(palette.paper)
    assert len(colors(picture)) > 20


def test_no_epoch_is_said_and_not_an_error():
    assert len(colors(opened(plots.curves(History())))) > 2


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, 1e30])
def test_figures_that_went_wrong_still_give_curves(value):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for fields in (("train_loss", "lr"), ("val_loss", "val_accuracy")):
            assert plots.curves(history(3, **dict.fromkeys(fields, value)))


@pytest.mark.parametrize(("count", "side"), [(2, 772), (10, 1300), (20, 2180), (21, 1840), (257, 1840)])
def test_confusion_of_any_size_is_drawn(count, side):
    picture = opened(plots.confusion(evaluation([f"class {number}" for number in range(count)])))
    assert picture.size == (side, side)
    assert len(colors(picture)) > 20


def test_a_class_without_samples_is_an_empty_row():
    given = evaluation(["a", "b", "c"]).model_copy(update={"confusion": ((2, 1, 0), (0, 0, 0), (0, 0, 4))})
    assert plots.confusion(given)


@pytest.mark.parametrize("name", ["cost $x$", r"$\frac{", "猫", "a\nb", "", "<script>", "x" * 300])
def test_any_name_can_be_drawn(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert plots.confusion(evaluation([name, "other"]))
        assert plots.samples([Sample(Image.new("L", (8, 8)), name, name, 0.5)])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I", "F", "CMYK"])
def test_images_of_every_mode_become_eight_bit(mode):
    image = Image.linear_gradient("L").convert("I" if mode == "I;16" else mode)
    grey = np.asarray(plots.eight_bit(image.convert(mode)).convert("L"))
    assert (grey.min(), grey.max()) == (0, 255)


def test_samples_stand_six_in_a_row():
    chosen = [sample(True, 0.9, (300, 200), "RGB"), *[sample(False, 0.8)] * 6]
    picture = opened(plots.samples(chosen))
    assert picture.size == (1836, 780)
    assert {rgb(LIGHT.good), rgb(LIGHT.bad)} <= colors(picture)


def test_mistakes_come_first_then_what_was_least_sure():
    given = [sample(True, 0.9), sample(False, 0.4), sample(True, 0.3), sample(False, 0.8)]
    ranked = [(one.right, one.confidence) for one in plots.ranked(given)]
    assert ranked == [(False, 0.8), (False, 0.4), (True, 0.3), (True, 0.9)]


@pytest.mark.parametrize(
    ("share", "words"),
    [(1.0, "100 %"), (0.99999, "99.9 %"), (0.5, "50.0 %"), (0.00001, "0.1 %"), (0.0, "0 %"), (math.nan, "–")],
)
def test_only_all_is_a_hundred_per_cent(share, words):
    assert percent(share).replace("\u00a0", " ") == words


def test_names_are_trimmed_in_their_middle():
    assert trim("golden_retriever_01") == "golden_r…ever_01"
    assert trim(" short\nname ") == "short name"


def test_a_name_that_no_font_can_draw_gives_way_to_its_number():
    assert label("\U0010fffd", "#3") == "#3"
    assert label("a\U0010fffd") == "a?"


def test_the_same_data_give_the_same_bytes():
    assert plots.curves(history(3)) == plots.curves(history(3))


def test_the_settings_of_the_caller_stay_as_they_are():
    import matplotlib

    with matplotlib.rc_context({"font.size": 31, "text.usetex": True}):
        plots.curves(history(2))
        assert matplotlib.rcParams["font.size"] == 31


def test_importing_the_report_imports_nothing_heavy():
    code = "import sys, torchgraft.view.report; print({'matplotlib', 'torch', 'jinja2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_drawing_leaves_pyplot_alone():
    code = (
        "import sys; from torchgraft.view import plots; from torchgraft.history import History;"
        "plots.curves(History()); sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
