"""The page of a drawing in Chromium: how soon it stands there whole, and how it moves."""

from __future__ import annotations

import shutil
import statistics
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.measure import table

TITLE = (
    "The page that `draw … --to model.html` writes, in headless Chromium without a GPU, 1400×900: from navigation "
    "to the first full drawing, and frames a second while it is dragged (medians of 5 loads)"
)

FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
STEPS = 120

_DRAG = """new Promise(done => {
    const canvas = document.getElementById('canvas'), stamps = [];
    const at = (kind, step) => canvas.dispatchEvent(new PointerEvent(kind, {
        bubbles: true, pointerId: 1, button: 0, buttons: 1,
        clientX: 700 + 120 * Math.sin(step / 9), clientY: 450 + 80 * Math.cos(step / 7) }));
    canvas.setPointerCapture = () => {};
    at('pointerdown', 0);
    const step = now => {
        stamps.push(now);
        if (stamps.length > STEPS) { at('pointerup', stamps.length); return done(stamps); }
        at('pointermove', stamps.length);
        requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
})"""

_SEEN = """(() => {
    const { view, boxes } = drawn(), { width, height } = document.getElementById('canvas').getBoundingClientRect();
    return boxes.filter(box => view.x + box.x * view.k < width && view.x + (box.x + box.w) * view.k > 0
        && view.y + box.y * view.k < height && view.y + (box.y + box.h) * view.k > 0).length;
})()"""


def run() -> str:
    """Measure each page; gives a table."""
    from playwright.sync_api import sync_playwright

    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    rows = []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        for name, html in _pages():
            path = Path(folder) / "model.html"
            path.write_text(html, encoding="utf-8")
            rows.append((name, *_measured(browser, path)))
        browser.close()
    return table(
        ("page", "kB", "boxes in sight", "drawn whole, ms", "frames a second", "95 % of frames within, ms"), rows
    )


def _pages() -> Iterator[tuple[str, str]]:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    import torchgraft as tg
    from torchgraft.graph.draw import drawing
    from torchgraft.graph.page import page

    yield "three boxes: what Chromium gives here at most", page(_columns(1, 1))
    yield "resnet18", page(drawing(tg.load("torchvision:resnet18@none", input=(3, 224, 224))))
    with torch.device("meta"):
        decoder = LlamaForCausalLM(LlamaConfig(max_position_embeddings=4096)).eval()
    graft = tg.load(decoder, input={"input_ids": torch.zeros(1, 64, dtype=torch.long)})
    yield "decoder of 32 layers, folded", page(drawing(graft))
    yield "decoder of 32 layers, all open", page(drawing(graft, depth=9, fold=False))
    yield "2,000 boxes in 40 columns, in sight at once", page(_columns(40, 50))


def _columns(count: int, length: int) -> Any:
    """Boxes enough to fill a screen: as many branches side by side as a page can show at once."""
    from torchgraft.graph.drawing import Box, Drawing, Edge

    shape = "[N, 64, 56, 56]"
    boxes, edges = [Box("in", "", "in", role="input")], []
    for column in range(count):
        names = [f"{column}.{row}" for row in range(length)]
        boxes += [Box(name, name, "conv", "Conv2d", detail="3×3, 64 → 64", state="frozen") for name in names]
        ways = zip(["in", *names], [*names, "out"], strict=True)
        edges += [Edge(source, target, shape) for source, target in ways]
    boxes.append(Box("out", "", "out", role="output"))
    return Drawing("columns", Box("model", "", "columns", boxes=tuple(boxes), edges=tuple(edges)))


def _measured(browser: Any, path: Path) -> tuple[object, ...]:
    times = []
    for _ in range(5):
        tab = browser.new_page(viewport={"width": 1400, "height": 900})
        tab.goto(path.as_uri())
        times.append(tab.evaluate("performance.getEntriesByName('drawn')[0].startTime"))
        if len(times) < 5:
            tab.close()
    tab.keyboard.press("0")
    tab.wait_for_timeout(400)
    seen = tab.evaluate(_SEEN)
    stamps = tab.evaluate(_DRAG.replace("STEPS", str(STEPS)))
    tab.close()
    gaps = sorted(later - sooner for sooner, later in pairwise(stamps))
    rate = 1000 * len(gaps) / sum(gaps)
    late = gaps[int(len(gaps) * 0.95)]
    return round(path.stat().st_size / 1000), seen, round(statistics.median(times)), f"{rate:.1f}", f"{late:.1f}"
