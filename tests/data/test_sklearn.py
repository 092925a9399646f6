"""The digits that scikit-learn brings along."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from torchgraft.data import parse_data
from torchgraft.errors import DataError

load_digits = pytest.importorskip("sklearn.datasets").load_digits


def test_the_digits_are_split_in_the_middle_and_scaled_to_8_bits() -> None:
    data = parse_data("sklearn:digits").open(seed=5)
    raw = load_digits()
    assert (len(data.train), len(data.val), data.channels, data.size) == (898, 899, 1, (8, 8))
    assert data.classes == tuple("0123456789")
    assert list(data.train.labels) + list(data.val.labels) == raw.target.tolist()
    assert "first half trains" in data.split
    image, label = data.val[0]
    assert (image.mode, label) == ("L", raw.target[898])
    assert np.array_equal(np.asarray(image), np.round(raw.images[898] * 255 / 16))


@pytest.mark.parametrize(("name", "hint"), [("digit", "did you mean digits"), ("zzz", "one of sklearn:digits")])
def test_another_name_is_refused(name: str, hint: str) -> None:
    with pytest.raises(DataError, match=rf"no images called '{name}'(.|\n)*{hint}"):
        parse_data(f"sklearn:{name}").open()


def test_options_are_refused() -> None:
    with pytest.raises(DataError, match=r"no images called 'digits\?n=3'(.|\n)*did you mean digits"):
        parse_data("sklearn:digits?n=3").open()


def test_without_scikit_learn_the_package_to_install_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sklearn", "sklearn.datasets"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DataError, match=r"not installed(.|\n)*pip install 'torchgraft\[demo\]'"):
        parse_data("sklearn:digits").open()
