from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision import models

import torchgraft as tg
from torchgraft.errors import EditError, RecipeError, StoreError
from torchgraft.keep import open_named, split_reference
from torchgraft.store import Store


def same(a: nn.Module, b: nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


def nudge(module: nn.Module) -> None:
    with torch.no_grad():
        for tensor in module.state_dict().values():
            tensor.add_(1)


def test_a_version_opens_to_the_same_tensors_and_recipe(resnet18, tmp_path):
    resnet18.head(10).insert(tg.blocks.SqueezeExcite(), after="layer2", name="se").insert(nn.GELU(), after="bn1")
    nudge(resnet18.module.fc)
    nudge(resnet18.module.layer2.se)
    kept = resnet18.save(tmp_path, classes=[str(n) for n in range(10)], metrics={"accuracy": 0.5})
    again = tg.open(f"{tmp_path}@v1")
    assert same(again.module, resnet18.module)
    assert again.recipe == resnet18.recipe
    assert again.version == kept


def test_only_tensors_that_differ_from_the_base_are_stored(resnet18, tmp_path):
    resnet18.head(10).insert(nn.GELU(), after="bn1")
    kept = resnet18.save(tmp_path)
    assert set(kept.tensors) == {"fc.weight", "fc.bias"}


def test_a_new_tensor_that_happens_to_equal_the_bases_comes_back_as_it_was(resnet18, tmp_path):
    norm = nn.BatchNorm2d(64)
    resnet18.replace("bn1", norm)
    base = models.resnet18(weights=None).bn1
    norm.num_batches_tracked.fill_(0)
    norm.load_state_dict(base.state_dict())
    resnet18.save(tmp_path)
    assert same(tg.open(tmp_path).module, resnet18.module)


def test_a_model_made_by_hand_is_kept_whole_and_handed_over_again(tmp_path):
    torch.manual_seed(0)
    made = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    g = tg.load(made, input=(3, 2, 2)).head(3)
    g.save(tmp_path)
    with pytest.raises(RecipeError, match=r"handed over in Python(.|\n)*objects=\{'': model\}"):
        tg.open(tmp_path)
    again = tg.open(tmp_path, objects={"": nn.Sequential(nn.Flatten(), nn.Linear(12, 5))})
    assert same(again.module, g.module)


def test_a_module_of_ones_own_is_handed_over_again(resnet18, tmp_path):
    class Mine(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.rand(1))

        def forward(self, x):
            return x * self.scale

    resnet18.insert(Mine(), after="layer2", name="mine")
    resnet18.save(tmp_path)
    again = tg.open(tmp_path, objects={"layer2.mine": Mine()})
    assert same(again.module, resnet18.module)


def test_a_recipe_a_version_and_a_source_are_opened_by_their_names(resnet18, tmp_path):
    resnet18.head(10).save(tmp_path)
    (tmp_path / "r.yaml").write_text(resnet18.recipe.to_yaml())
    for name in (str(tmp_path / "r.yaml"), f"{tmp_path}@v1", f"{tmp_path}@latest"):
        assert open_named(name).recipe == resnet18.recipe
    assert open_named(str(tmp_path / "r.yaml"), input=[3, 96, 96]).recipe.input == (3, 96, 96)
    assert open_named("resnet18@none", input=[3, 32, 32]).recipe.base == "torchvision:resnet18@none"
    with pytest.raises(RecipeError, match="has an input of its own"):
        open_named(f"{tmp_path}@v1", input=[3, 32, 32])


def test_a_base_that_is_another_now_is_noticed(tmp_path):
    path = tmp_path / "w.safetensors"
    from safetensors.torch import save_file

    save_file(models.resnet18(weights=None).state_dict(), path)
    tg.load(f"file:{path}@resnet18").head(3).save(tmp_path / "runs")
    save_file(models.resnet18(weights=None).state_dict(), path)
    with pytest.raises(StoreError, match="the base is not the one"):
        tg.open(f"{tmp_path}/runs@v1")


def test_a_damaged_tensor_is_noticed(resnet18, tmp_path):
    resnet18.head(3).save(tmp_path)
    (victim, *_) = sorted((tmp_path / "objects").glob("*/*"))
    data = bytearray(victim.read_bytes())
    data[-1] ^= 1
    victim.write_bytes(data)
    with pytest.raises(StoreError, match=victim.name):
        tg.open(tmp_path)
    assert Store(tmp_path).verify()


@pytest.mark.parametrize(
    ("reference", "meant"),
    [("v3", ("runs", "v3")), ("a/b@v3", ("a/b", "v3")), ("a@b@best", ("a@b", "best")), ("@v1", ("runs", "v1"))],
)
def test_a_reference_names_folder_and_version(reference, meant):
    assert split_reference(reference) == meant


def test_another_dtype_comes_back(resnet18, tmp_path):
    resnet18.module.half()
    resnet18.save(tmp_path)
    assert {p.dtype for p in tg.open(tmp_path).module.parameters()} == {torch.float16}


def test_a_version_that_is_kept_again_keeps_its_classes(resnet18, tmp_path):
    resnet18.head(2).save(tmp_path / "a", classes=["cat", "dog"])
    assert tg.open(tmp_path / "a").save(tmp_path / "b").classes == ("cat", "dog")


def test_a_layer_with_hooks_or_frozen_parameters_is_not_taken_for_a_plain_one(resnet18, tmp_path):
    act = nn.ReLU()
    act.register_forward_hook(lambda module, given, out: out * 3)
    resnet18.insert(act, after="bn1", name="act")
    resnet18.save(tmp_path)
    with pytest.raises(EditError, match="handed over in Python"):
        tg.open(tmp_path)
    assert tg.open(tmp_path, objects={"bn1.act": act}).module.bn1.act is act


def test_a_module_beside_a_child_of_a_sequential_is_handed_over_by_its_path(resnet18, tmp_path):
    class Mine(nn.Module):
        def forward(self, x):
            return x * 1

    resnet18.insert(Mine(), after="layer2.0", name="mine")
    resnet18.save(tmp_path)
    assert isinstance(tg.open(tmp_path, objects={"layer2.mine": Mine()}).module.layer2.mine, Mine)
