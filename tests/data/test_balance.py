"""How even classes are: the counts, the weights as scikit-learn computes them, and what is said."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from torchgraft.data import DataSet
from torchgraft.data.balance import Balance, balance
from torchgraft.data.objects import as_data_set


def of(*counts: int) -> Balance:
    return Balance(tuple("abcdefgh"[: len(counts)]), counts, sum(counts))


@given(st.lists(st.integers(1, 500), min_size=2, max_size=8))
def test_the_weights_are_those_of_scikit_learn(counts: list[int]) -> None:
    targets = np.repeat(np.arange(len(counts)), counts)
    wanted = compute_class_weight("balanced", classes=np.arange(len(counts)), y=targets)
    assert of(*counts).weights == pytest.approx(wanted)


def test_an_empty_class_has_no_say_in_the_weights_of_the_others() -> None:
    assert of(30, 0, 10).weights == (of(30, 10).weights[0], 1.0, of(30, 10).weights[1])


def test_a_label_is_weighed_against_all_that_lack_it() -> None:
    assert Balance(("a", "b"), (20, 80), 100).positive_weights == (4.0, 0.25)


def test_an_even_set_is_said_in_a_few_words() -> None:
    assert of(50, 50).sentence() == "50 samples each"
    assert of(50, 60).sentence() == "50 to 60 samples each"


def test_an_uneven_an_empty_and_a_tiny_class_are_said() -> None:
    said = of(1000, 0, 20, 4).sentence()
    assert said == (
        "0 to 1,000 samples each; the largest class has 250 times the smallest (class_weights: balanced weighs it); "
        "no samples at all of b; fewer than 10 of d"
    )


def test_the_table_has_the_largest_class_first() -> None:
    assert [(name, count) for name, count, _, _ in of(3, 9, 6).table()] == [("b", 9), ("c", 6), ("a", 3)]
    assert sum(share for _, _, share, _ in of(3, 9, 6).table()) == pytest.approx(1)


def made(targets: np.ndarray) -> DataSet:
    inputs = np.zeros((len(targets), 3), np.float32)
    found = as_data_set(((inputs, targets), (inputs, targets)), seed=0)
    assert isinstance(found, DataSet)
    return found


def test_the_training_half_is_counted_by_class_label_or_pixel() -> None:
    classes = balance(made(np.array([0, 0, 2, 2, 2, 1])))
    assert classes is not None
    assert classes.counts == (2, 1, 3)
    labels = balance(made(np.array([[1, 0], [1, 1], [0, 0]])))
    assert labels is not None
    assert (labels.counts, labels.total, labels.shares[0]) == ((2, 1), 3, pytest.approx(2 / 3))


def test_quantities_have_no_balance() -> None:
    assert balance(made(np.array([0.5, 1.5, 2.5]))) is None
