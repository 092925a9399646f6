from __future__ import annotations

import pytest
import torch
from torch import nn

import torchgraft as tg


def test_any_model_is_checked_in_one_line():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(5, 6, 3))
    assert [finding.code for finding in tg.check(model, torch.randn(2, 3, 9, 9))] == ["S001"]
    assert tg.check("resnet18@none", (3, 64, 64)) == ()


def test_a_test_suite_asserts_that_a_model_fits():
    tg.testing.assert_fits(nn.Linear(3, 4), torch.randn(2, 3))
    with pytest.raises(AssertionError, match="features do not match"):
        tg.testing.assert_fits(nn.Linear(3, 4), torch.randn(2, 5))
