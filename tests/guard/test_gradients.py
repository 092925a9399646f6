"""One read of the gradients: norms as torch computes them, whatever kind they are of."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torchgraft.guard import clip, read


def parameters(*grads: torch.Tensor) -> list[nn.Parameter]:
    made = []
    for grad in grads:
        one = nn.Parameter(torch.zeros(grad.shape, dtype=grad.dtype))
        one.grad = grad.clone()
        made.append(one)
    return made


def test_norms_are_those_of_torch() -> None:
    held = parameters(torch.randn(3, 4), torch.randn(5))
    found = read([*held, nn.Parameter(torch.zeros(2))])
    assert found.total == pytest.approx(
        float(nn.utils.get_total_norm([one.grad for one in held if one.grad is not None]))
    )
    assert found.values() == pytest.approx([float(one.grad.norm()) for one in held if one.grad is not None])
    assert len(found.parameters) == 2


def test_half_precision_does_not_overflow_in_its_norm() -> None:
    found = read(parameters(torch.full((100,), 1000.0, dtype=torch.float16)))
    assert found.total == pytest.approx(10_000)
    assert found.finite


def test_kinds_may_be_mixed_and_sparse() -> None:
    table = nn.Embedding(4, 2, sparse=True)
    table(torch.tensor([1, 1, 3])).sum().backward()
    found = read([*parameters(torch.tensor([3.0, 4.0], dtype=torch.float64)), table.weight])
    assert found.values() == pytest.approx([5.0, (2 * 4 + 2) ** 0.5])
    clip(found, 1.0)
    assert read([*parameters(), table.weight]).total < 1.0


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_one_odd_value_shows(odd: float) -> None:
    assert not read(parameters(torch.tensor([0.0, odd]), torch.ones(3))).finite


def test_nothing_is_read_where_there_is_nothing() -> None:
    found = read([nn.Parameter(torch.ones(2))])
    assert (found.total, found.finite, found.values()) == (0.0, True, [])


@pytest.mark.parametrize("most", [0.1, 1.0, 100.0])
def test_clipping_is_bit_for_bit_that_of_torch(most: float) -> None:
    torch.manual_seed(0)
    grads = [torch.randn(7, 5), torch.randn(11), torch.randn(2, 3, 3)]
    ours, theirs = parameters(*grads), parameters(*grads)
    clip(read(ours), most)
    nn.utils.clip_grad_norm_(theirs, most)
    assert all(torch.equal(one.grad, other.grad) for one, other in zip(ours, theirs, strict=True))  # type: ignore[arg-type]
