"""One kind of look at a model and its images: the data, the sheet, and what is said in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torchgraft.errors import DataError, SelectionError
from torchgraft.features.attention import attention_maps
from torchgraft.features.cam import grad_cam, score_cam
from torchgraft.features.classes import called
from torchgraft.features.early import check_sheet, check_wanted
from torchgraft.features.filters import first_filters
from torchgraft.features.images import Images, read_images
from torchgraft.features.layout import Grids
from torchgraft.features.maps import feature_maps, traced
from torchgraft.features.pictures import Section, sheet
from torchgraft.features.sheets import (
    attention_sections,
    cam_sections,
    filter_sections,
    map_sections,
    statistics_sections,
)
from torchgraft.features.statistics import layer_statistics
from torchgraft.store.files import explained, make_folder, write_whole
from torchgraft.tokens import Texts
from torchgraft.view.canvas import percent, png

if TYPE_CHECKING:
    from torchgraft.graft import Graft
    from torchgraft.preprocess import Preprocess

__all__ = ["Asked", "Kind", "Shown", "shown", "written"]

Kind = Literal["maps", "grad-cam", "score-cam", "filters", "attention", "statistics"]


@dataclass(frozen=True)
class Asked:
    """What is to be shown.

    Attributes:
        kind: see `torchgraft features`.
        at: selectors of layers.
        target: a class by name or number.
        top: how many channels or filters.
        over: whether maps lie over their image.
    """

    kind: Kind
    at: tuple[str, ...] = ()
    target: str | None = None
    top: int | None = None
    over: bool = False


@dataclass(frozen=True)
class Shown:
    """What there is to show.

    Attributes:
        title: the model.
        sections: of the sheet.
        summary: in a few words.
        data: the figures as plain data, for JSON.
        text: a table, where the figures say it better than a picture.
        note: what a reader has to know.
    """

    title: str
    sections: tuple[Section, ...]
    summary: str
    data: dict[str, Any]
    text: str = ""
    note: str = ""


def shown(graft: Graft, paths: Sequence[Path], preprocess: Preprocess | Texts | None, asked: Asked) -> Shown:
    """Look at a model and images.

    Args:
        graft: the model.
        paths: image files; filters need none.
        preprocess: how images are prepared; None, or that of texts, where the model takes none.
        asked: what is wanted.

    Raises:
        DataError: an image can't be read, none is named, or the model takes none.
        SelectionError: a selector matches nothing, or nothing of that kind.
    """
    check_wanted(paths, asked.kind, None, model=graft.recipe.base)
    preprocess = None if isinstance(preprocess, Texts) else preprocess
    if asked.kind != "filters" and preprocess is None:
        raise DataError(
            f"{graft.name} does not take images: its input is {list(graft.input_shape or ()) or 'not known'}",
            where=graft.recipe.base,
            hint="capture() sees what its layers give in Python: with g.capture(…) as seen: seen.run(x)",
        )
    images = read_images(paths, preprocess) if preprocess is not None and asked.kind != "filters" else None
    sections, summary, data, text = _KINDS[asked.kind](graft, images, asked)
    about = {"model": graft.name, "kind": asked.kind, "images": [] if images is None else list(images.names)}
    note = "random weights: these are pictures of an untrained model" if graft.is_random else ""
    return Shown(
        f"{graft.name}: {summary}",
        tuple(sections),
        summary,
        {**about, "random": graft.is_random, **data},
        text,
        note,
    )


_Made = tuple[list[Section], str, dict[str, Any], str]


def _maps(graft: Graft, images: Images, asked: Asked) -> _Made:
    classes = _classes(graft)
    found = feature_maps(
        graft, images.tensor, *asked.at, top=asked.top or 16, target=asked.target, classes=classes
    )
    rows = [
        {
            "layer": one.name,
            "kind": one.kind,
            "call": one.call,
            "shape": list(one.shape),
            "measure": one.measure,
            "channels": [
                {"channel": channel, "measure": measure}
                for channel, measure in zip(one.channels, one.measures, strict=True)
            ],
        }
        for one in found
    ]
    several = f"{len(found)} layers" if len(found) > 1 else found[0].name
    return map_sections(found, images, over=asked.over), f"feature maps of {several}", {"layers": rows}, ""


def _cam(graft: Graft, images: Images, asked: Asked) -> _Made:
    make = grad_cam if asked.kind == "grad-cam" else score_cam
    if len(asked.at) > 1:
        raise SelectionError("one layer at a time", where=asked.kind, hint=f"--at {asked.at[-1]}")
    at = asked.at[0] if asked.at else None
    cam = make(graft, images.tensor, at=at, target=asked.target, classes=_classes(graft))
    rows: list[dict[str, Any]] = [
        {"image": name, "class": which, "number": number, "probability": None if isnan(chance) else chance}
        for name, which, number, chance in zip(images.names, cam.names, cam.classes, cam.chances, strict=True)
    ]
    said = ", ".join(
        f"{called(row['class'])} · {percent(chance)}" for row, chance in zip(rows[:3], cam.chances, strict=False)
    )
    return cam_sections(cam, images), f"{asked.kind} at {cam.at}: {said}", {"at": cam.at, "images": rows}, ""


def _filters(graft: Graft, images: Images | None, asked: Asked) -> _Made:
    if len(asked.at) > 1:
        raise SelectionError("one layer at a time", where=asked.kind, hint=f"--at {asked.at[0]}")
    found = first_filters(graft, asked.at[0] if asked.at else None, top=asked.top or 64)
    data = {"layer": found.name, "filters": list(found.filters), "norms": list(found.sizes)}
    return filter_sections(found), f"filters of {found.name}", data, ""


def _attention(graft: Graft, images: Images, asked: Asked) -> _Made:
    found = attention_maps(graft, images.tensor, at=asked.at or None)
    rows = [{"layer": one.path, "call": one.call, "shape": list(one.weights.shape)} for one in found]
    grids = Grids.of(images.size, traced(graft))
    sections = attention_sections(found, images, grids, over=asked.over)
    return sections, f"attention of {len(found)} layers", {"layers": rows}, ""


def _statistics(graft: Graft, images: Images, asked: Asked) -> _Made:
    traced(graft)
    found = layer_statistics(graft, images.tensor, at=asked.at)
    summary = f"statistics of {len(found)} layers"
    return statistics_sections(found), summary, {"layers": found.as_data()}, str(found)


_KINDS: dict[Kind, Callable[..., _Made]] = {
    "maps": _maps,
    "grad-cam": _cam,
    "score-cam": _cam,
    "filters": _filters,
    "attention": _attention,
    "statistics": _statistics,
}


def _classes(graft: Graft) -> tuple[str, ...]:
    return tuple(graft.version.classes) if graft.version is not None else ()


def written(found: Shown, path: Path, *, images: Sequence[Path] = (), dark: bool = False) -> Path:
    """Draw the sheet and write it as a PNG.

    Raises:
        StoreError: see `check_sheet`, or it can't be written.
    """
    check_sheet(path, images)
    made = png(sheet(found.title, found.sections, note=found.note, dark=dark))
    with explained("the picture can't be written", path.parent):
        make_folder(path.parent)
    write_whole(path, made, what="the picture")
    return path
