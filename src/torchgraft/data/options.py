"""What stands behind the '?' of a source: `csv:labels.csv?path=img&label=kind`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast, get_args
from urllib.parse import unquote

from torchgraft.data.base import Task
from torchgraft.errors import DataError, nearest

__all__ = ["number_of", "options", "task_of", "yes"]


def options(rest: str, known: Iterable[str], where: str) -> tuple[str, dict[str, str]]:
    """Part a name from the settings behind its last '?'; a file that is called so is taken by its name.

    Values may be written as in addresses of the web: %26 is '&'.

    Raises:
        DataError: a setting that there is not, or that says nothing.
    """
    name, mark, query = rest.rpartition("?")
    if not mark or Path(rest).expanduser().exists():
        return rest, {}
    found: dict[str, str] = {}
    allowed = sorted(known)
    for part in query.split("&"):
        key, equals, value = part.partition("=")
        if key not in allowed:
            hint = nearest(key, allowed) or f"it takes {', '.join(allowed)}"
            raise DataError(f"there is no setting '{key}'", where, hint)
        if not equals or not value:
            raise DataError(f"the setting '{key}' says nothing", where, f"write {key}=…")
        found[key] = unquote(value)
    return name, found


def task_of(asked: Mapping[str, str], where: str, known: Iterable[str] = get_args(Task)) -> Task | None:
    """Read `task=`; None where nothing is said."""
    task = asked.get("task")
    allowed = tuple(known)
    if task is not None and task not in allowed:
        hint = nearest(task, allowed) or f"one of {', '.join(allowed)}"
        raise DataError(f"there is no task '{task}' for such data", where, hint)
    return cast("Task | None", task)


def number_of(asked: Mapping[str, str], key: str, default: int, where: str) -> int:
    """Read a whole number from 1 on."""
    text = asked.get(key)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise DataError(f"'{text}' is no number for {key}", where, f"write a whole number: {key}={default}")
    return int(text)


def yes(asked: Mapping[str, str], key: str, where: str) -> bool:
    """Read a switch that is off where nothing is said."""
    text = asked.get(key, "false").lower()
    if text not in ("true", "false"):
        raise DataError(f"'{text}' is neither true nor false", where, f"write {key}=true, or leave it out")
    return text == "true"
