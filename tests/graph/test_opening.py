"""What is drawn, and what of it is open."""

from __future__ import annotations

import pytest
from tests.graph import models
from torch import nn

import torchgraft as tg
from torchgraft.errors import SelectionError
from torchgraft.graph import drawing
from torchgraft.graph.opening import walk


def resnet18() -> tg.Graft:
    return models.graft("resnet18")


def shown(made) -> list[str]:
    return [child.id for box in walk(made.root) if box.id in made.opened for child in box.boxes]


def test_a_depth_opens_all_above_it():
    assert drawing(resnet18(), depth=1).opened == {"(model)"}
    assert drawing(resnet18(), depth=2).opened == {"(model)", "layer1", "layer2", "layer3", "layer4"}
    whole = drawing(resnet18(), depth=99, fold=False)
    assert "layer4.0.downsample.0" in shown(whole)


def test_a_model_is_taken_in_at_a_glance():
    assert len(shown(drawing(resnet18()))) <= 40
    assert "layer1.0.conv1" in shown(drawing(resnet18())), "one block is open, as an example"


def test_a_selector_opens_modules_and_the_way_to_them():
    made = drawing(resnet18(), open="layer3.1")
    assert made.opened == {"(model)", "layer3", "layer3.1"}
    assert drawing(resnet18(), open="layer1.1").opened >= {"layer1", "layer1.0"}, "it is folded into its neighbour"


def test_what_an_edit_put_in_is_seen():
    g = models.resnet18().insert(nn.Conv2d(64, 64, 1), after="layer1.1.conv2", name="extra")
    assert any(box.mark == "new" for box in walk(drawing(g).root) if box.id in shown(drawing(g)))


def test_a_part_is_drawn_alone():
    made = drawing(resnet18(), at="layer2")
    assert made.title == "resnet18, layer2"
    assert [box.label for box in made.root.boxes] == ["input", "0", "1", "output"]
    assert made.root.parameters == 525_568 == int(dict(made.facts)["parameters"].replace(",", ""))
    assert [edge.shape for edge in made.root.edges] == ["[N, 64, 16, 16]", "[N, 128, 8, 8]", "[N, 128, 8, 8]"]


def test_several_parts_are_drawn_with_what_goes_in_and_out():
    made = drawing(resnet18(), at=["layer2", "layer3"])
    assert [box.label for box in made.root.boxes] == ["input", "layer2", "layer3", "output"]
    assert made.root.parameters == 525_568 + 2_099_712


def test_a_selector_that_matches_nothing_is_refused():
    with pytest.raises(SelectionError, match="layr2"):
        drawing(resnet18(), at="layr2")
    with pytest.raises(SelectionError, match="layr2"):
        drawing(resnet18(), open="layr2")


def test_adapters_everywhere_do_not_open_everything():
    pytest.importorskip("peft")
    made = drawing(models.resnet18().adapter("**:Conv2d", rank=2))
    assert any(box.mark == "new" for box in walk(made.root))
    assert len(shown(made)) <= 40
