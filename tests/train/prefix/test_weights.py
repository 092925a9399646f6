"""The same final weights, bit for bit, with the frozen part computed once."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.train.prefix.nets import (
    PLAN,
    Auxiliary,
    Branches,
    Reused,
    Steered,
    both,
    equal,
    frozen_but,
    small,
    trained,
)
from torchvision import models

from torchgraft.params.still import train_mode
from torchgraft.train.checkpointing import checkpointed
from torchgraft.train.prefix import Cache, Set


def images(count=10, size=32):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def vit():
    return models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=3)


def swin():
    return models.SwinTransformer([4, 4], 8, [2, 2], [2, 2], [4, 4], num_classes=3)


def densenet():
    return models.DenseNet(4, (2, 2), 8, num_classes=3)


CASES = {
    "resnet18, head": (lambda: models.resnet18(num_classes=3), ("fc",), "flatten in the model"),
    "resnet18, layer4": (lambda: models.resnet18(num_classes=3), ("fc", "layer4"), "layer3"),
    "vit, head": (vit, ("heads",), "__getitem__ in the model"),
    "vit, last layer": (vit, ("heads", "encoder.ln", "encoder.layers.encoder_layer_1"), "encoder.layers.encoder_layer_0"),
    "swin, head": (swin, ("head",), "flatten"),
    "swin, last stage": (swin, ("head", "norm", "features.3"), "features.2"),
    "densenet, head": (densenet, ("classifier",), "flatten in the model"),
    "densenet, last block": (densenet, ("classifier", "features.denseblock2", "features.norm5"), "features.transition1"),
    "mobilenet, head with dropout": (lambda: models.mobilenet_v3_small(num_classes=3), ("classifier",), "flatten in the model"),
    "two branches": (Branches, ("right", "head"), "left"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_weights_are_bit_equal(name):
    torch.manual_seed(0)
    make, free, after = CASES[name]
    plain, ours, cache = both(frozen_but(make(), *free), images(), 10)
    assert equal(plain, ours)
    assert after in [piece.after for piece in cache.prefix.pieces]
    assert (cache.whole, cache.answered) == (3, 6)


@pytest.mark.parametrize(("make", "free"), [(Reused, ("between", "head")), (Auxiliary, ("high", "head", "aux"))])
def test_a_module_that_comes_twice_and_heads_in_the_middle(make, free):
    torch.manual_seed(0)
    plain, ours, cache = both(frozen_but(make(), *free), torch.randn(20, 16), 20, size=8)
    assert equal(plain, ours)
    assert cache.answered == 6


def test_batches_whose_bits_differ_by_their_size_are_run_whole():
    torch.manual_seed(0)
    plain, ours, cache = both(frozen_but(Auxiliary(), "high", "head", "aux"), torch.randn(17, 16), 17, size=8)
    assert equal(plain, ours)
    assert cache.prefix.fresh == {1}
    assert cache.answered >= 2


def test_a_norm_that_is_frozen_but_adapts_is_run_every_time():
    torch.manual_seed(0)
    model = frozen_but(small(), "fc")
    model.layer3.train()
    state = []
    for keep in (False, True):
        torch.manual_seed(0)
        made = copy.deepcopy(model)
        cache = Cache(PLAN, Set(10, sizes=[4, 2]), epochs=3) if keep else None
        state.append(trained(made, images(), 10, cache))
    assert equal(*state)
    assert "layer2" in cache.prefix.skipped
    assert cache.answered == 6
    assert not torch.equal(state[0]["layer3.0.bn1.running_mean"], model.layer3[0].bn1.running_mean)


def test_gradual_unfreezing_finds_a_smaller_prefix():
    torch.manual_seed(0)

    def thaw(epoch, model):
        if epoch == 3:
            model.layer4.requires_grad_(True)
            train_mode(model)

    model = frozen_but(small(), "fc")
    plain, ours, cache = both(model, images(), 10, epochs=5, between=thaw)
    assert equal(plain, ours)
    assert cache.prefix.pieces[0].after == "layer3"
    assert (cache.whole, cache.answered) == (6, 9)


def test_checkpointed_modules_before_and_behind_the_cut():
    torch.manual_seed(0)
    model = frozen_but(small(), "fc", "layer4.0.bn2")
    plain = trained(copy.deepcopy(model), images(), 10)
    cache = Cache(PLAN, Set(10, sizes=[4, 2]), epochs=3)
    with checkpointed([model.layer2, model.layer4]):
        ours = trained(model, images(), 10, cache)
    assert equal(plain, ours)
    assert cache.prefix.pieces[0].after == "layer3"  # layer4 is run once more as a whole
    assert cache.answered == 6


def test_autocast_keeps_what_it_computes_in():
    def around():
        return torch.autocast("cpu", torch.bfloat16)

    torch.manual_seed(0)
    model = frozen_but(small(), "fc", "layer4")
    cache = Cache(PLAN, Set(8, sizes=[4]), epochs=3)
    plain = trained(copy.deepcopy(model), images(8), 8, around=around)
    ours = trained(model, images(8), 8, cache, around=around)
    assert equal(plain, ours)
    assert cache.prefix.pieces[0].dtype == torch.bfloat16 or cache.why


def test_autocast_forgets_what_was_cast_while_looking():
    torch.manual_seed(0)
    model = frozen_but(Branches(), "right", "head")

    def around():
        return torch.autocast("cpu", torch.bfloat16)

    plain, ours, cache = both(model, images(8), 8, around=around)
    assert equal(plain, ours)
    assert not torch.equal(ours["right.0.weight"], cache.prefix.model.left[0].weight)
    assert cache.answered == 4


def test_channels_last_stays_so():
    torch.manual_seed(0)
    model = frozen_but(small(), "fc", "layer4").to(memory_format=torch.channels_last)
    data = images().to(memory_format=torch.channels_last)
    plain, ours, cache = both(model, data, 10)
    assert equal(plain, ours)
    assert cache.answered == 6
    rows = cache.held.get([0, 1, 2, 3], 0)
    (lie,) = cache.prefix.cut.lies.values()
    assert lie.whole(rows[0]).is_contiguous(memory_format=torch.channels_last)


def test_a_model_that_goes_another_way_for_some_batches():
    torch.manual_seed(0)
    ids, mask = torch.randint(0, 9, (20, 5)), torch.ones(20, 5)
    mask[::5, 3:] = 0
    plain, ours, cache = both(frozen_but(Steered(), "head"), (ids, mask), 20, size=4, epochs=6)
    assert equal(plain, ours)
    assert cache.answered
    assert cache.whole > 5  # batches without a short text are run whole, whenever they come


def bert(**settings):
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return transformers.BertForSequenceClassification(
        transformers.BertConfig(vocab_size=30, max_position_embeddings=12, num_labels=3, **sizes, **settings)
    )


@pytest.mark.parametrize("free", [("classifier",), ("classifier", "bert.pooler", "bert.encoder.layer.1")])
def test_a_model_that_takes_and_gives_things_by_name(free):
    torch.manual_seed(0)
    ids = torch.randint(0, 30, (12, 8))
    mask = torch.ones_like(ids)
    mask[::2, 6:] = 0
    data = {"input_ids": ids, "attention_mask": mask}
    plain, ours, cache = both(frozen_but(bert(), *free), data, 12, size=6)
    assert equal(plain, ours)
    assert cache.answered == 4


@pytest.mark.parametrize("name", ["convnext_atto", "levit_128s"])
def test_models_of_timm(name):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    settings = {"num_classes": 3, "img_size": 64} if name == "levit_128s" else {"num_classes": 3}
    model = timm.create_model(name, **settings)
    head = model.default_cfg["classifier"]
    plain, ours, cache = both(
        frozen_but(model, *([head] if isinstance(head, str) else head)), images(8, 64), 8, epochs=2
    )
    assert equal(plain, ours)
    assert cache.answered == 2
