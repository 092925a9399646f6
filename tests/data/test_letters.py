"""Letters rendered to look like scikit-learn's digits."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from torchgraft.data import parse_data
from torchgraft.data.base import ArraySamples
from torchgraft.errors import DataError

pytest.importorskip("scipy")

from torchgraft.data import letters
from torchgraft.data.lettering.classes import CLASSES
from torchgraft.data.lettering.render import render

ROOT = Path(__file__).parents[2]
FEW = CLASSES[:4]


def test_the_source_opens_as_grey_letters_of_the_size_of_the_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letters, "VALIDATION", 20)
    done: list[tuple[int, int]] = []
    data = parse_data("letters:30").open(progress=lambda *at: done.append(at))
    assert (len(data.train), len(data.val), data.channels, data.size) == (30, 20, 1, (8, 8))
    assert data.classes == CLASSES
    assert isinstance(data.train, ArraySamples)
    assert not np.array_equal(data.train.images[:20], data.val.images)  # type: ignore[attr-defined]
    assert done == [(30, 30)]
    assert "rendered from seed 0" in data.split


def test_the_same_seed_renders_the_same_letters() -> None:
    (images, labels), (again, same) = render(20, 3, classes=FEW), render(20, 3, classes=FEW)
    assert np.array_equal(images, again)
    assert np.array_equal(labels, same)
    assert not np.array_equal(images, render(20, 4, classes=FEW)[0])


def test_letters_look_like_the_digits_they_prepare_for() -> None:
    digits = pytest.importorskip("sklearn.datasets").load_digits().images
    images, labels = render(400, 0, classes=FEW)
    steps = images * (16 / 255)
    assert images.dtype == np.uint8
    assert np.abs(steps - steps.round()).max() < 0.04
    assert set(labels.tolist()) == {0, 1, 2, 3}
    assert abs(steps.mean() - digits.mean()) < 1.5
    filled = [np.any(one.max(axis=2) > 0, axis=0).mean() for one in (steps, digits)]
    assert filled[0] == pytest.approx(filled[1], abs=0.1)


def test_two_letters_of_one_class_differ() -> None:
    images, _ = render(10, 0, classes=FEW[:1])
    assert len(np.unique(images, axis=0)) == 10


def test_no_class_is_a_digit_and_none_stands_twice() -> None:
    assert len(CLASSES) == len(set(CLASSES)) == 297
    assert all(len(letter) == 1 and letter.isalpha() for letter in CLASSES)


@pytest.mark.parametrize("count", ["0", "-3", "many", "1e3", "²"])
def test_what_is_no_count_is_refused(count: str) -> None:
    with pytest.raises(DataError, match=rf"'{count}' is no number of letters(.|\n)*letters:5000"):
        parse_data(f"letters:{count}").open()


def test_without_scipy_the_package_to_install_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(DataError, match=r"scipy is not installed(.|\n)*pip install 'torchgraft\[demo\]'"):
        parse_data("letters:5").open()


def test_nothing_heavy_is_imported_before_a_source_is_opened() -> None:
    heavy = "{'scipy', 'matplotlib', 'torch', 'numpy'}"
    code = f"import sys, torchgraft.data as data; data.parse_data('letters:5'); print({heavy} & {{*sys.modules}})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"


@pytest.mark.slow
def test_choosing_the_classes_again_gives_the_frozen_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    assert importlib.import_module("choose_letters").chosen() == CLASSES
