from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.test_sequences import BODIES, MODELS, applied, loaded, quick
from torch import nn

import torchgraft as tg
from torchgraft.comparing import diff_named
from torchgraft.edits import kinds
from torchgraft.errors import RecipeError, TorchgraftError
from torchgraft.loading import replay
from torchgraft.store import Store
from torchgraft.view.compare import compare
from torchgraft.view.diff import base_side, side_of
from torchgraft.view.difftext import text
from torchgraft.view.distance import distance, kept_part

GOLDEN = Path(__file__).parent / "golden"
FIT = pytest.mark.filterwarnings("ignore::torchgraft.errors.TorchgraftWarning")


class Small(nn.Module):
    """A stem with a norm, a body of three blocks, a head."""

    def __init__(self, wide: int = 4) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, wide, 3), nn.BatchNorm2d(wide), nn.ReLU())
        self.body = nn.Sequential(*(nn.Sequential(nn.Conv2d(wide, wide, 1), nn.ReLU()) for _ in range(3)))
        self.head = nn.Linear(wide, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.stem(x)).mean((2, 3)))


def small(seed: int = 0) -> tg.Graft:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return tg.load(Small(), input=(3, 8, 8))


def ways(difference: Any) -> dict[str, str]:
    return {
        one.path: one.way
        for one in difference.modules
        if one.way == "changed" or (one.way != "inside" and not one.implied)
    }


def tensors(difference: Any) -> dict[str, str]:
    return {one.name: one.way for one in difference.tensors}


# numbers


def test_bytes_decide_whether_a_number_changed():
    before = torch.tensor([0.0, float("nan"), 1.0, 2.0])
    after = torch.tensor([-0.0, float("nan"), 1.0, 2.0])
    assert distance(before, before.clone()).changed == 0
    found = distance(before, after)
    assert (found.changed, found.max_abs, found.bits_alone) == (1, 0.0, True)
    other = torch.tensor([0x7FC00001], dtype=torch.int32).view(torch.float32)  # another NaN
    assert distance(before[1:2], other).bits_alone


def test_distances_are_those_of_the_definition():
    one, other = torch.randn(50, 3), torch.randn(50, 3)
    found = distance(one, other)
    assert found.changed == found.size == 150
    assert found.max_abs == pytest.approx(float((one - other).abs().max()))
    assert found.relative == pytest.approx(float((one - other).norm() / one.norm()))
    assert found.cosine == pytest.approx(
        float(torch.cosine_similarity(one.flatten(), other.flatten(), 0)), abs=1e-6
    )


def test_what_became_nan_is_counted_and_spoils_nothing():
    before = torch.tensor([1.0, 2.0, float("inf")])
    found = distance(before, torch.tensor([float("nan"), 2.5, 3.0]))
    assert (found.changed, found.broken, found.mended, found.max_abs) == (3, 1, 1, 0.5)


def test_pieces_give_what_the_whole_gives(monkeypatch):
    one, other = torch.randn(1000).double(), torch.randn(1000).double()
    whole = distance(one, other)
    monkeypatch.setattr("torchgraft.view.distance._CHUNK", 7)
    found = distance(one, other)
    assert found.relative == pytest.approx(whole.relative, rel=1e-12)
    assert (found.changed, found.max_abs) == (whole.changed, whole.max_abs)


@pytest.mark.parametrize(
    "dtype", [torch.int64, torch.bool, torch.bfloat16, torch.float16, torch.complex64, torch.uint8]
)
def test_every_dtype_is_compared(dtype):
    before = torch.tensor([0, 1, 1, 0]).to(dtype)
    after = torch.tensor([0, 1, 0, 0]).to(dtype)
    assert distance(before, before.clone()).changed == 0
    assert distance(before, after).changed == 1
    assert distance(before, after).max_abs == 1


def test_strides_do_not_count_and_another_dtype_is_compared_by_value():
    weight = torch.randn(4, 6)
    assert distance(weight, weight.t().contiguous().t()).changed == 0
    assert distance(weight.half().float(), weight.half()).changed == 0
    assert 0 < distance(weight, weight.half()).relative < 1e-3


def test_of_a_reshaped_tensor_the_part_that_both_have_is_compared():
    weight = torch.randn(4, 6)
    assert distance(*kept_part(weight, weight[:2])).changed == 0
    assert kept_part(weight, weight.flatten()) is None


# edits


def test_a_graft_without_edits_does_not_differ():
    g = small()
    assert not g.diff()
    assert str(g.diff()).endswith("no difference: 15 tensors (214 numbers) the same bit for bit")


def test_each_change_is_told_as_what_it_is():
    g = small()
    g.head(3)
    g.insert(nn.Conv2d(4, 4, 1), after="body.0", name="extra")
    g.remove("body.2")
    g.rename("stem", "start")
    g.freeze("start")
    found = g.diff()
    assert ways(found) == {"body.extra": "added", "body.2": "removed", "start": "moved", "head": "changed"}
    assert tensors(found)["body.2.0.weight"] == "removed"
    assert tensors(found)["body.extra.weight"] == "added"
    assert tensors(found)["start.0.weight"] == "frozen"
    assert tensors(found)["head.weight"] == "reshaped"
    assert found.before.parameters == sum(one.numel() for one in Small().parameters())
    assert found.after.parameters == sum(one.numel() for one in g.module.parameters())
    assert found.after.macs == g.trace().macs
    assert [one.after.partition(":")[0] for one in found.recipe] == [
        "head",
        "insert",
        "remove",
        "rename",
        "freeze",
    ]


@FIT
@pytest.mark.parametrize("kind", sorted(BODIES.keys() - {"register", "pad"}))
def test_every_edit_gives_a_difference_and_undone_none(kind):
    for seed in range(60):
        g = loaded(copy.deepcopy(MODELS[seed % 3]))
        draw = random.Random(seed)
        try:
            if kind == "merge":  # it needs something to merge
                g.adapter("**:Linear", rank=2)
            g.apply(kinds()[kind].model_validate(BODIES[kind](draw, g)))
        except (TorchgraftError, ValueError):
            continue
        found = g.diff()
        assert found.recipe
        assert_true_to_identity(g, found)
        for _ in g.recipe.edits:
            g.undo()
        assert not g.diff()
        return
    pytest.fail("no draw of this edit fits")


def test_modules_that_an_edit_registers_are_new():
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = [nn.Linear(4, 4), nn.Linear(4, 4)]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                x = layer(x)
            return x

    found = tg.load(Hidden(), input=(4,)).register("", names="layers").diff()
    assert tensors(found) == dict.fromkeys(
        ("layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"), "added"
    )
    assert found.before.parameters == 0


def assert_true_to_identity(g: tg.Graft, found: Any) -> None:
    """A tensor that is in both models is the same; one that is in one alone is told."""
    base, now = g.base_tensors(), {**g.module.state_dict(keep_vars=True), **dict(g.module.named_buffers())}
    kept = {id(one) for one in base.values()} & {id(one) for one in now.values()}
    told_new = {one.after for one in found.tensors if one.way in ("added", "changed", "reshaped", "retyped")}
    told_gone = {one.before for one in found.tensors if one.way in ("removed", "changed", "reshaped", "retyped")}
    first = {id(one): name for name, one in reversed(now.items())}
    once = {id(one): name for name, one in reversed(base.items())}
    twins = {one.before for one in found.tensors if one.tied[0] or one.tied[1]}
    for name, one in now.items():
        if id(one) in kept and first[id(one)] == name and not twins:
            assert name not in told_new, name
    for number, name in once.items():
        if number not in kept and not twins:
            same = base[name]
            alike = any(one.shape == same.shape and torch.equal(one, same) for one in now.values())
            assert name in told_gone or alike, name
    parameters = {id(one): one.numel() for one in g.module.parameters()}
    assert found.after.parameters == sum(parameters.values())


@FIT
@settings(quick, max_examples=12)
@given(
    number=st.integers(0, 2),
    asked=st.lists(st.tuples(st.sampled_from(sorted(BODIES)), st.integers(0, 10**6)), min_size=1, max_size=4),
)
def test_the_other_way_round_it_is_the_mirror(snapshot, number, asked):
    g = loaded(copy.deepcopy(MODELS[number]))
    applied(g, asked, snapshot)
    before = snapshot(g.module)
    sides = base_side(g), side_of(g)
    there, back = compare(*sides), compare(*sides[::-1])
    assert {key(one) for one in there.modules} == {key(one.mirrored()) for one in back.modules}
    assert {tensor_key(one) for one in there.tensors} == {tensor_key(one)[::-1] for one in back.tensors}
    assert (there.same_tensors, there.same_numbers) == (back.same_tensors, back.same_numbers)
    assert bool(there) == bool(back)
    for _ in g.recipe.edits:
        g.undo()
    assert not compare(base_side(g), side_of(g))
    for _ in range(len(g._undone)):
        g.redo()
    assert snapshot(g.module) == before


def key(one: Any) -> Any:
    return (one.before, one.after, one.kind, one.settings, one.parameters, one.macs, one.gave, one.training)


def tensor_key(one: Any) -> Any:
    return (one.before, one.distance and one.distance.changed, one.after)


# two models


def test_a_longer_model_has_blocks_more():
    a, b = (tg.load(f"{name}@none", input=(3, 32, 32)) for name in ("resnet18", "resnet34"))
    found = a.diff(b, values=False)
    assert ways(found) == dict.fromkeys(
        ["layer1.2", "layer2.2", "layer2.3", *(f"layer3.{n}" for n in (2, 3, 4, 5)), "layer4.2"], "added"
    )
    assert "+ layer3.[2-5]  BasicBlock × 4" in str(found)
    assert set(ways(b.diff(a, values=False)).values()) == {"removed"}


def test_a_block_that_was_put_first_is_found_by_its_weights():
    a, b = Small(), Small()
    b.load_state_dict(a.state_dict())
    new = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())
    b.body = nn.Sequential(new, *b.body)
    found = tg.load(a, input=(3, 8, 8)).diff(b)
    assert ways(found) == {"body.0": "added", "body.1": "moved", "body.2": "moved", "body.3": "moved"}
    assert set(tensors(found)) == {"body.0.0.weight", "body.0.0.bias"}


def test_a_module_that_went_elsewhere_is_told_as_moved():
    a = small()
    b = copy.deepcopy(a.module)
    b.neck = nn.Module()
    b.neck.inner = b.stem
    b.stem = nn.Identity()
    b.forward = lambda x: b.head(b.body(b.neck.inner(x)).mean((2, 3)))
    found = a.diff(b)
    moved = {one.after: one.before for one in found.modules if one.way == "moved"}
    assert moved["neck.inner.0"] == "stem.0"
    assert not tensors(found)


def test_another_size_is_told_by_its_settings():
    found = small().diff(Small(6))
    told = {one.path: one.settings for one in found.modules if one.settings}
    assert told["head"] == (("in_features", 4, 6),)
    assert told["stem.1"] == (("num_features", 4, 6),)


def test_what_cannot_be_compared_is_said():
    with pytest.raises(RecipeError, match="a list can't be compared"):
        small().diff([])


def test_models_on_meta_are_compared_by_structure():
    g = tg.load("resnet18@none", input=(3, 32, 32), meta=True)
    found = g.head(3).diff()
    assert tensors(found)["fc.weight"] == "reshaped"
    assert "no values to compare" in str(found)


def test_a_side_in_another_mode_is_said_once():
    a, b = small(), small()
    b.module.eval()
    found = a.diff(b)
    assert found.notes == ("the first is in training mode, the second in evaluation mode",)
    assert not ways(found)


def test_a_part_in_another_mode_is_told():
    a, b = small(), small()
    b.module.stem[1].eval()
    assert ways(a.diff(b)) == {"stem.1": "changed"}
    assert "in evaluation mode" in str(a.diff(b))


# training


def trained(g: tg.Graft) -> None:
    g.module.train()
    optimizer = torch.optim.SGD([one for one in g.module.parameters() if one.requires_grad], lr=0.1)
    for _ in range(2):
        g.module(torch.randn(4, 3, 32, 32)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def test_after_training_with_a_frozen_backbone_only_the_head_and_the_statistics_differ():
    g = tg.load("resnet18@none", input=(3, 32, 32)).freeze(all_but="head")
    trained(g)
    found = g.diff()
    changed = [one for one in found.tensors if one.way == "changed"]
    assert {one.name for one in changed if not one.buffer} == {"fc.weight", "fc.bias"}
    assert {one.name.rpartition(".")[2] for one in changed if one.buffer} == {
        "running_mean", "running_var", "num_batches_tracked"
    }  # fmt: skip
    assert any("20 frozen norms moved" in note for note in found.notes)


@pytest.mark.parametrize("other", [{"all_but": "head"}, None], ids=["frozen", "trained whole"])
def test_statistics_are_said_to_move_only_where_the_norms_were_frozen_on_both_sides(other):
    whole, frozen = (tg.load("resnet18@none", input=(3, 32, 32)) for _ in range(2))
    if other:
        whole.freeze(**other)
    trained(whole)
    frozen.freeze(all_but="head")
    for found in (whole.diff(frozen), frozen.diff(whole)):
        assert any("frozen norms moved" in note for note in found.notes) == bool(other)


def test_counters_are_left_out_of_the_distance():
    g = tg.load("resnet18@none", input=(3, 32, 32))
    other = tg.load("resnet18@none", input=(3, 32, 32))
    with torch.no_grad():
        for name, one in other.module.named_buffers():
            one.add_(15 if name.endswith("num_batches_tracked") else 0.01)
    lines = str(g.diff(other)).splitlines()
    assert any("at most 0.01" in line for line in lines)
    assert not any("at most 15" in line for line in lines)


def test_a_base_that_was_handed_over_says_what_it_cannot_tell():
    g = small().head(3)
    assert any("handed over in Python" in note for note in g.diff().notes)


# versions


@pytest.fixture
def versions(tmp_path):
    folder = tmp_path / "runs"
    g = tg.load("resnet18@none", input=(3, 32, 32)).head(3).freeze(all_but="head")
    g.save(folder)
    with torch.no_grad():
        g.module.fc.bias += 1
    g.save(folder)
    return folder


def test_two_versions_are_compared_without_reading_what_they_share(versions, monkeypatch):
    read = []
    opened = Store._open
    monkeypatch.setattr(Store, "_open", lambda self, value: read.append(value) or opened(self, value))
    monkeypatch.setattr("torchgraft.comparing._Kept._inherited", None)  # the base must not be loaded
    found = diff_named(f"{versions}@v1", f"{versions}@v2")
    assert tensors(found) == {"fc.bias": "changed"}
    assert found.tensors[0].distance.max_abs == pytest.approx(1)
    assert (len(read), found.by_digest) == (2, 121)


def test_a_version_differs_from_its_source_by_what_was_kept(versions):
    found = diff_named("resnet18@none", f"{versions}@v2", input=None)
    assert {one.name: one.way for one in found.tensors if one.way != "frozen"} == {
        "fc.weight": "reshaped",
        "fc.bias": "reshaped",
    }


def test_an_opened_version_is_compared_too(versions):
    a, b = tg.open(f"{versions}@v1"), tg.open(f"{versions}@v2")
    assert tensors(a.diff(b)) == tensors(a.diff(f"{versions}@v2")) == {"fc.bias": "changed"}


# looking changes nothing


def test_looking_changes_nothing(snapshot):
    g = tg.load("resnet18@none", input=(3, 32, 32)).head(3).freeze("layer1")
    before, state = snapshot(g.module), torch.get_rng_state()
    versions = {name: one._version for name, one in g.module.state_dict(keep_vars=True).items()}
    str(g.diff()), str(g.diff("resnet34@none"))
    assert snapshot(g.module) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert versions == {name: one._version for name, one in g.module.state_dict(keep_vars=True).items()}
    assert all(one.grad is None for one in g.module.parameters())


def test_after_an_error_the_edits_are_in_place_again(snapshot, monkeypatch):
    g = tg.load("resnet18@none", input=(3, 32, 32)).head(3)
    before = snapshot(g.module)
    monkeypatch.setattr("torchgraft.view.diff.side", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        g.diff()
    assert snapshot(g.module) == before


# what is shown


def chosen() -> tg.Graft:
    g = tg.load("resnet18@none", input=(3, 64, 64))
    g.head(10, hidden=[64]).insert(
        {"nn.Conv2d": {"out_channels": 128, "kernel_size": 1}}, after="layer2", name="extra"
    )
    return g.freeze("layer1").remove("layer4.1")


def test_the_text_looks_as_it_should():
    path = GOLDEN / "diff.txt"
    said = str(chosen().diff()) + "\n"
    if not path.exists():
        path.write_text(said)
    assert said == path.read_text()


def test_nothing_is_folded_where_all_is_asked_for():
    lines = [line for _, line in text(chosen().diff(), limit=10**6)]
    assert sum(" frozen now" in line for line in lines) == 12


def test_it_is_data():
    data = json.loads(json.dumps(chosen().diff().as_data(), allow_nan=False))
    assert data["different"] is True
    assert {one["way"] for one in data["tensors"]} == {"added", "removed", "frozen"}
    assert data["after"]["macs"] == chosen().trace().macs


def test_a_recipe_is_compared_line_by_line():
    g = small()
    a = g.recipe.model_copy(update={"seed": 1})
    found = compare(side_of(tg.Graft(g.module, a, example=None)), side_of(g))
    assert [(one.line, one.before, one.after) for one in found.recipe] == [("seed", "1", None)]


def test_recipes_of_the_same_edits_in_another_order_say_so():
    g = tg.load("resnet18@none", input=(3, 32, 32)).head(3).freeze("layer1")
    other = replay(g.recipe.model_copy(update={"edits": g.recipe.edits[::-1]}))
    found = g.diff(other)
    assert {(one.before is None, (one.before or one.after).partition(":")[0]) for one in found.recipe} in (
        {(False, "head"), (True, "head")},
        {(False, "freeze"), (True, "freeze")},
    )


def test_what_holds_a_layer_now_brings_only_its_own_numbers():
    pytest.importorskip("peft")
    g = small().adapter("head", rank=2)
    around = next(one for one in g.diff().modules if one.way == "added" and one.after == "head")
    assert around.parameters == (0, 2 * (4 + 5))
    back = compare(side_of(g), base_side(g)).modules
    assert [one.parameters for one in back if one.way == "removed" and one.before == "head"] == [(18, 0)]


def test_sparse_tensors_are_compared_by_their_numbers():
    def made(share: float) -> Any:
        model = nn.Sequential(nn.Linear(4, 4))
        model.register_buffer("pairs", (torch.eye(4) * share).to_sparse())
        torch.nn.init.ones_(model[0].weight)
        torch.nn.init.zeros_(model[0].bias)
        return tg.load(model, input=(4,))

    assert tensors(made(1.0).diff(made(1.0))) == {}
    assert tensors(made(1.0).diff(made(2.0))) == {"pairs": "changed"}
