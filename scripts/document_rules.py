"""Write docs/rules.md from the rules themselves."""

from __future__ import annotations

import inspect
from itertools import groupby
from pathlib import Path

from torchgraft.rules.rule import rules

FAMILIES = {
    "S": "Shapes",
    "W": "Weights",
    "P": "Parameters",
    "H": "Heads and losses",
    "D": "Data",
    "T": "Training",
    "M": "Memory and speed",
}


def text() -> str:
    """Give the whole page."""
    lines = ["# Rules", "", "What models and data are checked by. `torchgraft rule CODE` prints one.", ""]
    for family, members in groupby(
        sorted(rules().items(), key=lambda pair: list(FAMILIES).index(pair[0][0])), lambda p: p[0][0]
    ):
        lines += [f"## {FAMILIES[family]}", ""]
        for code, rule in members:
            lines += [f"### {code} {rule.title}", "", f"*{rule.severity}* — {inspect.getdoc(rule)}", ""]
            lines += [f"Seen in: {rule.case}.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    Path(__file__).parent.parent.joinpath("docs", "rules.md").write_text(text())
