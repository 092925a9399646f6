"""`torchgraft rules` and `torchgraft rule CODE`: what is checked."""

from __future__ import annotations

import inspect

from torchgraft.cli.console import console
from torchgraft.errors import TorchgraftError, nearest

__all__ = ["rule", "rules"]


def rules() -> int:
    """List every rule that models and data are checked by."""
    from rich.table import Table

    from torchgraft.rules.rule import rules as known

    table = Table("rule", "severity", "finds", box=None, pad_edge=False, header_style="bold")
    for code, cls in known().items():
        table.add_row(code, cls.severity, cls.title)
    console().print(table)
    return 0


def rule(code: str, /) -> int:
    """Explain one rule.

    Parameters
    ----------
    code
        Such as S001.
    """
    from torchgraft.rules.rule import rules as known

    table = known()
    if code.upper() not in table:
        raise TorchgraftError(
            f"there is no rule '{code}'",
            where=code,
            hint=nearest(code.upper(), table) or "torchgraft rules lists them",
        )
    cls = table[code.upper()]
    console().print(f"{cls.severity}[{cls.code}] {cls.title}\n\n{inspect.getdoc(cls)}\n\nSeen in: {cls.case}")
    return 0
