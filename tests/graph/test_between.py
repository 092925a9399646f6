from __future__ import annotations

import pytest
import torch
from torch import nn

import torchgraft as tg
from torchgraft.graph import Box, drawing
from torchgraft.graph.between import between
from torchgraft.graph.opening import walk
from torchgraft.graph.svg import svg
from torchgraft.view.diff import base_of


class Small(nn.Module):
    """A stem, four blocks in a row, a head."""

    def __init__(self, blocks: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.body = nn.Sequential(*(nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()) for _ in range(blocks)))
        self.head = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.stem(x)).mean((2, 3)))


def small() -> tg.Graft:
    return tg.load(Small(), input=(3, 8, 8))


def against_base(g: tg.Graft):
    told = g.diff()
    with base_of(g) as bare:
        before = drawing(bare, fold=False)
    return between(before, drawing(g, fold=False), told)


def marks(drawn) -> dict[str, str]:
    return {box.id: box.mark for box in walk(drawn.root) if box.mark}


def edge_marks(box: Box) -> set[tuple[str, str, str]]:
    return {(edge.source, edge.target, edge.mark) for edge in box.edges if edge.mark}


def at(drawn, path: str) -> Box:
    return next(box for box in walk(drawn.root) if box.id == path)


def test_a_model_and_itself_have_no_marks_and_are_folded():
    drawn = against_base(small())
    assert marks(drawn) == {}
    assert (at(drawn, "body.0").times, at(drawn, "body.0").folded) == (4, ("body.0", "body.1", "body.2", "body.3"))


def test_what_came_went_and_changed_is_marked():
    g = small().insert(nn.Conv2d(4, 4, 1), after="body.0", name="extra").remove("body.2").head(3)
    drawn = against_base(g)
    found = marks(drawn)
    assert found.pop("body.extra") == "added"
    assert found.pop("gone:body.2") == "removed"
    assert found.pop("head") == "changed"
    assert {id.startswith("gone:body.2") for id in found} == {True}  # all that was in it


def test_edges_lead_past_what_is_gone_and_through_what_is_new():
    drawn = against_base(small().insert(nn.Conv2d(4, 4, 1), after="body.0", name="extra"))
    assert edge_marks(at(drawn, "body")) == {
        ("body.0", "body.extra", "added"),
        ("body.extra", "body.1", "added"),
        ("body.0", "body.1", "removed"),
    }


def test_the_other_way_round_it_is_the_mirror():
    a, b = small(), small().remove("body.3")
    drawings = [drawing(one, fold=False) for one in (a, b)]
    there, back = between(*drawings, a.diff(b)), between(*drawings[::-1], b.diff(a))
    assert marks(there)["gone:body.3"] == "removed"
    assert marks(back)["body.3"] == "added"


def test_every_edge_joins_boxes_that_are_there():
    g = small().insert(nn.Conv2d(4, 4, 1), after="body.0", name="extra").remove("body.2").head(3, hidden=[4])
    for box in walk(against_base(g).root):
        held = {one.id for one in box.boxes} | {""}
        assert all({edge.source, edge.target} <= held for edge in box.edges), box.id
    ids = [box.id for box in walk(against_base(g).root)]
    assert len(ids) == len(set(ids))


def test_a_module_that_moved_says_where_it_was():
    g = small().rename("stem", "start")
    assert "was stem" in at(against_base(g), "start").notes


def test_what_is_wrapped_is_not_gone():
    drawn = against_base(small().wrap("body.1", with_="residual"))
    found = marks(drawn)
    assert found["body.1"] == "added"
    assert not any(mark == "removed" for mark in found.values())
    assert edge_marks(at(drawn, "body")) == set()


def test_a_bare_parameter_that_changed_is_marked():
    g = tg.load("timm:vit_tiny_patch16_224@none", input=(3, 224, 224)).input(size=[128, 128])
    drawn = against_base(g)
    (box,) = (box for box in walk(drawn.root) if box.label == "pos_embed")
    assert box.mark == "changed"


def test_what_is_shown_open_leads_to_the_marks():
    g = tg.load("resnet18@none", input=(3, 32, 32)).replace("layer3.1.bn2", nn.Identity())
    drawn = against_base(g)
    assert {"layer3", "layer3.1"} <= drawn.opened


def test_the_legend_names_the_colours_of_edges_too():
    g = small().insert(nn.Conv2d(4, 4, 1), after="body.0", name="extra")
    drawn = against_base(g)
    assert "removed" not in marks(drawn).values()
    assert any(mark == "removed" for box in walk(drawn.root) for *_, mark in edge_marks(box))
    assert ">removed</text>" in svg(drawn)
    assert ">removed</text>" not in svg(drawing(g))


def test_what_is_folded_is_named_from_the_first_to_the_last_as_draw_does():
    drawn = against_base(small())
    assert at(drawn, "body.0").label == "0–3" == at(drawing(small()), "body.0").label
    assert ("modules", "no difference") in drawn.facts


@pytest.mark.parametrize("ending", ["svg", "png", "dot", "json"])
def test_it_is_written_in_every_format(tmp_path, ending):
    path = tmp_path / f"diff.{ending}"
    small().head(3).diff(to=path)
    assert path.stat().st_size > 500
