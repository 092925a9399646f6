"""The picture report: one HTML file that needs nothing else, and its pictures as PNG files beside it.

Report ──> draw() ──> pictures ──┐
   └────> html() <────────────────┴──> write(): report.html, curves.png, samples.png, and of what was judged
                                       confusion.png (classes), predicted.png (quantities) or masks.png
"""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torchgraft.errors import StoreError
from torchgraft.history import figure_name
from torchgraft.view import judged, plots
from torchgraft.view.canvas import DARK, LIGHT, percent, png
from torchgraft.view.judged import Overlay
from torchgraft.view.plots import Sample, figure_of, figure_value

if TYPE_CHECKING:
    from PIL.Image import Image

    from torchgraft.history import Epoch, Evaluation, History

__all__ = ["SHOWN", "Overlay", "Problem", "Report", "Sample", "Step", "draw", "html", "write"]

SHOWN = 24
"""So many samples stand in the grid."""
WORDS = 280
"""So many letters of a text are shown."""
ROWS = 20
"""So many classes stand in the table; of more, the hardest."""
_SEVERITIES = ("error", "warning")
_BESIDE = ("curves.png", "confusion.png", "predicted.png", "masks.png", "samples.png")
_UNITS = {"classes": "classes", "labels": "labels", "regression": "quantities", "mask": "classes of pixels",
          "several": "outputs"}  # fmt: skip
_ONE = {
    "classes": "class",
    "labels": "label",
    "regression": "quantity",
    "mask": "class of pixels",
    "several": "output",
}


class Problem(Protocol):
    """What the report needs of a finding; `str()` gives the whole text as the command line prints it."""

    @property
    def code(self) -> str:
        """The rule, as `S001`."""

    @property
    def severity(self) -> str:
        """`error`, `warning` or `note`."""

    @property
    def title(self) -> str:
        """What is wrong, in a few words."""

    @property
    def where(self) -> str:
        """The place in the model, the data or the run; may be empty."""


@dataclass(frozen=True)
class Step:
    """One thing that was done to the model, in words."""

    number: int
    edit: str
    sentence: str
    new_parameters: int = 0


@dataclass(frozen=True)
class Report:
    """All that a report tells, as plain data; `timings` are seconds, shares are of 1.

    `samples` are of classes, `overlays` of masks.
    """

    title: str
    task: str
    history: History
    evaluation: Evaluation
    samples: tuple[Sample, ...] = ()
    steps: tuple[Step, ...] = ()
    findings: tuple[Problem, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    timings: tuple[tuple[str, float], ...] = ()
    recipe: str = ""
    next_commands: tuple[str, ...] = ()
    overlays: tuple[Overlay, ...] = ()


def write(report: Report, folder: Path) -> Path:
    """Write `report.html` and its pictures into `folder` and give the path of the page.

    Each file appears whole or not at all, the page last; a picture that this report has not is taken away.
    Raises StoreError where the folder can't be written.
    """
    files = draw(report)
    page = html(report, files)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in _BESIDE:
            if name in files:
                _put(folder / name, files[name])
            else:
                (folder / name).unlink(missing_ok=True)  # an older report's would belie this one
        _put(folder / "report.html", page.encode())
    except OSError as error:
        raise StoreError(
            f"the report can't be written: {error.strerror or error}",
            where=str(error.filename or folder),
            hint="give a folder that can be written and has room",
        ) from error
    return folder / "report.html"


def _put(path: Path, content: bytes) -> None:
    """Write beside, then rename over."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def draw(report: Report) -> dict[str, bytes]:
    """Draw every picture as PNG bytes, by file name; the dark ones are for the page only."""
    files = {
        "curves.png": plots.curves(report.history),
        "curves-dark.png": plots.curves(report.history, DARK),
    }
    for end, palette in (("", LIGHT), ("-dark", DARK)):
        if report.evaluation.confusion:
            files[f"confusion{end}.png"] = plots.confusion(report.evaluation, palette)
        if report.evaluation.truths:
            files[f"predicted{end}.png"] = judged.predicted(report.evaluation, palette)
        if report.overlays:
            files[f"masks{end}.png"] = judged.overlays(report.overlays, report.evaluation.classes, palette)
    if any(one.image is not None for one in report.samples):
        files["samples.png"] = plots.samples(plots.ranked(report.samples)[:SHOWN])
    return files


def html(report: Report, files: Mapping[str, bytes]) -> str:
    """Give the page, with the pictures that `draw` made inside it; the samples stand in it one by one."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("torchgraft.view", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=percent, duration=duration, count=_count, figure=figure_value_of, named=figure_name
    )
    pictures = {name: _data_uri(content) for name, content in files.items() if name != "samples.png"}
    template = environment.get_template("report.html.jinja")
    return template.render(
        report=report,
        pictures=pictures,
        sizes={name: _half_size(files[name]) for name in _BESIDE if name in files and name != "samples.png"},
        light=LIGHT,
        dark=DARK,
        **_words(report),
    )


def _words(report: Report) -> dict[str, Any]:
    """Everything the page says that does not stand in the report word for word."""
    seconds = sum(spent for _, spent in report.timings) or report.history.seconds
    return {
        "seconds": seconds,
        "longest": max((spent for _, spent in report.timings), default=0) or 1,
        "aside": _aside(report.evaluation),
        "unit": _unit(report.evaluation),
        "drawn": plots.drawn_figure(report.history),
        "veiled": any(255 in one.truth for one in report.overlays),
        "rows": _rows(report.evaluation),
        "heads": [_HEADS.get(kind, figure_name(kind)) for kind, _ in _KINDS.get(report.evaluation.task, ())],
        "training": training(report.history),
        "mixed": mixed(report.evaluation),
        "classes": _classes(report.evaluation),
        "findings": sorted(
            ((_rank(finding), finding) for finding in report.findings),
            key=lambda pair: (*_SEVERITIES, "note").index(pair[0]),
        ),
        "added": sum(step.new_parameters for step in report.steps),
        "tiles": [_tile(sample) for sample in plots.ranked(report.samples)[:SHOWN]],
    }


def figure_value_of(value: float, name: str) -> str:
    """Write a figure, as a filter of the page."""
    return figure_value(name, value)


def _unit(evaluation: Evaluation) -> str:
    return (_ONE if len(evaluation.classes) == 1 else _UNITS)[evaluation.task]


def _aside(evaluation: Evaluation) -> str:
    """Tell what stands below the main figure: how many are right, and the other figures."""
    others = [
        f"{figure_name(name)} {figure_value(name, one)}" for name, one in list(evaluation.figures.items())[1:]
    ]
    if evaluation.confusion:
        right = sum(row[place] for place, row in enumerate(evaluation.confusion))
        others.insert(0, f"{_count(right)} of {_count(evaluation.count)} right")
    else:
        others.append(f"{_count(evaluation.count)} sample{'s' if evaluation.count != 1 else ''}")
    return ", ".join(others)


_KINDS = {
    "labels": (("samples", "count"), ("average_precision", "figure"), ("precision", "figure"),
               ("recall", "figure"), ("f1", "figure")),
    "regression": (("rmse", "figure"), ("mae", "figure"), ("r2", "figure"), ("lowest", "plain"),
                   ("highest", "plain")),
    "mask": (("share", "percent"), ("iou", "figure")),
}  # fmt: skip
"""The columns of the table of each label, quantity or class of pixels: the figure, and how it is written."""
_HEADS = {"average_precision": "average precision", "f1": "F1", "lowest": "lowest true", "highest": "highest true",
          "share": "share of the pixels"}  # fmt: skip


@dataclass(frozen=True)
class _Row:
    """One row of the table: the cells as they are written, and the share that its bar shows."""

    number: int
    name: str
    cells: tuple[str, ...]
    share: float


def _rows(evaluation: Evaluation) -> list[_Row]:
    """Give one row a label, quantity or class of pixels; of many, the worst."""
    bar = {"labels": "average_precision", "mask": "iou", "regression": "r2"}.get(evaluation.task, "")
    columns = _KINDS.get(evaluation.task, ())
    rows = [
        _Row(number, name, tuple(_cell(one, kind, how) for kind, how in columns), one.get(bar, math.nan))
        for number, (name, one) in enumerate(zip(evaluation.classes, evaluation.each, strict=False), 1)
    ]
    if len(rows) <= ROWS:
        return rows
    return sorted(rows, key=lambda row: 2.0 if math.isnan(row.share) else row.share)[:ROWS]


def _cell(figures: Mapping[str, float], kind: str, how: str) -> str:
    value = figures.get(kind, math.nan)
    if how == "count":
        return _count(int(value))
    if how == "percent":
        return percent(value)
    return figure_value(kind, value) if how == "figure" else f"{value:.4g}"


def _rank(finding: Problem) -> str:
    return finding.severity if finding.severity in _SEVERITIES else "note"


def training(history: History) -> str:
    """Tell in a sentence or two how training went."""
    if not history.epochs:
        return "No epoch was run."
    ran = len(history.epochs)
    epochs = f"{ran} epoch{'s' if ran != 1 else ''}"
    best = next((epoch for epoch in history.epochs if epoch.number == history.best), None)
    ended = "Interrupted after " if history.ended == "interrupted" else ""
    parts = [f"{ended}{epochs} in {duration(history.seconds)}."]
    if best:
        parts.append(f"Best on validation: epoch {best.number} with {_best(best, history.metric)}.")
    return " ".join(parts)


def _best(epoch: Epoch, metric: str) -> str:
    """Write the figure that the best epoch was chosen by; an accuracy needs no name."""
    words = figure_value(metric, figure_of(epoch, "val", metric))
    return words if metric == "accuracy" else f"{figure_name(metric)} {words}"


def mixed(evaluation: Evaluation, most: int = 3) -> str:
    """Tell which classes are most often taken for which others."""
    pairs = [
        (count, evaluation.classes[target], evaluation.classes[taken])
        for target, row in enumerate(evaluation.confusion)
        for taken, count in enumerate(row)
        if count and taken != target
    ]
    if not pairs:
        return "No class was taken for another."
    pairs.sort(key=lambda pair: -pair[0])
    said = [f"{target} for {taken} ({_times(count)})" for count, target, taken in pairs[:most]]
    return f"Most often mistaken: {', '.join(said)}."


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


@dataclass(frozen=True)
class _Class:
    """One row of the table of classes; `right` is not a number where there were no samples."""

    number: int
    name: str
    samples: int
    right: float
    taken: str


def _classes(evaluation: Evaluation) -> list[_Class]:
    """One row a class: how many, how many of them right, and what it is most often taken for."""
    if not evaluation.confusion:
        return []
    rows = []
    for number, (name, row) in enumerate(zip(evaluation.classes, evaluation.confusion, strict=True)):
        wrong = [(count, -place) for place, count in enumerate(row) if place != number]
        count, place = max(wrong, default=(0, 0))
        right = row[number] / sum(row) if sum(row) else math.nan
        taken = f"{evaluation.classes[-place]} ({_times(count)})" if count else ""
        rows.append(_Class(number + 1, name, sum(row), right, taken))
    if len(rows) <= ROWS:
        return rows
    return sorted(rows, key=lambda row: 2.0 if math.isnan(row.right) else row.right)[:ROWS]


def _tile(sample: Sample) -> dict[str, Any]:
    if sample.image is None:
        return {"sample": sample, "words": _shortened(sample.text)}
    image = plots.eight_bit(sample.image)
    tiny = max(image.size) <= plots.TINY
    uri = _data_uri(png(image)) if tiny else _thumbnail_uri(image)
    return {"sample": sample, "words": "", "tiny": tiny, "uri": uri}


def _shortened(text: str) -> str:
    """Give the beginning of a text, cut between two words where there are any."""
    flat = " ".join(text.split())
    if len(flat) <= WORDS:
        return flat or "(empty)"
    return f"{flat[:WORDS].rpartition(' ')[0] or flat[:WORDS]} …"


def _thumbnail_uri(image: Image) -> str:
    """Photographs as JPEG, twice as fine as they are shown, so that the page stays small."""
    small = image.copy()
    small.thumbnail((256, 256))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=82, optimize=True)
    return _data_uri(buffer.getvalue(), "image/jpeg")


def _data_uri(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _half_size(content: bytes) -> tuple[int, int]:
    """The size that a picture takes on the page: drawn at twice that, for fine screens."""
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        return image.width // 2, image.height // 2


def duration(seconds: float) -> str:
    """Write a time as one reads it: `0.4 s`, `42 s`, `1 min 32 s`, `2 h 5 min`."""
    if not math.isfinite(seconds):
        return "–"
    if seconds < 9.95:
        return f"{seconds:.1f}\u00a0s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}\u00a0s"
    if whole < 3600:
        return f"{whole // 60}\u00a0min {whole % 60}\u00a0s"
    minutes = round(seconds / 60)
    return f"{minutes // 60}\u00a0h {minutes % 60}\u00a0min"


def _count(number: int) -> str:
    return f"{number:,}"
