"""What a frozen part asks its batch is asked anew of each one; the part itself is left out."""

from __future__ import annotations

import pytest
import torch
from tests.train.prefix.nets import Asking, both, equal, frozen_but

from torchgraft.train.prefix import Drifted, prefix_of


def data(count=20, *, short=5):
    ids, mask = torch.randint(0, 9, (count, 5)), torch.ones(count, 5)
    mask[::short, 3:] = 0
    return ids, mask


def found(inputs):
    torch.manual_seed(0)
    model = frozen_but(Asking(), "head")
    return model, prefix_of(model, inputs)


def test_a_module_that_asks_is_left_out_as_a_whole():
    ids, mask = data(8, short=2)
    model, prefix = found((ids, mask))
    assert prefix.skipped == ("body",)
    assert [piece.after for piece in prefix.pieces] == ["what is asked of the input", "body"]
    output, rows = prefix.first(model, (ids, mask))
    assert torch.equal(prefix.rest(model, rows), output)


def test_another_answer_is_a_drift_whichever_pass_it_is():
    ids, mask = data(8, short=2)
    model, prefix = found((ids, mask))
    with pytest.raises(Drifted, match="another answer"):
        prefix.first(model, (ids, torch.ones_like(mask)))
    _, rows = prefix.first(model, (ids, mask))
    with pytest.raises(Drifted, match="another answer"):
        prefix.rest(model, [one[[1, 1, 3, 3, 5, 5, 7, 7]] for one in rows])  # none of them is short


@pytest.mark.parametrize("short", [2, 9])
def test_weights_are_bit_equal_whatever_a_batch_answers(short):
    torch.manual_seed(0)
    plain, ours, cache = both(frozen_but(Asking(), "head"), data(short=short), 20, size=4, epochs=6)
    assert equal(plain, ours)
    assert cache.answered


def test_an_answer_of_few_samples_that_all_do_not_give():
    """The few samples of the recorded passes are long ones, and the batch has a short one."""
    ids, mask = data(8, short=99)
    mask[:] = 1
    mask[1, 3:] = 0
    model, prefix = found((ids, mask))
    output, rows = prefix.first(model, (ids, mask))
    assert torch.equal(prefix.rest(model, rows), output)
