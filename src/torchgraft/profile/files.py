"""A profile as a file: the trace for Perfetto; as plain data for JSON."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from torchgraft.profile.events import OUTSIDE
from torchgraft.profile.record import Profile
from torchgraft.store.files import write_whole
from torchgraft.view.places import MARKS, check_place

__all__ = ["as_data", "check_trace", "write_trace"]


def check_trace(path: Path | None) -> None:
    """Refuse a path that no trace can be written to, before anything is measured.

    Raises:
        StoreError: says why.
    """
    if path is not None:
        check_place(path, (".json",), what="a trace")


def write_trace(profile: Profile, path: str | Path) -> None:
    """Write the trace of a profile for ui.perfetto.dev.

    Raises:
        StoreError: it can't be written, or a file of another kind is there.
    """
    path = Path(path)
    check_trace(path)
    write_whole(path, profile.trace.replace(b"{", MARKS[".json"] + b",", 1), what="the trace")


def as_data(profile: Profile) -> dict[str, Any]:
    """Give a profile as plain data, every module unfolded."""
    found = dataclasses.asdict(dataclasses.replace(profile, trace=b"", findings=()))
    del found["trace"]
    found["facts"] = dict(profile.facts)
    found["findings"] = [
        {"code": one.code, "severity": one.severity, "title": one.title, "facts": one.facts, "hint": one.hint}
        for one in profile.findings
    ]
    for run in found["runs"]:
        run["outside"]["path"] = "(outside of modules)"
        holders = run["peak"]["holders"] if run["peak"] else ()
        if holders:
            run["peak"]["holders"] = [
                {"path": "(outside of modules)" if path == OUTSIDE else path, "kind": kind, "bytes": size}
                for path, kind, size in holders
            ]
    return found
