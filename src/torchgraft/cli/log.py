"""`torchgraft log`: the versions of a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from torchgraft.cli.console import console
from torchgraft.errors import StoreError

__all__ = ["log"]


def log(folder: Path = Path("runs"), /, *, json: Annotated[bool, Parameter(negative="")] = False) -> int:
    """List the versions that are kept, the newest first.

    Parameters
    ----------
    folder
        Where they are kept.
    json
        Print one JSON object a line instead of a table.
    """
    from torchgraft.store import Store

    versions = Store(folder).versions()
    if not versions:
        raise StoreError("no version is kept here", where=str(folder), hint="torchgraft adapt … keeps one")
    if json:
        for one in reversed(versions):
            print(one.model_dump_json(exclude={"history"}))
        return 0
    from rich.table import Table

    table = Table(
        "version", "id", "kept", "judged by", "base", "note", box=None, pad_edge=False, header_style="bold"
    )
    for one in reversed(versions):
        table.add_row(f"v{one.number}", one.id, one.created[:16].replace("T", " "), one.figure, one.base, one.note)
    console().print(table)
    return 0
