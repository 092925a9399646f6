"""The layout, as SVG and the page both get it: nothing lies on anything else, and the main way is straight."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, pairwise
from typing import Any

import pytest

from torchgraft.graph.drawing import Box, Drawing, Edge
from torchgraft.graph.layout import laid_out
from torchgraft.graph.opening import walk

S = "[N, 64, 56, 56]"
Area = tuple[float, float, float, float]


def chained(boxes: tuple[Box, ...], *skips: tuple[str, str]) -> Drawing:
    ways = [Edge(one.id, other.id, S) for one, other in pairwise(boxes)]
    return Drawing("", Box("", "", "", boxes=boxes, edges=(*ways, *(Edge(*ends, S) for ends in skips))))


def box(name: str, **more: Any) -> Box:
    return Box(name, name, name, "Block", **more)


def opened(drawing: Drawing) -> dict[str, Any]:
    """Everything open, placed."""
    return laid_out(replace(drawing, opened=frozenset(each.id for each in walk(drawing.root) if each.boxes)))


def by_id(placed: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["id"]: each for each in placed["boxes"]}


def area(spot: dict[str, Any]) -> Area:
    return spot["x"], spot["y"], spot["x"] + spot["w"], spot["y"] + spot["h"]


def label_area(edge: dict[str, Any]) -> Area:
    label = edge["label"]
    return label["x"], label["y"] - 8, label["x"] + label["w"], label["y"] + 2


def meet(one: Area, other: Area) -> bool:
    return one[0] < other[2] - 1 and other[0] < one[2] - 1 and one[1] < other[3] - 1 and other[1] < one[3] - 1


def overlaps(placed: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Boxes on boxes, labels on boxes or labels, straight lines through boxes; siblings only."""
    for parent in {each["parent"] for each in placed["boxes"]}:
        spots = [each for each in placed["boxes"] if each["parent"] == parent]
        edges = [each for each in placed["edges"] if each["parent"] == parent]
        areas = [(each["id"], area(each)) for each in spots]
        areas += [(f"label of {each['source']}", label_area(each)) for each in edges if each["label"]]
        for (name, one), (other_name, other) in combinations(areas, 2):
            if meet(one, other):
                yield name, other_name
        for edge in edges:
            yield from crossed(edge, spots)


def crossed(edge: dict[str, Any], spots: list[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    for (x, y), (to_x, to_y) in pairwise(edge["points"]):
        line = (min(x, to_x) - 1, min(y, to_y) + 1, max(x, to_x) + 1, max(y, to_y) - 1)
        if x == to_x:
            yield from ((edge["source"], edge["target"], each["id"]) for each in spots if meet(line, area(each)))


def some(seed: int) -> Drawing:
    """A random container of containers with branches, skips, constants and dead ends."""
    chance = random.Random(seed)

    def filled(name: str, count: int, depth: int) -> tuple[tuple[Box, ...], tuple[Edge, ...]]:
        boxes = tuple(made(f"{name}.{number}", depth) for number in range(count))
        ids = ["", *(each.id for each in boxes), ""]
        edges = [
            Edge(ids[source], ids[target], chance.choice(("", S, "[N, 8]", "[N, 8], [N, 128, 4096]")))
            for target in range(1, count + 2)
            if target > count or (boxes[target - 1].role != "constant" and chance.random() < 0.9)
            for source in sorted(
                {max(0, target - chance.choice((1, 1, 1, 2, 3))) for _ in range(chance.randint(1, 3))}
            )
            if (source, target) != (0, count + 1)
        ]
        return boxes, tuple(edges)

    def made(name: str, depth: int) -> Box:
        role = chance.choice(("module",) * 6 + ("operation", "constant"))
        nested = role == "module" and depth < 2 and chance.random() < 0.3
        boxes, edges = filled(name, chance.randint(1, 5), depth + 1) if nested else ((), ())
        label = "b" * chance.randint(1, 14)
        return Box(name, name, label, role=role, detail=chance.choice(("", "3×3")), boxes=boxes, edges=edges)  # type: ignore[arg-type]

    boxes, edges = filled("r", chance.randint(2, 14), 0)
    return Drawing("", Box("model", "", "", boxes=(Box("r", "r", "r", boxes=boxes, edges=edges),)))


@pytest.mark.parametrize("seeds", [range(start, start + 15) for start in range(0, 60, 15)], ids=str)
def test_nothing_lies_on_anything_else_in_any_graph(seeds: range) -> None:
    assert {seed: found for seed in seeds if (found := list(overlaps(opened(some(seed)))))} == {}


@pytest.mark.parametrize("seed", range(4))
def test_what_is_inside_lies_below_the_header_and_within_the_border(seed: int) -> None:
    spots = by_id(opened(some(seed)))
    for each in spots.values():
        if each["parent"] in spots:
            left, top, right, bottom = area(spots[each["parent"]])
            inner = area(each)
            assert left < inner[0] < inner[2] < right
            assert top + 30 < inner[1] < inner[3] < bottom


def test_a_skip_goes_beside_and_the_main_way_stays_straight() -> None:
    block = box("block", boxes=(box("a"), box("b"), box("c")), edges=(Edge("", "a", S), Edge("a", "b", S), Edge("b", "c", S), Edge("", "c", S), Edge("c", "", S)))  # fmt: skip
    placed = opened(chained((box("stem"), block, box("head"))))
    assert len({each["port"] for each in placed["boxes"]}) == 1
    skips = [each for each in placed["edges"] if each["skip"]]
    assert [(each["source"], each["target"]) for each in skips] == [("", "c")]
    assert max(x for x, _ in skips[0]["points"]) > max(area(each)[2] for each in placed["boxes"] if each["parent"] == "block")  # fmt: skip


def test_a_skip_that_is_nested_in_another_lies_within_its_lane() -> None:
    placed = opened(chained(tuple(map(box, "abcdef")), ("a", "f"), ("b", "e"), ("c", "e")))
    lane = {each["source"]: max(x for x, _ in each["points"]) for each in placed["edges"] if each["skip"]}
    assert lane["c"] < lane["b"] < lane["a"]


def test_branches_stand_side_by_side_in_the_order_of_the_pass() -> None:
    boxes = tuple(map(box, ("from", "first", "second", "third", "to")))
    edges = tuple(Edge("from", name, S) for name in ("first", "second", "third")) + tuple(Edge(name, "to", S) for name in ("first", "second", "third"))  # fmt: skip
    spots = by_id(opened(Drawing("", Box("", "", "", boxes=boxes, edges=edges))))
    assert spots["first"]["port"] < spots["second"]["port"] == spots["from"]["port"] < spots["third"]["port"]
    assert spots["first"]["y"] == spots["second"]["y"] == spots["third"]["y"]


def test_a_constant_stands_beside_what_reads_it() -> None:
    boxes = (box("stem"), box("token", role="constant"), box("cat", role="operation"), box("head"))
    edges = (Edge("stem", "cat", S), Edge("token", "cat", S), Edge("cat", "head", S))
    spots = by_id(opened(Drawing("", Box("", "", "", boxes=boxes, edges=edges))))
    assert area(spots["token"])[2] < spots["cat"]["x"]
    assert spots["stem"]["port"] == spots["cat"]["port"] == spots["head"]["port"]


def test_what_begins_by_itself_stands_beside_what_reads_it() -> None:
    boxes = (box("words"), box("positions"), box("sum", role="operation"), box("norm"))
    edges = (Edge("words", "sum", S), Edge("positions", "sum", S), Edge("sum", "norm", S))
    placed = opened(Drawing("", Box("", "", "", boxes=boxes, edges=edges)))
    spots = by_id(placed)
    assert spots["words"]["port"] == spots["sum"]["port"] == spots["norm"]["port"] > area(spots["positions"])[2]
    assert [each["label"]["text"] for each in placed["edges"]] == [S, S, S]
    assert not list(overlaps(placed))


def test_a_shape_is_said_once_and_marked_where_it_did_not_change() -> None:
    boxes = tuple(map(box, "abcd"))
    edges = (Edge("a", "b", S), Edge("b", "c", S), Edge("a", "c", S), Edge("c", "d", "[N, 8]"))
    labels = [each["label"] for each in opened(Drawing("", Box("", "", "", boxes=boxes, edges=edges)))["edges"]]
    assert [label and (label["text"], label["same"]) for label in labels] == [(S, False), (S, True), None, ("[N, 8]", False)]  # fmt: skip


def test_an_edge_that_goes_back_is_drawn_as_well() -> None:
    placed = opened(chained(tuple(map(box, "abc")), ("c", "a"), ("b", "b")))
    assert not list(overlaps(placed))
    assert {(each["source"], each["target"]) for each in placed["edges"] if each["skip"]} == {
        ("c", "a"),
        ("b", "b"),
    }


def test_a_closed_box_hides_what_is_inside() -> None:
    inner = box("inner", boxes=(box("deep"),), edges=(Edge("", "deep"), Edge("deep", "")))
    spots = by_id(laid_out(chained((box("a"), inner))))
    assert set(spots) == {"a", "inner"}
    assert not spots["inner"]["open"]


def test_what_an_open_box_reads_stands_beside_the_box_above_it() -> None:
    layers = box("layers", boxes=(box("a"),), edges=(Edge("", "a", S), Edge("a", "", S)))
    boxes = (box("in", role="input"), box("words"), box("angles"), layers)
    edges = (Edge("in", "words", S), Edge("words", "layers", S), Edge("angles", "layers", S))
    placed = opened(Drawing("", Box("", "", "", boxes=boxes, edges=edges)))
    spots = by_id(placed)
    assert spots["words"]["port"] == spots["layers"]["port"] > area(spots["angles"])[2]
    assert area(spots["angles"])[3] == area(spots["words"])[3]
    assert not list(overlaps(placed))
