"""`torchgraft features`: what a model sees in images."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from torchgraft.cli.console import console, opened

__all__ = ["features"]


def features(
    model: str,
    /,
    *images: Path,
    at: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    kind: Literal["maps", "grad-cam", "score-cam", "filters", "attention", "statistics"] = "maps",
    class_: Annotated[str | None, Parameter(name="--class")] = None,
    top: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    over: Annotated[bool, Parameter(negative="")] = False,
    to: Path | None = None,
    dark: Annotated[bool, Parameter(negative="")] = False,
    input_: Annotated[str | None, Parameter(name="--input")] = None,
    json: Annotated[bool, Parameter(negative="")] = False,
    trust: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Draw what a model sees in images: feature maps, where it looks, its filters, its attention.

    Parameters
    ----------
    model
        A kept version (v3, DIR@v3), a recipe.yaml, or a source such as resnet18.
    images
        Image files, prepared as the model's own; filters need none.
    at
        Layers, by selectors such as layer2 or "layer3.*"; may be given several times. Where none is named: the
        stages for maps, the last feature map for grad-cam and score-cam, every layer for statistics.
    kind
        maps: the channels that matter most. grad-cam, score-cam: where the model looks for a class. filters: those
        of the first convolution. attention: where each head looks. statistics: mean, spread, dead channels.
    class_
        A class, by name or number: where the model looks for it, or the channels that contribute to it. Otherwise
        what is predicted, or the channels that vary most.
    top
        How many channels or filters to show; 16 and 64 unless said.
    over
        Lay the maps over the image.
    to
        The picture to write, features.png where nothing is said; statistics and --json need none.
    dark
        Draw on a dark ground.
    input_
        The shape of one input without the batch, such as [3,224,224]; a source mostly knows its own.
    json
        Print one JSON object instead, of the figures without the pixels.
    trust
        Allow code of your own to run.
    """
    from torchgraft.features.early import check_wanted

    place = to if to is not None or json or kind == "statistics" else Path("features.png")
    check_wanted(images, kind, place, model=model)

    from torchgraft.features.show import Asked, shown, written
    from torchgraft.reading import preparation

    graft = opened(model, input_, trust=trust)
    preprocess = graft.recipe.preprocess or preparation(graft)
    found = shown(graft, images, preprocess, Asked(kind, at, class_, top, over=over))
    if json:
        print(jsonlib.dumps(found.data))
    out = console(stderr=json)
    if found.text and not json:
        out.print(found.text)
    if place is not None:
        path = written(found, place, images=images, dark=dark)
        out.print(f"{path}   {found.summary}")
    if found.note and not json:
        out.print(found.note)
    return 0
