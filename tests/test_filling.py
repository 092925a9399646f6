from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

import torchgraft as tg
from torchgraft.edits import kinds
from torchgraft.errors import SourceError, TorchgraftWarning
from torchgraft.filling import fill, load_into
from torchgraft.weights.hashes import sha256_of
from torchgraft.weights.skeleton import parameters_on_meta

TINY = {"patch_size": 8, "num_layers": 1, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64, "num_classes": 10}


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    return models.resnet18(weights=None).eval()


def same(one: nn.Module, other: nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in one.state_dict().items())


def test_a_wrapped_and_prefixed_checkpoint_is_loaded_whole(trained):
    model = models.resnet18(weights=None)
    kept = dict(model.named_parameters())
    filled = fill(model, {"epoch": 3, "model": nn.DataParallel(trained).state_dict()})
    assert same(model, trained)
    assert filled.whole
    assert filled.changes == ('the weights lie in ["model"] of a checkpoint', "122 names with 'module.' too much")
    assert all(kept[name] is parameter for name, parameter in model.named_parameters())


def test_all_but_the_head_is_loaded_and_the_head_is_told(trained):
    model = models.resnet18(weights=None, num_classes=10)
    head = model.fc.weight.clone()
    with pytest.warns(TorchgraftWarning, match=r"fc.weight is left as it was: \[1000, 512\] is given"):
        filled = fill(model, trained.state_dict())
    assert set(filled.left) == {"fc.weight", "fc.bias"}
    assert torch.equal(model.fc.weight, head)
    assert torch.equal(model.conv1.weight, trained.conv1.weight)


def test_a_fourth_channel_starts_at_zero_so_the_trained_function_stays(trained):
    model = models.resnet18(weights=None).eval()
    model.conv1 = nn.Conv2d(4, 64, 7, 2, 3, bias=False)
    filled = fill(model, trained.state_dict(), resize=True)
    assert any("1 new ones start at zero" in how for how in filled.resized.values())
    image = torch.randn(1, 3, 64, 64)
    more = torch.cat([image, torch.randn(1, 1, 64, 64)], 1)
    assert torch.allclose(model(more), trained(image), atol=1e-5)


def test_one_channel_gets_the_sum_of_three(trained):
    model = models.resnet18(weights=None).eval()
    model.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    filled = fill(model, trained.state_dict(), resize=True)
    assert any("summed to 1" in how for how in filled.resized.values())
    grey = torch.randn(1, 1, 64, 64)
    assert torch.allclose(model(grey), trained(grey.expand(1, 3, 64, 64)), atol=1e-4)


def test_position_embeddings_are_interpolated_as_torchvision_does():
    small, large = VisionTransformer(image_size=32, **TINY), VisionTransformer(image_size=64, **TINY)
    filled = fill(large, small.state_dict(), resize=True)
    assert any("interpolated from 4×4 to 8×8, 1 tokens kept" in how for how in filled.resized.values())
    wanted = interpolate_embeddings(64, 8, small.state_dict())["encoder.pos_embedding"]
    assert torch.allclose(large.encoder.pos_embedding, wanted)


def test_tables_of_relative_places_grow(trained):
    model = nn.Module()
    model.relative_position_bias_table = nn.Parameter(torch.zeros(25, 2))
    model.other = nn.Linear(2, 2)
    state = {
        "relative_position_bias_table": torch.ones(9, 2),
        **{f"other.{n}": t for n, t in nn.Linear(2, 2).state_dict().items()},
    }
    filled = fill(model, state, resize=True)
    assert any("from 3×3 to 5×5" in how for how in filled.resized.values())
    assert torch.allclose(model.relative_position_bias_table, torch.ones(25, 2))


def test_rows_of_a_longer_head_are_kept(trained):
    model = models.resnet18(weights=None, num_classes=1002)
    filled = fill(model, trained.state_dict(), resize=True)
    assert any("the first 1000 of 1000 rows" in how for how in filled.resized.values())
    assert torch.equal(model.fc.weight[:1000], trained.fc.weight)


def test_weights_of_another_model_are_refused_and_nothing_is_changed(trained, snapshot):
    model = models.resnet18(weights=None)
    before = snapshot(model)
    with pytest.raises(SourceError, match="not for this model: 102 missing"):
        fill(model, models.densenet121(weights=None).state_dict())
    assert snapshot(model) == before


def test_codes_of_a_quantised_model_are_left_out(trained):
    model = nn.Linear(2, 2)
    state = {"weight": torch.ones(2, 2, dtype=torch.int8), "bias": torch.ones(2)}
    with pytest.warns(TorchgraftWarning, match="without their scale"):
        filled = fill(model, state)
    assert (set(filled.left), filled.loaded) == ({"weight"}, ("bias",))


@pytest.mark.parametrize("buffers", [False, True])
def test_a_model_on_meta_gets_its_tensors_now(trained, buffers):
    with torch.device("meta") if buffers else parameters_on_meta():
        model = models.resnet18(weights=None)
    given = trained.state_dict()
    assert fill(model, given).whole
    assert same(model, trained)
    model.conv1.weight.data.zero_()
    assert trained.conv1.weight.abs().sum() > 0


def test_what_would_stay_on_meta_is_refused_and_nothing_is_changed(trained):
    with torch.device("meta"):
        model = models.swin_t(weights=None)
    state = {name: torch.zeros_like(one, device="cpu") for name, one in model.state_dict().items()}
    del state["features.1.0.attn.relative_position_bias_table"]
    with pytest.raises(SourceError, match=r"1 tensors lie on meta and would get no values, such as features.1.0"):
        fill(model, state)
    assert all(one.is_meta for one in model.parameters())


def test_what_computed_its_values_while_it_was_built_must_not_lie_on_meta():
    class Table(nn.Linear):
        def __init__(self):
            super().__init__(2, 2)
            self.register_buffer("table", torch.arange(3.0), persistent=False)

    with torch.device("meta"):
        model = Table()
    with pytest.raises(SourceError, match=r"such as table(.|\n)*tg\.load\(…, meta=True\)"):
        fill(model, nn.Linear(2, 2).state_dict())
    with parameters_on_meta():
        model = Table()
    assert fill(model, nn.Linear(2, 2).state_dict()).whole
    assert torch.equal(model.table, torch.arange(3.0))


def test_a_new_layer_on_meta_is_drawn_anew_and_told(trained):
    with parameters_on_meta():
        model = models.resnet18(weights=None, num_classes=10)
    given = {name: one for name, one in trained.state_dict().items() if not name.startswith("fc.")}
    with pytest.warns(TorchgraftWarning, match=r"2 drawn anew, since they lay on meta: fc\.weight"):
        filled = fill(model, given)
    assert filled.drawn == ("fc.weight", "fc.bias")
    assert 0 < float(model.fc.weight.detach().abs().max()) < 0.1


# the base's own state dict, after edits


def test_the_bases_own_weights_load_into_what_is_left_of_it_without_an_alarm(resnet18):
    base = {name: one + 1 for name, one in resnet18.module.state_dict().items()}
    resnet18.head(10).insert(nn.GELU(), after="bn1").insert(nn.Conv2d(64, 64, 1), after="layer1")
    head = resnet18.module.fc.weight.clone()
    filled = resnet18.load_weights(base)
    assert filled.expected
    assert not filled.whole
    assert set(filled.made) >= {"fc.weight", "fc.bias"}
    assert torch.equal(resnet18.module.fc.weight, head)
    own = resnet18.module.state_dict()
    moved = {resnet18.recipe.base_name(name): name for name in own if name not in filled.made}
    assert set(moved) == set(base) - {"fc.weight", "fc.bias"}
    assert all(torch.equal(own[name], base[old]) for old, name in moved.items())
    assert "fc.weight" in str(filled)
    assert "made anew by edit" in str(filled)


def test_wrapped_and_moved_names_are_found_together(resnet18):
    base = {f"module.{name}": one + 1 for name, one in resnet18.module.state_dict().items()}
    resnet18.insert(nn.GELU(), after="bn1").insert(nn.GELU(), before="fc")
    filled = resnet18.load_weights({"state_dict": base})
    assert filled.expected
    assert any("names are the base's" in one for one in filled.changes)
    assert len(filled.loaded) == len(base)


def test_the_edited_models_own_weights_load_too(resnet18):
    resnet18.head(10).insert(nn.GELU(), after="bn1")
    own = {name: one + 1 for name, one in resnet18.module.state_dict().items()}
    assert resnet18.load_weights(own).whole
    assert all(torch.equal(one, own[name]) for name, one in resnet18.module.state_dict().items())


def test_what_an_edit_took_out_is_counted_and_what_is_really_missing_still_warns(resnet18):
    base = resnet18.module.state_dict()
    resnet18.head(10, hidden=[32])
    filled = resnet18.load_weights(base)
    assert filled.expected
    assert set(filled.gone) | set(filled.made) >= {"fc.weight", "fc.bias"}
    with pytest.warns(TorchgraftWarning, match=r"1 not given: conv1\.weight"):
        resnet18.load_weights({name: one for name, one in base.items() if name != "conv1.weight"})


def test_a_graft_on_meta_is_filled_by_the_bases_weights_and_its_new_head_drawn(trained):
    g = tg.load("resnet18@none", input=(3, 64, 64), meta=True, seed=4).head(10)
    filled = g.load_weights(trained.state_dict())
    assert set(filled.made) == {"fc.weight", "fc.bias"} == set(filled.gone)
    assert filled.expected
    assert filled.drawn == ()
    assert torch.equal(g.module.layer1[0].conv1.weight, trained.layer1[0].conv1.weight)
    assert g.check() == ()
    assert g.module.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 10)
    assert g.undo().module.fc.out_features == 1000


MADE_OF_WEIGHTS = [
    {"head": {"keep": [3, 1]}},
    {"head": {"classes": 5, "kind": "cosine"}},
    {"input": {"channels": 1}},
    {"adapter": {"rank": 2}},
    {"adapter": {"at": "layer4.0.conv1", "kind": "dora", "rank": 2}},
    {"swap": {"at": "fc", "to": {"low_rank": {"rank": 2}}}},
    {"repeat": {"at": "layer2.1", "start": "identity"}},
    {"wrap": {"at": "layer1", "with": "gate", "start": "identity"}},
    {"resize": {"at": "fc", "rows": [2, 5]}},
]


@pytest.mark.parametrize("edit", MADE_OF_WEIGHTS, ids=lambda edit: next(iter(edit)))
def test_an_edit_on_meta_computes_the_same_from_weights_that_come_later(trained, edit):
    ((kind, settings),) = edit.items()
    early = tg.load(copy.deepcopy(trained), input=(3, 64, 64))
    late = tg.load("resnet18@none", input=(3, 64, 64), meta=True)
    for g in (early, late):
        g.apply(kinds()[kind].model_validate(settings))
    filled = late.load_weights(trained.state_dict())
    assert filled.expected
    assert late.recipe.edits == early.recipe.edits
    assert list(late.module.state_dict()) == list(early.module.state_dict())
    assert same(late.module, early.module)


def test_an_edited_models_own_weights_go_into_one_on_meta_as_they_are(trained):
    own = tg.load(copy.deepcopy(trained), input=(3, 64, 64)).head(keep=[3, 1]).module
    with torch.no_grad():
        own.fc.weight.add_(1)
    g = tg.load("resnet18@none", input=(3, 64, 64), meta=True).head(keep=[3, 1])
    assert g.load_weights(own.state_dict()).whole
    assert same(g.module, own)


def test_weights_of_another_model_leave_an_edited_one_on_meta_as_it_was():
    g = tg.load("resnet18@none", input=(3, 64, 64), meta=True).head(10)
    before = {name: id(one) for name, one in g.module.state_dict(keep_vars=True).items()}
    with pytest.raises(SourceError, match="not for this model"):
        g.load_weights(models.squeezenet1_1(weights=None).state_dict())
    assert {name: id(one) for name, one in g.module.state_dict(keep_vars=True).items()} == before
    assert len(g.recipe.edits) == 1


def test_copies_of_a_block_get_the_bases_weights_beside_the_original(resnet18):
    base = {name: one + 1 for name, one in resnet18.module.state_dict().items()}
    filled = resnet18.repeat("layer2.1", times=2).load_weights(base)
    assert filled.expected
    own = resnet18.module.state_dict()
    for name in ("1", "1_2", "1_3"):
        assert torch.equal(own[f"layer2.{name}.conv1.weight"], base["layer2.1.conv1.weight"])
    assert {resnet18.recipe.base_name(name) for name in own} == set(base)
    assert all(torch.equal(one, base[resnet18.recipe.base_name(name)]) for name, one in own.items())


@pytest.mark.parametrize(
    "change",
    [
        lambda g: g.tie("layer1.1.conv1.weight", to="layer1.0.conv1.weight"),
        lambda g: g.share("layer1.1", to="layer1.0"),
        lambda g: g.tie("layer1.1.conv1.weight", to="layer1.0.conv1.weight").head(10),
    ],
)
def test_what_is_tied_gets_the_values_of_the_one_that_stayed(resnet18, change):
    base = {name: one + torch.rand(()) for name, one in resnet18.module.state_dict().items()}
    assert change(resnet18).load_weights(base).expected
    own = resnet18.module.state_dict()
    assert torch.equal(own["layer1.0.conv1.weight"], base["layer1.0.conv1.weight"])
    assert torch.equal(own["layer1.1.conv1.weight"], base["layer1.0.conv1.weight"])


def test_a_head_that_was_tied_is_gone_without_an_alarm():
    words = nn.Sequential(nn.Embedding(12, 8), nn.Linear(8, 8), nn.Linear(8, 12, bias=False))
    words[2].weight = words[0].weight
    base = {name: one.clone() for name, one in words.state_dict().items()}
    g = tg.load(words, input=torch.zeros(2, 6, dtype=torch.long)).head(3, hidden=[4], at="2")
    assert g.load_weights(base).expected


def test_a_model_of_which_little_is_left_still_takes_its_bases_weights():
    model = nn.Sequential(*(nn.Linear(8, 8, bias=False) for _ in range(5)), nn.BatchNorm1d(8))
    base = {name: one.clone() for name, one in model.state_dict().items()}
    g = tg.load(model, input=(8,)).swap("**:Linear", to={"low_rank": {"rank": 1}})
    filled = g.load_weights(base)
    assert "5.weight" in filled.loaded
    assert len(filled.gone) == 5


def test_looking_at_the_base_leaves_the_edited_model_as_it_was(resnet18, snapshot):
    resnet18.head(10).insert(nn.GELU(), after="bn1")
    before = snapshot(resnet18.module)
    assert resnet18.base_tensors()["fc.weight"].shape == (1000, 512)
    assert snapshot(resnet18.module) == before


# further faults


def test_values_that_the_models_type_can_not_hold_are_told():
    model = nn.Linear(4, 3).half()
    given = {"weight": torch.full((3, 4), 1e6), "bias": torch.zeros(3)}
    with pytest.warns(TorchgraftWarning, match="12 values are NaN or infinite: weight"):
        fill(model, given)


def test_empty_tensors_of_a_sharded_training_are_explained():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    given = {**model.state_dict(), "1.weight": torch.empty(0)}
    with pytest.warns(TorchgraftWarning, match=r"1\.weight is left as it was: \[0\] is given(.|\n)*ZeRO-3"):
        fill(model, given)


def test_a_hash_is_checked_before_anything_is_changed(tmp_path, trained, snapshot):
    torch.save(trained.state_dict(), tmp_path / "w.pt")
    model = models.resnet18(weights=None)
    before = snapshot(model)
    with pytest.raises(SourceError, match="its sha256 is"):
        fill(model, tmp_path / "w.pt", sha256="0" * 64)
    assert snapshot(model) == before
    assert fill(model, tmp_path / "w.pt", sha256=sha256_of(tmp_path / "w.pt")[:10]).whole


def test_a_graft_is_filled_through_its_module(resnet18, trained):
    assert load_into(resnet18, trained.state_dict()).whole
    assert same(resnet18.module, trained)


def test_half_weights_are_cast(trained):
    model = models.resnet18(weights=None)
    fill(
        model, {name: one.half() if one.is_floating_point() else one for name, one in trained.state_dict().items()}
    )
    assert model.conv1.weight.dtype == torch.float32
    assert torch.equal(model.conv1.weight, trained.conv1.weight.half().float())


def test_values_that_are_not_finite_are_told():
    model, given = nn.Linear(4, 3), nn.Linear(4, 3).state_dict()
    given["weight"] = torch.full((3, 4), torch.nan)
    with pytest.warns(TorchgraftWarning, match="12 values are NaN or infinite: weight"):
        filled = fill(model, given)
    assert filled.broken == {"weight": 12}


def test_trained_weights_for_a_first_layer_made_of_random_ones_are_told_and_fitted_on_request():
    trained = models.resnet18(weights=None).state_dict()
    g = tg.load("resnet18@none", input=(3, 32, 32)).input(channels=4)
    with pytest.warns(TorchgraftWarning, match=r"conv1\.weight is left as it was"):
        g.load_weights(trained)
    g = tg.load("resnet18@none", input=(3, 32, 32)).input(channels=4)
    g.load_weights(trained, resize=True)
    assert torch.equal(g.module.conv1.weight[:, :3], trained["conv1.weight"])
