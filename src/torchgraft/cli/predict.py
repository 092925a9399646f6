"""`torchgraft predict`: classes and probabilities for images or texts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from torchgraft.cli.console import console

if TYPE_CHECKING:
    from torchgraft.predict import Answer

__all__ = ["predict"]

WIDTH = 60
"""Of a text, so many letters are shown."""


def predict(
    version: str,
    /,
    *files: Annotated[Path, Parameter(allow_leading_hyphen=True)],
    text: Annotated[list[str] | None, Parameter(negative="", allow_leading_hyphen=True)] = None,
    top: Annotated[int, Parameter(validator=Number(gte=1))] = 3,
    json: Annotated[bool, Parameter(negative="")] = False,
    trust: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Tell what images or texts are, prepared just as in training.

    Parameters
    ----------
    version
        v3, an id, latest or best in ./runs; DIR@v3 in another folder.
    files
        Image files; for a version of texts, files with a text in each line, - for what comes in by a pipe.
    text
        A text, given outright. May be given several times.
    top
        How many classes to show for each; of several labels all that are likelier than not.
    json
        Print one JSON object a line instead of words.
    trust
        Allow a version that runs your own code.
    """
    from torchgraft.predict import predict as run

    out = console()
    for answer in run(version, files, texts=text or (), trust=trust):
        if json:
            print(answer.json())
        else:
            out.print(f"{_short(answer.name)}   {_said(answer, top)}", markup=False)
    return 0


def _short(name: str) -> str:
    if not name.strip():
        return "(empty)"
    return name if len(name) <= WIDTH else f"{name[: WIDTH - 1]}…"


def _said(answer: Answer, top: int) -> str:
    if answer.values:
        return "   ".join(f"{name} {value:g}" for name, value in zip(answer.classes, answer.values, strict=False))
    if answer.areas:
        return "   ".join(
            f"{name} {area:.1%} of the pixels" for name, area in zip(answer.classes, answer.areas, strict=False)
        )
    likely = sum(chance >= 0.5 for chance in answer.probabilities)  # of several labels all that hold are told
    return "   ".join(f"{name} {chance:.1%}" for name, chance in answer.ranked(max(top, likely)))
