"""The page: needs nothing but itself, trusts nothing it was given, and says what it should."""

from __future__ import annotations

import base64
import dataclasses
import functools
import io
import itertools
import math
import os
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from torchgraft.errors import StoreError
from torchgraft.history import Epoch, Evaluation, History
from torchgraft.view.report import Overlay, Report, Sample, Step, draw, duration, html, mixed, training, write

GOLDEN = Path(__file__).parent / "golden" / "report.txt"
VOID = {"meta", "img", "source", "br", "link"}


@dataclass(frozen=True)
class Problem:
    code: str
    severity: str
    title: str
    where: str

    def __str__(self) -> str:
        return f"{self.severity}[{self.code}] {self.title}\n  made by layer2"


class Page(HTMLParser):
    """The tags with their attributes, and the words a reader meets, block by block."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.words += " | "

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag in ("h1", "h2", "h3", "p", "dt", "dd", "tr", "li", "pre", "summary", "footer"):
            self.words += "\n"

    def handle_data(self, data):
        if "style" not in self.open:
            self.words += data if "pre" in self.open else re.sub(r"\s+", " ", data)

    def text(self) -> str:
        lines = (re.sub(r"\s+", " ", line).strip(" |") for line in self.words.splitlines())
        return "\n".join(line for line in lines if line) + "\n"

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def epoch(number: int, accuracy: float) -> Epoch:
    return Epoch(
        number=number,
        train_loss=1 / number,
        train_accuracy=accuracy,
        val_loss=1.1 / number,
        val_accuracy=accuracy,
        lr=0.01,
        seconds=2.0,
    )


def small(**changes: object) -> Report:
    image = Image.linear_gradient("L").resize((8, 8))
    report = Report(
        title="resnet18 → digits",
        task="Tell three digits apart.",
        history=History(epochs=(epoch(1, 0.5), epoch(2, 0.8), epoch(3, 0.75)), best=2, seconds=6.2),
        evaluation=Evaluation(
            classes=("zero", "one", "two"),
            accuracy=0.8,
            loss=0.6131,
            confusion=((4, 0, 1), (0, 3, 2), (0, 0, 5)),
            targets=(0,) * 5 + (1,) * 5 + (2,) * 5,
            predictions=(0, 0, 0, 0, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2),
            confidence=(0.9,) * 15,
        ),
        samples=(Sample(image, "two", "two", 0.97), Sample(image, "one", "two", 0.61)),
        steps=(
            Step(1, "head", "The last layer gives 3 classes instead of 1000.", 1539),
            Step(2, "freeze", "Everything but the head keeps its trained values."),
        ),
        findings=(
            Problem("D003", "warning", "images are normalised otherwise", "data"),
            Problem("S001", "error", "channels do not match", "layer3.0.conv1"),
            Problem("P004", "note", "nothing to worry about", ""),
        ),
        facts=(("base", "torchvision:resnet18"), ("input", "3 × 224 × 224")),
        timings=(("load", 0.4), ("train", 72.0)),
        recipe="torchgraft: 1\nbase: torchvision:resnet18\n",
        next_commands=("torchgraft predict runs/digits image.png",),
    )
    return dataclasses.replace(report, **changes)


@functools.cache
def pictures() -> dict[str, bytes]:
    """Drawn once: what the page says does not depend on what its pictures show."""
    return draw(small())


def page(report: Report) -> Page:
    return Page(html(report, pictures()))


def test_the_words_are_the_golden_ones():
    words = page(small()).text()
    if os.environ.get("TORCHGRAFT_GOLDEN"):
        GOLDEN.write_text(words, encoding="utf-8")
    assert words == GOLDEN.read_text(encoding="utf-8")


def test_the_page_needs_nothing_but_itself(tmp_path):
    text = write(small(), tmp_path).read_text(encoding="utf-8")
    made = Page(text)
    images = made.all("img")
    assert len(images) == 4
    assert all(image["src"].startswith("data:image/") for image in images)
    assert all(source["srcset"].startswith("data:image/") for source in made.all("source"))
    assert all(image["alt"] for image in images)
    assert not made.all("script")
    assert not made.all("link")
    assert not re.search(r"(?:src|href|srcset|action)\s*=\s*[\"']?(?:https?:|//)", text)
    assert not re.search(r"url\(|@import", text)


def test_headings_are_a_tree_and_tables_have_headers():
    made = page(small())
    levels = [int(tag[1]) for tag, _ in made.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert all("scope" in attrs for attrs in made.all("th"))
    known = {attrs["id"] for _, attrs in made.tags if "id" in attrs}
    assert {attrs["aria-labelledby"] for attrs in made.all("section")} == known


def test_all_that_was_given_is_escaped():
    bad = "<script>alert('x')</script>\"&"
    image = Image.new("L", (8, 8))
    report = small(
        title=bad,
        task=bad,
        evaluation=small().evaluation.model_copy(update={"classes": ("<script>", "<b>", bad)}),
        samples=(Sample(image, bad, "<script>", 0.5),),
        steps=(Step(1, bad, bad, 1),),
        findings=(Problem(bad, bad, bad, bad),),
        facts=((bad, bad),),
        timings=((bad, 1.0),),
        recipe=bad,
        next_commands=(bad,),
    )
    made = page(report)
    assert not made.all("script")
    assert not made.all("b")
    assert made.text().count("<script>") >= 12


def test_severe_findings_come_first_and_stand_open():
    made = page(small())
    ranks = [attrs["class"] for attrs in made.all("li") if "class" in attrs]
    assert ranks == ["error", "warning", "note"]
    assert ["open" in attrs for attrs in made.all("details")] == [True, False, False, False]


def test_mistaken_samples_are_marked_by_more_than_colour():
    words = page(small()).text()
    assert words.index("✗ two 61 %") < words.index("✓ two 97 %")


def test_pictures_lie_beside_the_page_and_nothing_else_is_left(tmp_path):
    assert write(small(), tmp_path / "new" / "run") == tmp_path / "new" / "run" / "report.html"
    names = sorted(path.name for path in (tmp_path / "new" / "run").iterdir())
    assert names == ["confusion.png", "curves.png", "report.html", "samples.png"]
    for name in names:
        if name.endswith(".png"):
            picture = np.asarray(Image.open(tmp_path / "new" / "run" / name).convert("L"))
            assert picture.std() > 5


def test_a_report_without_samples_takes_the_old_picture_away(tmp_path):
    (tmp_path / "samples.png").write_bytes(b"an older one")
    words = Page(write(small(samples=()), tmp_path).read_text(encoding="utf-8")).text()
    assert not (tmp_path / "samples.png").exists()
    assert "Samples" not in words


def test_an_interrupted_run_is_said():
    history = History(epochs=(epoch(1, 0.5),), best=1, ended="interrupted", seconds=2.0)
    words = page(small(history=history)).text()
    assert "Interrupted after 1 epoch in 2.0 s. Best on validation: epoch 1 with 50.0 %." in words


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("findings", "No problem was found."),
        ("steps", "Nothing: the model is the base as it was."),
        ("facts", "Training"),
        ("timings", "6.2 s in all"),
        ("next_commands", "Recipe"),
    ],
)
def test_what_is_empty_is_said_or_left_out(field, words):
    text = page(small(**{field: ()})).text()
    assert words in text.replace("in all\n6.2 s", "6.2 s in all")


def test_no_epoch_at_all_gives_a_page():
    assert "No epoch was run." in page(small(history=History(), timings=())).text()


def test_of_many_classes_the_hardest_are_told():
    count = 257
    confusion = np.eye(count, dtype=int) * 5
    confusion[200, 3] = 20
    evaluation = Evaluation(
        classes=tuple(f"object {number}" for number in range(count)),
        accuracy=0.9,
        loss=0.5,
        confusion=tuple(map(tuple, confusion.tolist())),
        targets=(),
        predictions=(),
        confidence=(),
    )
    text = page(small(evaluation=evaluation)).text()
    assert "The 20 hardest of 257 classes" in text
    assert "201 | object 200 | 25 | 20.0 % | | object 3 (20 times)" in text


def test_ten_classes_with_photographs_stay_under_a_megabyte():
    noise = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    photo = Image.fromarray(noise).resize((640, 480), Image.Resampling.BICUBIC)
    confusion = np.full((10, 10), 3) + np.eye(10, dtype=int) * 50
    evaluation = small().evaluation.model_copy(
        update={"classes": tuple("abcdefghij"), "confusion": tuple(map(tuple, confusion.tolist()))}
    )
    report = small(evaluation=evaluation, samples=(Sample(photo, "a", "b", 0.5),) * 40)
    assert len(html(report, draw(report))) < 1_000_000


def test_large_images_are_shrunk_and_tiny_ones_kept():
    images = (Image.new("RGB", (640, 480), "red"), Image.new("L", (8, 8)))
    made = page(small(samples=tuple(Sample(image, "a", "b", 0.5) for image in images)))
    tiles = [image for image in made.all("img") if "width" not in image]
    sizes = [Image.open(io.BytesIO(base64.b64decode(tile["src"].split(",")[1]))).size for tile in tiles]
    assert sizes == [(256, 192), (8, 8)]
    assert [tile.get("class") for tile in tiles] == [None, "tiny"]


def test_a_folder_that_cannot_be_written_is_a_store_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match=r"report can't be written(?s:.*)where:(?s:.*)do:"):
        write(small(), tmp_path / "file")


def test_a_failed_write_keeps_the_old_page_and_leaves_no_part(tmp_path, monkeypatch):
    (tmp_path / "report.html").write_text("old")

    def full(source, target):
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StoreError, match="No space left"):
        write(small(title="new"), tmp_path)
    assert (tmp_path / "report.html").read_text() == "old"
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (9.96, "10 s"), (59.6, "1 min 0 s"), (92, "1 min 32 s"), (7500, "2 h 5 min")],
)
def test_times_read_as_one_says_them(seconds, words):
    assert duration(seconds).replace("\u00a0", " ") == words


def test_mistakes_are_told_in_words():
    assert mixed(small().evaluation) == "Most often mistaken: one for two (twice), zero for two (once)."
    right = small().evaluation.model_copy(update={"confusion": ((1, 0, 0), (0, 1, 0), (0, 0, 1))})
    assert mixed(right) == "No class was taken for another."


def test_training_is_told_in_words():
    assert training(small().history).replace("\u00a0", " ") == (
        "3 epochs in 6.2 s. Best on validation: epoch 2 with 80.0 %."
    )


# other tasks


def of_quantities() -> Evaluation:
    return Evaluation(
        task="regression", classes=("width", "height"), loss=0.4, count=3,
        figures={"rmse": 2.635, "mae": 2.1, "r2": 0.597},
        each=({"rmse": 3.9, "mae": 3.1, "r2": 0.44, "lowest": 40.0, "highest": 61.1},
              {"rmse": 1.4, "mae": 1.1, "r2": -0.2, "lowest": 0.5, "highest": 9.5}),
        truths=((41.0, 1.0), (50.0, 2.0), (60.0, 9.0)), guesses=((43.0, 2.0), (51.0, 2.0), (55.0, 7.0)),
    )  # fmt: skip


def of_labels(count: int = 2) -> Evaluation:
    each = {"average_precision": 0.912, "precision": 0.5, "recall": 1.0, "f1": 2 / 3, "samples": 12.0}
    return Evaluation(
        task="labels", classes=tuple(f"label {number}" for number in range(count)), loss=0.3, count=40,
        figures={"average_precision": 0.912, "f1": 2 / 3, "exact_match": 0.25},
        each=tuple({**each, "average_precision": 0.9 - number / 100} for number in range(count)),
    )  # fmt: skip


def of_masks() -> Evaluation:
    return Evaluation(
        task="mask", classes=("ground", "ball"), loss=0.1, count=8,
        figures={"mean_iou": 0.939, "pixel_accuracy": 0.984},
        each=({"iou": 0.98, "share": 0.85}, {"iou": math.nan, "share": 0.0}),
    )  # fmt: skip


def judged(evaluation: Evaluation, **changes: object) -> Report:
    name, value = next(iter(evaluation.figures.items()))
    epochs = tuple(
        Epoch(number=number, train_loss=1 / number, val_loss=1 / number, val={name: value}, lr=0.01, seconds=1.0)
        for number in (1, 2)
    )
    history = History(epochs=epochs, best=2, metric=name, higher=name != "rmse", seconds=2.0)
    return small(evaluation=evaluation, history=history, samples=(), **changes)


def words_of(report: Report) -> str:
    return Page(html(report, draw(report))).text().replace("\u00a0", " ")


def test_quantities_are_shown_predicted_against_true(tmp_path):
    words = words_of(judged(of_quantities()))
    assert "2.635" in words
    assert "RMSE on validation" in words
    assert "MAE 2.1, R² 0.597, 3 samples" in words
    assert "Predicted against true" in words
    assert "width | 3.9 | 3.1 | 0.44 | 40 | 61.1" in words
    assert "Best on validation: epoch 2 with RMSE 2.635." in words
    assert "What is taken for what" not in words
    write(judged(of_quantities()), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "predicted.png", "report.html"]
    assert np.asarray(Image.open(tmp_path / "predicted.png").convert("L")).std() > 5


def test_labels_have_a_table_and_of_many_the_hardest():
    words = words_of(judged(of_labels()))
    assert "mean average precision on validation" in words
    assert "macro F1 66.7 %, exact match 25.0 %, 40 samples" in words
    assert "label 1 | 12 | 89.0 % | 50.0 % | 100 % | 66.7 %" in words
    words = words_of(judged(of_labels(50)))
    assert "The 20 hardest of 50" in words
    assert "50 | label 49 | 12 | 41.0 %" in words


def overlay(seed: int) -> Overlay:
    random = np.random.default_rng(seed)
    image = Image.fromarray(random.integers(0, 255, (12, 16, 3), dtype=np.uint8))
    truth = np.zeros((12, 16), dtype=np.uint8)
    truth[3:7, 4:9] = 1
    truth[0] = 255
    return Overlay(image, truth.tobytes(), np.roll(truth, 2).tobytes(), 0.5)


def test_masks_have_an_overlap_for_each_class_and_the_worst_are_shown():
    report = judged(of_masks(), overlays=(overlay(0), overlay(1)))
    words = words_of(report)
    assert "mean IoU on validation" in words
    assert "pixel accuracy 98.4 %, 8 samples" in words
    assert "ground | 85.0 % | 98.0 %" in words
    assert "ball | 0 % | –" in words
    assert "The 2 validation samples with the lowest IoU" in words
    assert "Grey is not judged." in words
    picture = Image.open(io.BytesIO(draw(report)["masks.png"]))
    assert picture.width > picture.height
    colours = picture.convert("RGB").getcolors(2**24)
    assert len(colours) > 100


def test_a_report_of_another_task_takes_the_old_pictures_away(tmp_path):
    write(small(), tmp_path)
    write(judged(of_quantities()), tmp_path)
    assert not (tmp_path / "confusion.png").exists()
    write(judged(of_labels()), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "report.html"]


def test_states_that_are_judged_by_the_loss_have_a_curve_of_it():
    history = History(epochs=(epoch(1, 0.5), epoch(2, 0.8)), best=2, metric="loss", higher=False, seconds=2.0)
    assert training(history).replace("\u00a0", " ").endswith("Best on validation: epoch 2 with loss 0.55.")
    assert "accuracy on the right" in html(small(history=history), pictures())
