"""`torchgraft predict`: classes and probabilities for images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from torchgraft.cli.console import console

__all__ = ["predict"]


def predict(
    version: str,
    /,
    *images: Path,
    top: Annotated[int, Parameter(validator=Number(gte=1))] = 3,
    json: Annotated[bool, Parameter(negative="")] = False,
    trust: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Tell the classes of images, prepared just as in training.

    Parameters
    ----------
    version
        v3, an id, latest or best in ./runs; DIR@v3 in another folder.
    images
        Image files.
    top
        How many classes to show for each image.
    json
        Print one JSON object a line instead of words.
    trust
        Allow a version that runs your own code.
    """
    from torchgraft.predict import predict as run

    out = console()
    for answer in run(version, images, trust=trust):
        if json:
            print(answer.model_dump_json())
            continue
        shown = "   ".join(f"{name} {chance:.1%}" for name, chance in answer.ranked(top))
        out.print(f"{answer.image}   {shown}")
    return 0
