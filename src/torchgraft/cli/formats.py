"""How findings are written: for people, for programs, for code scanning (SARIF 2.1.0), for GitHub's workflows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchgraft import __version__

if TYPE_CHECKING:
    from torchgraft.review import Review
    from torchgraft.rules import Finding

__all__ = ["FORMATS"]


def text(seen: Review, target: str) -> str:
    """Write findings as a compiler would, and a line that sums up."""
    parts = [f"{finding}\n" for finding in seen.findings]
    errors = sum(finding.is_error for finding in seen.findings)
    others = len(seen.findings) - errors
    end = f"{_counted(errors, 'error')}, {_counted(others, 'other finding')}" if seen.findings else "all fits"
    proof = "\nproved: a real forward and backward pass gives finite numbers" if seen.proved else ""
    return "\n".join([*parts, end + proof])


def _counted(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def as_json(seen: Review, target: str) -> str:
    """Write one finding a line."""
    return "\n".join(finding.to_json() for finding in seen.findings)


def sarif(seen: Review, target: str) -> str:
    """Write a log of SARIF 2.1.0."""
    driver = {
        "name": "torchgraft",
        "version": __version__,
        "rules": [
            {"id": finding.code, "shortDescription": {"text": finding.title}}
            for finding in {finding.code: finding for finding in seen.findings}.values()
        ],
    }
    results = [_result(finding, seen, target) for finding in seen.findings]
    schema = "https://json.schemastore.org/sarif-2.1.0.json"
    return json.dumps(
        {"$schema": schema, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]},
        indent=2,
        ensure_ascii=False,
    )


def _result(finding: Finding, seen: Review, target: str) -> dict[str, Any]:
    region = {"startLine": _line(seen, target)}
    physical = {"artifactLocation": {"uri": _file(target)}, "region": region}
    return {
        "ruleId": finding.code,
        "level": finding.severity,
        "message": {"text": _message(finding)},
        "locations": [{"physicalLocation": physical, "logicalLocations": [{"fullyQualifiedName": finding.where}]}],
    }


def github(seen: Review, target: str) -> str:
    """Write annotations of a workflow: `::error file=…,line=…,title=…::…`."""
    return "\n".join(
        f"::{'notice' if finding.severity == 'note' else finding.severity} file={_escaped(_file(target), ',:')},"
        f"line={_line(seen, target)},title={_escaped(f'{finding.code} {finding.title}', ',:')}"
        f"::{_escaped(_message(finding))}"
        for finding in seen.findings
    )


def _message(finding: Finding) -> str:
    fixes = [f"{fix.name}: {fix.sentence}" for fix in finding.fixes]
    hint = [f"do: {finding.hint}"] if finding.hint else []
    return "\n".join([finding.where, *finding.facts, *fixes, *hint])


def _escaped(words: str, also: str = "") -> str:
    """Write what would end a line or a property of a workflow command as its code."""
    for sign in f"%\r\n{also}":
        words = words.replace(sign, f"%{ord(sign):02X}") if sign == "%" or sign in words else words
    return words


def _file(target: str) -> str:
    """Give the file that is checked; a model by name stands for itself."""
    file, _, name = target.rpartition(":")
    return file if file.endswith(".py") else name if not file else target


def _line(seen: Review, target: str) -> int:
    """Give the line of the edit that was refused, or the first."""
    from torchgraft import yamlfile

    path = Path(target)
    if seen.edit is None or path.suffix not in (".yaml", ".yml"):
        return 1
    node = yamlfile.read(path.read_text(encoding="utf-8"), target).node
    for key, value in getattr(node, "value", ()):
        if key.value == "edits" and seen.edit <= len(value.value):
            return int(value.value[seen.edit - 1].start_mark.line + 1)
    return 1


FORMATS: dict[str, Callable[[Review, str], str]] = {
    "text": text,
    "json": as_json,
    "sarif": sarif,
    "github": github,
}
