"""For test suites: `tg.testing.assert_fits(model, example)`."""

from __future__ import annotations

from typing import Any

from torch import nn

from torchgraft.checking import check

__all__ = ["assert_fits"]


def assert_fits(model: nn.Module, example: Any) -> None:
    """Assert that a model takes an example, in evaluation and in training mode.

    Raises:
        AssertionError: it does not; the message holds the findings.
    """
    errors = [finding for finding in check(model, example) if finding.is_error]
    assert not errors, "\n" + "\n".join(str(finding) for finding in errors)
