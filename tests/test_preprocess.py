from __future__ import annotations

import pytest
from pydantic import ValidationError

from torchgraft.preprocess import Preprocess


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"std": (0.2, 0, 0.2)}, "greater than 0"),
        ({"std": (0.2, float("inf"), 0.2)}, "finite"),
        ({"mean": (0.5,)}, "mean needs one number a channel: 3, not 1"),
        ({"channels": 1, "std": (0.2, 0.2, 0.2)}, "std needs one number a channel: 1, not 3"),
    ],
)
def test_a_normalisation_that_can_not_be_computed_is_refused(fields, match):
    with pytest.raises(ValidationError, match=match):
        Preprocess(size=(8, 8), **fields)


def test_grey_images_have_a_normalisation_of_their_own():
    grey = Preprocess(size=(8, 8), channels=1)
    assert (grey.mean, grey.std) == ((0.449,), (0.226,))
    assert grey.mean == Preprocess(size=(8, 8)).with_channels(1).mean
    assert Preprocess.model_validate(grey.brief()) == grey
