"""What holds of every drawing: its edges, its numbers, the ways that tensors take."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from tests.graph import models
from tests.graph.models import drawn, graft
from torch import nn

import torchgraft as tg
from torchgraft.graph import Box, drawing
from torchgraft.graph.opening import walk
from torchgraft.trace import Trace

every = pytest.mark.parametrize("name", models.ALL)


@every
@pytest.mark.parametrize("fold", [True, False])
def test_every_edge_runs_between_boxes_of_its_level_and_every_id_is_there_once(name, fold):
    root = drawn(name, fold).root
    for box in walk(root):
        ids = [child.id for child in box.boxes]
        for edge in box.edges:
            assert edge.source in ids or (edge.source == "" and box is not root)
            assert edge.target in ids or (edge.target == "" and box is not root)
            assert (edge.source, edge.target) != ("", "")
        assert len({(edge.source, edge.target) for edge in box.edges}) == len(box.edges)
    assert set(Counter(box.id for box in walk(root)).values()) == {1}


@every
def test_edges_go_forward_in_the_order_of_the_pass(name):
    for box in walk(drawn(name).root):
        place = {child.id: number for number, child in enumerate(box.boxes)}
        for edge in box.edges:
            if edge.source and edge.target:
                assert place[edge.source] < place[edge.target]


@every
@pytest.mark.parametrize("fold", [True, False])
def test_every_parameter_is_counted_once(name, fold):
    root, module = drawn(name, fold).root, graft(name).module
    assert root.parameters == sum(one.numel() for one in module.parameters())
    assert root.trainable == sum(one.numel() for one in module.parameters() if one.requires_grad)
    for box in walk(root):
        inside = sum(child.parameters * max(len(child.folded), 1) for child in box.boxes)
        assert inside <= box.parameters
        if box.boxes and not any("never called" in note or "broke off" in note for note in box.notes):
            assert inside == box.parameters


@every
def test_folding_changes_no_totals(name):
    folded, whole = drawn(name).root, drawn(name, False).root

    def totals(box: Box, times: int = 1) -> Counter[str]:
        found = Counter({"macs": 0})
        if not box.boxes:
            return Counter({"macs": box.macs * times, "boxes": times})
        for child in box.boxes:
            found += totals(child, times * child.times)
        return found

    assert totals(folded) == totals(whole)
    assert folded.parameters == whole.parameters
    assert folded.macs == whole.macs == graft(name).trace().macs


@every
def test_what_reaches_an_output_in_the_trace_reaches_it_in_the_drawing(name):
    """Module calls that feed each other in the trace are joined by a way in the drawing, and no others."""
    run = graft(name).trace()
    leaves = _leaves(drawn(name, False).root)
    after = _reached(run)
    ways = _ways(drawn(name, False).root)
    for id, (path, call) in leaves.items():
        span = run.calls_of(path)[call - 1]
        if span.first_op == span.last_op:
            continue
        ends = {run.ops[n].index for n in after[span.last_op - 1]}
        for other, (there, number) in leaves.items():
            held = run.calls_of(there)[number - 1]
            if held.first_op >= span.last_op and held.first_op < held.last_op:
                joined = any(n in ends for n in range(held.first_op, held.last_op))
                assert not joined or other in ways[id], (id, other)


def _leaves(root: Box) -> dict[str, tuple[str, int]]:
    return {box.id: (box.path, box.call) for box in walk(root) if box.role == "module" and not box.boxes}


def _reached(run: Trace) -> dict[int, set[int]]:
    """Give the operations that lie behind each one."""
    after: dict[int, set[int]] = {op.index: set() for op in run.ops}
    for op in reversed(run.ops):
        for value in op.inputs:
            maker = run.makers[value]
            if maker is not None:
                after[maker] |= {op.index} | after[op.index]
    return after


def _ways(root: Box) -> dict[str, set[str]]:
    """Give the closed boxes that lie behind each one."""
    steps: dict[str, set[str]] = {}

    def ports(box: Box) -> None:
        for child in box.boxes:
            ports(child)
        for edge in box.edges:
            source = f"{box.id}>in" if edge.source == "" else f"{edge.source}>out"
            target = f"{box.id}>out" if edge.target == "" else f"{edge.target}>in"
            steps.setdefault(source, set()).add(target)
        if not box.boxes:
            steps.setdefault(f"{box.id}>in", set()).add(f"{box.id}>out")

    ports(root)
    ways = {}
    for box in walk(root):
        seen: set[str] = set()
        queue = [f"{box.id}>out"]
        while queue:
            for following in steps.get(queue.pop(), ()):
                if following not in seen:
                    seen.add(following)
                    queue.append(following)
        ways[box.id] = {one.removesuffix(">in") for one in seen if one.endswith(">in")}
    return ways


@pytest.mark.parametrize("name", ["vit", "several", "edited", "broken"])
def test_looking_leaves_the_model_as_it_was(name, snapshot):
    g = models.ALL[name]()
    before, state = snapshot(g.module), torch.get_rng_state()
    drawing(g)
    assert snapshot(g.module) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert all(one.grad is None for one in g.module.parameters())


def boxes(name: str, fold: bool = True) -> dict[str, Box]:
    return {box.id: box for box in walk(drawn(name, fold).root)}


def test_alike_blocks_in_a_row_are_one():
    held = boxes("vit")
    block = held["encoder.layers.encoder_layer_0"]
    assert (block.times, block.label) == (3, "encoder_layer_0–2")
    assert block.folded == tuple(f"encoder.layers.encoder_layer_{n}" for n in range(3))
    assert boxes("llama")["model.layers.0"].times == 4
    assert boxes("bert")["bert.encoder.layer.0"].times == 4


def test_blocks_that_an_edit_made_different_are_not_folded():
    g = models.vit().freeze("encoder.layers.encoder_layer_0")
    held = {box.id: box for box in walk(drawing(g).root)}
    assert held["encoder.layers.encoder_layer_0"].times == 1
    assert held["encoder.layers.encoder_layer_1"].times == 2


def test_a_block_that_feeds_more_than_its_neighbour_is_not_folded():
    class Skips(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(3))

        def forward(self, x):
            a = self.blocks[0](x)
            b = self.blocks[1](a)
            return self.blocks[2](b) + a

    root = drawing(tg.load(Skips(), input=(4,))).root
    assert [box.label for box in root.boxes] == ["input", "blocks.0", "blocks.1–2", "+", "output"]
    assert sum(edge.source == "blocks.0" for edge in root.edges) == 2


def test_inputs_and_outputs_have_their_names():
    root = drawn("several").root
    assert [box.label for box in root.boxes if box.role == "input"] == ["ids", "mask", "unread"]
    assert [box.label for box in root.boxes if box.role == "output"] == ["logits", "pooled"]
    assert boxes("several")["in:unread"].notes == ("the pass does not read it",)
    assert [box.label for box in drawn("llama").root.boxes if box.role != "module"] == ["input_ids", "logits"]


def test_reused_tied_spare_and_bare_are_told():
    held = boxes("several")
    assert (held["shared"].call, held["shared"].calls, held["shared#2"].call) == (1, 2, 2)
    assert (held["shared#2"].parameters, held["shared#2"].state) == (0, "trainable")
    assert (held["out"].parameters, held["out"].notes) == (0, ("shares its weight with words",))
    assert held["(model)"].notes == ("never called: spare", "not drawn: 1 Dropout")
    scale = held["(model)/scale"]
    assert (scale.role, scale.kind, scale.parameters) == ("constant", "8", 8)


def test_the_residual_goes_around_its_branch():
    edges = {(edge.source, edge.target) for edge in boxes("llama")["model.layers.0"].edges}
    adds = [box.id for box in boxes("llama")["model.layers.0"].boxes if box.label == "+"]
    assert {("", adds[0]), (adds[0], adds[1])} <= edges


def test_rotary_positions_are_one_operation():
    attention = boxes("llama")["model.layers.0.self_attn"]
    assert [box.label for box in attention.boxes] == ["q_proj", "k_proj", "v_proj", "rotary", "rotary", "attention",
                                                      "o_proj"]  # fmt: skip


def test_weights_that_an_operation_reads_by_itself_are_its_own():
    attention = boxes("swin_t")["features.1.0.attn"]
    shown = {(box.label, box.kind): box.parameters for box in attention.boxes}
    assert shown["linear", "qkv"] == 96 * 288 + 288
    assert shown["relative_position_bias_table", "169×3"] == 169 * 3


def test_masks_that_are_made_of_nothing_are_not_drawn():
    shifted = boxes("swin_t")["features.1.1.attn"]
    assert [box.label for box in shifted.boxes] == ["linear", "matmul", "relative_position_bias_table", "+", "softmax",
                                                    "matmul", "linear"]  # fmt: skip
    assert [edge.target for edge in shifted.edges if not edge.source] == [shifted.boxes[0].id]


def test_a_shared_part_is_counted_where_it_is_called_first():
    class Shares(nn.Module):
        def __init__(self):
            super().__init__()
            self.common = nn.Linear(4, 4)
            self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), self.common) for _ in range(3))

        def forward(self, x):
            for block in self.blocks:
                x = block(x)
            return x

    root = drawing(tg.load(Shares(), input=(4,))).root
    assert [(box.label, box.times, box.parameters) for box in root.boxes[1:-1]] == [
        ("blocks.0", 1, 40), ("blocks.1–2", 2, 20)]  # fmt: skip
    assert root.parameters == 80


def test_edits_and_repairs_are_told_apart():
    held = boxes("edited")
    assert (held["fc"].mark, held["fc"].edit) == ("new", 1)
    assert (held["layer1.attention"].mark, held["layer2.wide"].mark) == ("new", "new")
    assert (held["layer2.fit"].mark, held["layer2.fit"].edit) == ("repaired", 4)
    assert [held[name].state for name in ("conv1", "layer1", "layer4", "relu")] == [
        "frozen", "partly", "trainable", "none"]  # fmt: skip


def test_layers_that_follow_a_new_size_are_repairs_too():
    g = models.resnet18().insert(nn.Conv2d(128, 256, 1), after="layer2", name="wide", fix="propagate")
    held = {box.id: box for box in walk(drawing(g).root)}
    assert held["layer3.0.conv1"].mark == held["layer3.0.downsample.0"].mark == "repaired"
    alone = models.resnet18().resize("fc", outputs=10)
    assert {box.id: box for box in walk(drawing(alone).root)}["fc"].mark == "changed"


def test_where_the_pass_breaks_off_is_marked_with_the_words_of_the_finding():
    held = boxes("broken")
    conv = held["layer3.0.conv1"]
    assert conv.mark == "broken"
    assert conv.notes[:2] == (
        "S001 channels do not match", "layer3.0.conv1 (Conv2d) takes 64 channels, but gets 128 of [N, 128, 8, 8]"
    )  # fmt: skip
    assert [edge.mark for edge in held["layer3.0"].edges] == ["broken"]
    assert "the pass broke off before: layer4, avgpool, fc" in held["(model)"].notes
    assert {"(model)", "layer3", "layer3.0"} <= drawn("broken").opened
    assert dict(drawn("broken").facts)["breaks off at"].startswith("layer3.0.conv1: S001 channels do not match")


def test_an_operation_of_the_model_itself_that_breaks_off_gets_a_box():
    class Wrong(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other = nn.Linear(4, 3), nn.Linear(4, 5)

        def forward(self, x):
            return self.one(x) + self.other(x)

    root = drawing(tg.load(Wrong(), input=(4,))).root
    last = root.boxes[-1]
    assert (last.label, last.mark, last.given) == ("add", "broken", ("[N, 3]", "[N, 5]"))
    assert [(edge.source, edge.mark) for edge in root.edges if edge.target == last.id] == [
        ("one", "broken"), ("other", "broken")]  # fmt: skip


def test_a_single_layer_is_a_model_too():
    root = drawing(tg.load(nn.Linear(4, 3), input=(4,))).root
    assert [box.label for box in root.boxes] == ["input", "linear", "output"]
    assert len(root.edges) == 2
    assert root.boxes[1].parameters == 15


def test_a_scripted_model_is_drawn_from_outside():
    g = tg.load(torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.ReLU())), input=(4,))
    root = drawing(g).root
    assert [root.boxes[0].label, root.boxes[-1].label] == ["input", "output"]
    assert root.parameters == 20


def test_a_module_called_again_and_again_is_folded_and_counted_once():
    class Again(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = nn.Sequential(nn.Linear(4, 4), nn.ReLU())

        def forward(self, x):
            for _ in range(5):
                x = self.block(x)
            return x

    block = drawing(tg.load(Again(), input=(4,))).root.boxes[1]
    assert (block.times, block.folded, block.parameters) == (5, ("block",), 20)
    assert "one module, called 5 times in a row" in block.notes


def test_parallel_blocks_of_one_kind_are_one():
    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(6))

        def forward(self, x):
            return torch.cat([expert(x) for expert in self.experts], -1)

    root = drawing(tg.load(Experts(), input=(4,))).root
    assert [(box.label, box.times) for box in root.boxes[1:3]] == [("experts.0–5", 6), ("cat", 1)]


def test_an_input_is_called_as_the_forward_calls_it_and_not_by_what_follows():
    class Masked(nn.Linear):
        def forward(self, x, attn_mask=None):
            return super().forward(x)

    class Words(nn.Embedding):
        def forward(self, ids, mask=None):
            return super().forward(ids)

    assert _inputs(tg.load(Masked(4, 4), input=(4,))) == ["input"]
    assert _inputs(tg.load(Words(4, 4), input=torch.zeros(2, 3, dtype=torch.long))) == ["ids"]


def _inputs(g: tg.Graft) -> list[str]:
    return [box.label for box in drawing(g).root.boxes if box.role == "input"]


def test_a_break_is_said_in_one_line_and_large_numbers_keep_three_digits():
    class Wrong(nn.Linear):
        def forward(self, x):
            return super().forward(x) @ x.flatten()

    assert "; the pass breaks off at" in drawing(tg.load(Wrong(8, 8), input=(3, 8))).summary()
    wide = drawing(tg.load(nn.Linear(999_999, 1, device="meta"), input=(999_999,)))
    assert dict(wide.facts)["multiply-accumulates"] == "1 M"
