"""A finding: one problem, as a compiler would tell it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torchgraft.edits.base import Edit

__all__ = ["Finding", "Fix", "Severity"]

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Fix:
    """One way to put a finding right, tried before it is offered.

    Attributes:
        name: what `--fix=NAME` takes, such as `adapt`.
        sentence: what it does and costs, in words.
        edits: the edits that do it, in order; a fix of the data or the plan has none.
        settings: of the recipe or its plan, as `--set` takes them: `train.batch=16`.
    """

    name: str
    sentence: str
    edits: tuple[Edit, ...] = ()
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """One problem: its code, where it is, the facts that show it, and how it can be put right."""

    code: str
    severity: Severity
    title: str
    where: str
    facts: tuple[str, ...] = ()
    hint: str = ""
    fixes: tuple[Fix, ...] = ()

    @property
    def is_error(self) -> bool:
        """Tell whether the model does not work as it is."""
        return self.severity == "error"

    def to_json(self) -> str:
        """Give the finding as one line of JSON."""
        bare = asdict(replace(self, fixes=()))
        fixes = [
            {"name": fix.name, "sentence": fix.sentence, "edits": [{one.kind(): one.brief()} for one in fix.edits]}
            | ({"settings": list(fix.settings)} if fix.settings else {})
            for fix in self.fixes
        ]
        return json.dumps({**bare, "fixes": fixes}, ensure_ascii=False)

    def __str__(self) -> str:
        head = f"{self.severity}[{self.code}] {self.title}"
        lines = [f"{head}{self.where:>{max(len(self.where) + 3, 100 - len(head))}}" if self.where else head]
        wide = max([10, *(len(fix.name) for fix in self.fixes)])
        lines += [f"  {fact}" for fact in self.facts]
        lines += [f"  {fix.name:<{wide}} {fix.sentence}" for fix in self.fixes]
        if self.hint:
            lines.append(f"  {'do':<{wide}} {self.hint}")
        return "\n".join(lines)
