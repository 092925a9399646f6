"""The bundled base pays: few digits are learnt better from it than from random weights."""

from __future__ import annotations

import importlib
from pathlib import Path
from statistics import mean
from types import ModuleType

import pytest

pytest.importorskip("sklearn")


@pytest.fixture
def transfer(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    return importlib.import_module("benchmarks.transfer")


def test_two_samples_a_class_gain_much(transfer: ModuleType) -> None:
    found = transfer.compare(2, range(2), augment="none", fresh=transfer.FRESH[:1])
    assert mean(found.gains) > 10
    assert min(found.adapted) > 70


@pytest.mark.slow
@pytest.mark.parametrize(("per_class", "points"), [(2, 10), (5, 5)])
def test_ten_seeds_gain_what_the_readme_says(transfer: ModuleType, per_class: int, points: int) -> None:
    found = transfer.compare(per_class)
    assert mean(found.gains) >= points
    assert found.interval[0] > 0
