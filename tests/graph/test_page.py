"""The page, in a real Chromium: it opens from a file, asks nothing of the network, and does what its keys say."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from torchgraft.graph.drawing import Box, Drawing, Edge
from torchgraft.graph.page import embedded, page

SHAPE, WIDE = "[N, 8, 16, 16]", "[N, 16, 8, 8]"
NASTY = "</script><script>document.title='broken out'</script>"
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def block(path: str, **more: Any) -> Box:
    """A residual block."""
    inside = (
        Box(f"{path}.conv", f"{path}.conv", "conv", "Conv2d", detail="3×3, 8 → 8", parameters=576, macs=147456),
        Box(f"{path}+add", path, "add", role="operation"),
    )
    edges = (
        Edge("", inside[0].id, SHAPE),
        Edge(inside[0].id, inside[1].id, SHAPE),
        Edge("", inside[1].id, SHAPE),
        Edge(inside[1].id, "", SHAPE),
    )
    name = path.rsplit(".", 1)[-1]
    return Box(path, path, name, "Block", gave=(SHAPE,), parameters=576, boxes=inside, edges=edges, **more)


def drawing() -> Drawing:
    """A stem, four folded blocks, a block that is new, and a head of two branches."""
    folded = tuple(f"body.{number}" for number in range(4))
    body = Box("body", "body", "body", "Sequential", state="frozen", boxes=(block("body.0", times=4, folded=folded),), edges=(Edge("", "body.0", SHAPE), Edge("body.0", "", SHAPE)))  # fmt: skip
    boxes = (
        Box("in", "", "image", role="input", gave=("[N, 3, 16, 16]",)),
        Box(
            "stem",
            "stem",
            "stem",
            "Conv2d",
            detail="3×3, 3 → 8",
            given=("[N, 3, 16, 16]",),
            gave=(SHAPE,),
            parameters=224,
            trainable=0,
            macs=55296,
            bytes=8192,
            state="frozen",
            notes=("its weights are tied to those of head",),
        ),
        body,
        block("extra", mark="new", edit=2, state="trainable"),
        Box("left", "left", "left", "Linear", gave=(WIDE,), state="trainable"),
        Box("right", "right", "right", NASTY, gave=(WIDE,), state="partly"),
        Box("cat", "", "cat", role="operation"),
        Box("out", "", "scores", role="output"),
    )
    edges = (
        Edge("in", "stem", "[N, 3, 16, 16]"),
        Edge("stem", "body", SHAPE),
        Edge("body", "extra", SHAPE),
        Edge("extra", "left", SHAPE),
        Edge("extra", "right", SHAPE),
        Edge("left", "cat", WIDE),
        Edge("right", "cat", WIDE),
        Edge("cat", "out", "[N, 32, 8, 8]"),
    )
    root = Box("model", "", "tiny", "Tiny", boxes=boxes, edges=edges, parameters=3000, macs=10**6, bytes=10**5)
    return Drawing("tiny", root, frozenset(), (("parameters", "3,000"), ("input", "[N, 3, 16, 16]")))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is missing")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no chromium on the path: apt-get install chromium")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=found, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "model.html"
    path.write_text(page(drawing()), encoding="utf-8")
    return path


@pytest.fixture
def visit(browser: Any, file: Path) -> Iterator[Callable[..., Any]]:
    """Open the page; at the end nothing was complained of and nothing but the file was asked for."""
    contexts, complaints, asked = [], [], []

    def opened(fragment: str = "", **settings: Any) -> Any:
        contexts.append(browser.new_context(**{"viewport": {"width": 1200, "height": 800}, **settings}))
        tab = contexts[-1].new_page()
        tab.on("console", lambda said: complaints.append(said.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(file.as_uri() + fragment)
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []
    assert {url.split("#")[0] for url in asked} == {file.as_uri()}


def drawn(tab: Any) -> dict[str, Any]:
    return dict(json.loads(tab.evaluate("JSON.stringify(drawn())")))


def shown(tab: Any) -> list[str]:
    return [box["id"] for box in drawn(tab)["boxes"]]


def spot(tab: Any, box: str, *, arrow: bool = False, header: bool = False) -> tuple[float, float]:
    """Where on the screen a box lies: its middle, its arrow, or its header."""
    state = drawn(tab)
    found = next(each for each in state["boxes"] if each["id"] == box)
    top = tab.locator("#canvas").bounding_box()["y"]
    x = found["x"] + (found["w"] - 12 if arrow else found["w"] / 2)
    y = found["y"] + (12 if header else found["h"] / 2)
    view = state["view"]
    return view["x"] + x * view["k"], top + view["y"] + y * view["k"]


def pixel(tab: Any, x: int, y: int) -> tuple[int, ...]:
    """The colour of a place of the screen."""
    return Image.open(io.BytesIO(tab.screenshot())).convert("RGB").getpixel((x, y))  # type: ignore[return-value]


def test_it_draws_the_model_from_a_file_and_asks_nothing_of_the_network(visit: Callable[..., Any]) -> None:
    tab = visit()
    assert tab.title() == "tiny · torchgraft"
    assert shown(tab) == ["in", "stem", "body", "extra", "left", "right", "cat", "out"]
    assert tab.locator("header dd").all_inner_texts() == ["3,000", "[N, 3, 16, 16]"]
    assert tab.locator("#legend li").all_inner_texts() == ["trainable", "frozen", "partly frozen", "new"]


def test_its_policy_forbids_the_network_and_foreign_scripts(browser: Any, file: Path) -> None:
    tab = browser.new_page()
    tab.goto(file.as_uri())
    blocked = tab.evaluate("""new Promise(done => {
        const kinds = [];
        document.addEventListener('securitypolicyviolation', event => {
            kinds.push(event.effectiveDirective);
            if (kinds.length === 2) done(kinds.sort());
        });
        const script = document.createElement('script');
        script.textContent = '1';
        document.body.append(script);
        fetch('https://example.org').catch(() => {});
    })""")
    assert blocked == ["connect-src", "script-src-elem"]
    tab.close()


def test_a_click_shows_the_details_of_a_layer(visit: Callable[..., Any]) -> None:
    tab = visit()
    tab.mouse.click(*spot(tab, "stem"))
    panel = tab.locator("#panel")
    text = panel.inner_text()
    for part in ("stem", "Conv2d", "frozen", "3×3, 3 → 8", "[N, 3, 16, 16]", SHAPE, "224", "all frozen", "7.5 % of the model", "its weights are tied"):  # fmt: skip
        assert part in text
    panel.get_by_role("button", name="body").click()
    assert drawn(tab)["selected"] == "body"
    tab.keyboard.press("Escape")
    assert panel.is_hidden()


def test_an_arrow_a_header_and_a_double_click_open_and_close(visit: Callable[..., Any]) -> None:
    tab = visit()
    before = spot(tab, "extra", header=True)
    tab.mouse.click(*spot(tab, "extra", arrow=True))
    assert "extra.conv" in shown(tab)
    after = spot(tab, "extra", header=True)
    assert after == pytest.approx(before, abs=2), "what was opened stays where it was"
    tab.mouse.click(*after)
    assert "extra.conv" not in shown(tab)
    tab.wait_for_timeout(550)
    tab.mouse.dblclick(*spot(tab, "extra"))
    assert "extra.conv" in shown(tab)


def test_search_finds_paths_classes_and_shapes_and_opens_the_way_to_them(visit: Callable[..., Any]) -> None:
    tab = visit()
    tab.keyboard.press("/")
    tab.keyboard.type("extra.conv")
    assert tab.locator("#hits li").all_inner_texts() == ["extra.conv\nConv2d"]
    tab.keyboard.press("Enter")
    assert drawn(tab)["selected"] == "extra.conv"
    assert "extra" in drawn(tab)["opened"]
    tab.locator("#query").fill("conv2d")
    assert tab.locator("#found").inner_text() == "3"
    for number, box in enumerate(("stem", "body.0.conv", "extra.conv", "stem")):
        tab.keyboard.press("Enter")
        assert drawn(tab)["selected"] == box
        assert tab.locator("#found").inner_text() == f"{number % 3 + 1} of 3"
    tab.locator("#query").fill(WIDE)
    assert tab.locator("#found").inner_text() == "2"
    tab.locator("#query").fill("resnet")
    assert "Nothing has this" in tab.locator("#hits").inner_text()


def test_a_folded_block_says_what_it_stands_for_and_is_found_by_any_of_its_paths(
    visit: Callable[..., Any],
) -> None:
    tab = visit()
    tab.keyboard.press("/")
    tab.keyboard.type("body.3.conv")
    tab.keyboard.press("Enter")
    assert drawn(tab)["selected"] == "body.0.conv"
    tab.mouse.click(*spot(tab, "body.0", header=True))
    assert tab.locator("#panel .list li").all_inner_texts() == ["body.0", "body.1", "body.2", "body.3"]
    assert "× 4" in tab.locator("#panel .marks").inner_text()


def test_all_opens_level_by_level_and_closes_at_once(visit: Callable[..., Any]) -> None:
    tab = visit()
    tab.get_by_role("button", name="Open one more level").click()
    assert {"body.0", "extra.conv"} <= set(shown(tab))
    assert "body.0.conv" not in shown(tab)
    tab.keyboard.press("e")
    assert "body.0.conv" in shown(tab)
    tab.keyboard.press("c")
    assert len(shown(tab)) == 8


def test_the_arrow_keys_go_along_the_edges(visit: Callable[..., Any]) -> None:
    tab = visit()
    way = []
    for key in ("ArrowDown", "ArrowDown", "ArrowDown", "ArrowDown", "Enter", "ArrowDown", "ArrowDown", "ArrowDown", "ArrowRight", "ArrowLeft", "ArrowUp", "ArrowLeft"):  # fmt: skip
        tab.keyboard.press(key)
        way.append(drawn(tab)["selected"])
    assert way == ["in", "stem", "body", "extra", "extra", "extra.conv", "extra+add", "left", "right", "left", "extra+add", "extra"]  # fmt: skip
    assert "extra, Block" in tab.locator("#said").text_content()


def test_it_zooms_pans_and_shows_the_whole(visit: Callable[..., Any]) -> None:
    tab = visit(reduced_motion="reduce")
    first = drawn(tab)["view"]
    tab.keyboard.press("+")
    assert drawn(tab)["view"]["k"] == pytest.approx(first["k"] * 1.25)
    tab.mouse.move(600, 400)
    tab.mouse.wheel(30, 40)
    tab.wait_for_timeout(100)
    moved = drawn(tab)["view"]
    assert moved["y"] < first["y"]
    tab.mouse.move(100, 700)
    tab.mouse.down()
    tab.mouse.move(160, 730, steps=3)
    tab.mouse.up()
    dragged = drawn(tab)["view"]
    assert (dragged["x"] - moved["x"], dragged["y"] - moved["y"]) == pytest.approx((60, 30), abs=6)
    tab.keyboard.press("0")
    assert drawn(tab)["view"] == pytest.approx(first, abs=1)


def test_it_is_dark_where_the_reader_wants_dark_and_can_be_switched(visit: Callable[..., Any]) -> None:
    light, dark = visit(), visit(color_scheme="dark")
    assert min(pixel(light, 20, 400)) > 230
    assert max(pixel(dark, 20, 400)) < 40
    dark.keyboard.press("d")
    dark.wait_for_timeout(50)
    assert min(pixel(dark, 20, 400)) > 230


def test_the_address_keeps_what_is_open_and_where_one_is(visit: Callable[..., Any]) -> None:
    tab = visit()
    tab.mouse.click(*spot(tab, "extra", arrow=True))
    tab.mouse.move(600, 400)
    tab.mouse.wheel(0, 55)
    tab.wait_for_timeout(400)
    again = visit(tab.evaluate("location.hash"))
    ours, theirs = drawn(tab), drawn(again)
    assert theirs["opened"] == ours["opened"] == ["extra"]
    assert theirs["selected"] == ours["selected"] == "extra"
    assert theirs["view"] == pytest.approx(ours["view"], abs=0.6)


def test_question_mark_tells_the_keys_and_escape_closes_them(visit: Callable[..., Any]) -> None:
    tab = visit()
    tab.keyboard.press("?")
    assert "along the edges" in tab.locator("#keys").inner_text()
    tab.keyboard.press("Escape")
    assert tab.locator("#keys").is_hidden()


def test_on_a_phone_nothing_is_wider_than_the_screen(visit: Callable[..., Any]) -> None:
    tab = visit(viewport={"width": 390, "height": 844}, has_touch=True)
    tab.touchscreen.tap(*spot(tab, "stem"))
    assert "Conv2d" in tab.locator("#panel").inner_text()
    assert tab.evaluate("document.documentElement.scrollWidth") == 390


def test_names_that_look_like_markup_stay_text(visit: Callable[..., Any]) -> None:
    tab = visit()
    tab.mouse.click(*spot(tab, "right"))
    assert NASTY in tab.locator("#panel").inner_text()
    assert "</" not in embedded({"name": NASTY})


def test_on_paper_it_is_a_drawing_of_lines(visit: Callable[..., Any]) -> None:
    tab = visit()
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert tab.locator("#print svg > rect").count() == 8
    assert "stem" in tab.locator("#print svg").text_content()
