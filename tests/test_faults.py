"""Faults that people really make, each by its cause: what is found before training, and what mends it.

docs/faults.md lists them; `test_docs` sees to it that every rule it names is there.
"""

from __future__ import annotations

import io

import pytest
import timm
import torch
from tests.net import Net
from torch import nn
from torch.nn import functional
from torchvision import models
from torchvision.models.vision_transformer import VisionTransformer

import torchgraft as tg

IMAGES = torch.randn(2, 3, 64, 64)
VIT = {"patch_size": 8, "num_layers": 1, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64, "num_classes": 10}


class Squeeze(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.f = nn.Sequential(nn.Linear(channels, 4), nn.ReLU(), nn.Linear(4, channels), nn.Sigmoid())

    def forward(self, x):
        return x * self.f(x.mean((2, 3)))[:, :, None, None]


def small(**kwargs):
    torch.manual_seed(0)
    return models.resnet18(weights=None, **kwargs)


def changed(model, change):
    change(model)
    return model


def u_net():
    def forward(net, x):
        a = net.d1(x)
        b = net.d2(functional.max_pool2d(a, 2))
        return net.o(torch.cat([net.up(b), a], 1))

    layers = {"d1": nn.Conv2d(3, 8, 3, padding=1), "d2": nn.Conv2d(8, 16, 3, padding=1)}
    return Net(forward, **layers, up=nn.ConvTranspose2d(16, 8, 2, 2), o=nn.Conv2d(16, 2, 3, padding=1))


def orphan_vgg():
    with torch.device("meta"):
        model = models.vgg11(weights=None)
        model.classifer = nn.Sequential(model.classifier, nn.Linear(1000, 10))
        model.add_module("head10", nn.Linear(1000, 10))
    return model


SHAPES = {
    "a linear layer for one image size": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(4 * 64, 10)),
        IMAGES, "S002", (2, 10),
    ),
    "children() loses the flatten": (
        lambda: nn.Sequential(*list(small().children())[:-1], nn.Linear(512, 10)), IMAGES, "S002", (2, 10),
    ),
    "a misspelt attribute": (orphan_vgg, torch.empty(2, 3, 64, 64, device="meta"), "P002", (2, 10)),
    "the head under another name": (
        lambda: changed(models.mobilenet_v3_small(weights=None), lambda m: setattr(m, "fc", nn.Linear(576, 10))),
        IMAGES, "P002", (2, 10),
    ),
    "grey images": (small, IMAGES[:, :1], "S001", (2, 1000)),
    "out_features set": (
        lambda: changed(small(), lambda m: setattr(m.fc, "out_features", 10)), IMAGES, "S011", (2, 10),
    ),
    "images too small": (lambda: models.alexnet(weights=None, num_classes=10), IMAGES[..., :32, :32], "S003", (2, 10)),
    "another size for torchvision's ViT": (lambda: VisionTransformer(image_size=32, **VIT), IMAGES, "S008", (2, 10)),
    "another size for timm's ViT": (
        lambda: timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10, depth=1), IMAGES, "S008", (2, 10),
    ),
    "no batch": (small, IMAGES[0], "S007", (2, 1000)),
    "a stage of another width": (
        lambda: changed(small(), lambda m: setattr(m, "layer3", nn.Sequential(nn.Conv2d(128, 512, 3, 2, 1), nn.ReLU()))),
        IMAGES, "S001", (2, 1000),
    ),
    "attention for other channels": (
        lambda: changed(small(), lambda m: m.layer2.add_module("se", Squeeze(64))), IMAGES, "S002", (2, 1000),
    ),
    "view(-1, k)": (
        lambda: Net(lambda net, x: net.fc(net.conv(x).view(-1, 4 * 25)), conv=nn.Conv2d(3, 4, 3, padding=1),
                    fc=nn.Linear(100, 10)),
        torch.randn(4, 3, 10, 10), "S010", (4, 10),
    ),
    "a skip of an odd size": (u_net, torch.randn(2, 3, 25, 25), "S004", (2, 2, 25, 25)),
    "branches of other strides": (
        lambda: Net(lambda net, x: torch.cat([net.a(x), net.b(x)], 1), a=nn.Conv2d(3, 8, 3, padding=1),
                    b=nn.Conv2d(3, 8, 5, stride=2, padding=2)),
        IMAGES, "S004", (2, 16, 64, 64),
    ),
    "a shortcut without a projection": (
        lambda: Net(lambda net, x: x + net.body(x), body=nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1), nn.BatchNorm2d(32))),
        IMAGES, "S004", (2, 32, 32, 32),
    ),
    "a map and a vector": (
        lambda: Net(lambda net, x, t: torch.cat([net.c(x), net.t(t)], 1), c=nn.Conv2d(3, 16, 3), t=nn.Linear(4, 8)),
        (IMAGES, torch.randn(2, 4)), "S004", (2, 24),
    ),
    "cat without dim": (
        lambda: Net(lambda net, x: net.o(torch.cat([net.a(x), net.b(x)])), a=nn.Linear(8, 4), b=nn.Linear(8, 4),
                    o=nn.Linear(4, 5)),
        torch.randn(3, 8), "S010", (3, 5),
    ),
    "softmax before cross-entropy": (
        lambda: nn.Sequential(nn.Linear(8, 5), nn.Softmax(1)), torch.randn(3, 8), "H001", (3, 5),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_a_fault_of_shape_is_found_and_mended(name):
    build, example, code, wanted = SHAPES[name]
    model = build()
    found = [finding for finding in tg.check(model, example) if finding.code == code]
    assert found
    assert found[0].fixes, "a fix was tried and works"
    g = tg.load(model, input=example)
    kept = {name: id(tensor) for name, tensor in model.named_parameters()}
    g.fix()
    assert [finding for finding in g.check() if finding.is_error] == []
    if not any(tensor.is_meta for tensor in model.parameters()):
        given = g._inputs()
        shown = g.module.eval()(*given) if isinstance(given, tuple) else g.module.eval()(given)
        assert tuple(shown.shape) == wanted
    while g.recipe.edits:
        g.undo()
    assert {name: id(tensor) for name, tensor in model.named_parameters()} == kept


def test_attention_for_other_channels_is_mended_without_a_trained_weight_lost():
    model = changed(small(), lambda m: m.layer2.add_module("se", Squeeze(64)))
    before = {name: tensor for name, tensor in model.named_parameters() if ".se." not in name}
    tg.load(model, input=(3, 64, 64)).fix()
    after = dict(model.named_parameters())
    assert all(after.get(name) is tensor for name, tensor in before.items())


def test_groups_that_do_not_divide_are_refused_with_those_that_do():
    g = tg.load(nn.Sequential(nn.Conv2d(3, 24, 3), nn.BatchNorm2d(24)), input=(3, 8, 8))
    with pytest.raises(tg.errors.EditError, match="num_groups=8"):
        g.replace("1", tg.ModuleSpec.model_validate({"nn.GroupNorm": {"num_groups": 32}}))


def codes(*given, **named):
    return {finding.code for finding in tg.check(*given, **named)}


def wrapped():
    return {f"module.{name}": tensor for name, tensor in small().state_dict().items()}


def wiped():
    model = small()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return model


WEIGHTS = {
    "another head": (lambda: small(num_classes=10), lambda: small().state_dict(), "W008"),
    "a prefix": (small, wrapped, "W003"),
    "a whole checkpoint": (small, lambda: {"epoch": 3, "state_dict": small().state_dict(), "optimizer": {}}, "W002"),
    "another channel": (
        lambda: changed(small(), lambda m: setattr(m, "conv1", nn.Conv2d(4, 64, 7, 2, 3, bias=False))),
        lambda: small().state_dict(), "W008",
    ),
    "positions for another size": (
        lambda: VisionTransformer(image_size=64, **VIT), lambda: VisionTransformer(image_size=32, **VIT).state_dict(),
        "W008",
    ),
    "initialised after loading": (wiped, lambda: small().state_dict(), "W010"),
    "missing layers": (
        small, lambda: {name: one for name, one in small().state_dict().items() if "layer4" not in name}, "W005",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_do_not_fit_are_told(name):
    build, weights, code = WEIGHTS[name]
    assert code in codes(build(), (4 if name == "another channel" else 3, 64, 64), weights=weights())


@pytest.mark.parametrize("name", ["a prefix", "a whole checkpoint"])
def test_weights_from_anywhere_are_loaded(name):
    build, weights, _ = WEIGHTS[name]
    given = weights()
    g = tg.load(build(), input=(3, 64, 64))
    nn.init.zeros_(g.module.fc.weight)
    g.load_weights(given)
    assert torch.equal(g.module.fc.weight, small().fc.weight)


def test_a_file_that_was_cut_off_is_told(tmp_path):
    whole = io.BytesIO()
    torch.save({"w": torch.randn(1000)}, whole)
    (tmp_path / "cut.pt").write_bytes(whole.getvalue()[:2000])
    assert "W001" in codes(nn.Linear(2, 2), torch.randn(2, 2), weights=str(tmp_path / "cut.pt"))


def frozen(model, *, but=()):
    model.requires_grad_(False)
    for name in but:
        model.get_submodule(name).requires_grad_(True)
    return model


def listed():
    class Listed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = [nn.Linear(4, 4) for _ in range(3)]

        def forward(self, x):
            for layer in self.layers:
                x = layer(x)
            return x

    return Listed()


def test_layers_in_a_plain_list_are_told_and_registered():
    model = listed()
    assert "P003" in codes(model, torch.randn(2, 4))
    tg.load(model, input=torch.randn(2, 4)).fix()
    assert len(list(model.parameters())) == 6
    assert model(torch.randn(2, 4)).shape == (2, 4)


def test_everything_frozen_is_told():
    assert "P001" in codes(frozen(small()), (3, 64, 64))


def test_frozen_norms_that_move_are_told_and_held():
    model = frozen(small(), but=["fc"])
    optimizer = torch.optim.SGD(model.fc.parameters(), lr=0.1)
    assert "P018" in codes(model, (3, 64, 64), optimizer=optimizer)
    tg.load(model, input=(3, 64, 64)).eval_mode(at=["bn1", "layer[1-4].**"])
    before = {name: one.clone() for name, one in model.state_dict().items()}
    model.train()(torch.randn(4, 3, 32, 32))
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())


def test_layers_unfrozen_after_the_optimizer_was_built_are_told():
    model = frozen(small(), but=["fc"])
    optimizer = torch.optim.Adam([one for one in model.parameters() if one.requires_grad], 1e-3)
    model.layer4.requires_grad_(True)
    assert "P010" in codes(model, (3, 64, 64), optimizer=optimizer)


def test_an_optimizer_of_a_head_that_was_replaced_is_told():
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.fc = nn.Linear(512, 10)
    assert {"P010", "P011"} <= codes(model, (3, 64, 64), optimizer=optimizer)


def test_decay_of_norms_is_told():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    assert "P017" in codes(model, (3, 8, 8), optimizer=torch.optim.AdamW(model.parameters(), weight_decay=0.1))


def test_groups_of_a_graft_hold_each_parameter_once():
    model = small()
    groups = tg.load(model, input=(3, 64, 64)).groups({"head": {"lr": 0.1}}, lr=0.01)
    held = [id(one) for group in groups for one in group["params"]]
    assert sorted(held) == sorted(id(one) for one in model.parameters())


HOOKS = {
    "registered again and again": ("P007", lambda m, f: [m.register_forward_hook(keep(f)) for _ in range(3)]),
    "one that gives something back": ("S019", lambda m, f: m.register_forward_hook(lambda _m, _i, o: f.setdefault("h", o))),
    "what a ReLU overwrites": ("P009", lambda m, f: m.register_forward_hook(keep(f))),
}  # fmt: skip


def keep(found):
    def hook(_module, _given, gave):
        found["h"] = gave.detach()

    return hook


@pytest.mark.parametrize("name", HOOKS)
def test_hooks_that_do_not_what_they_seem_to_are_told(name):
    code, hang = HOOKS[name]
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True))
    hang(model[0], {})
    assert code in codes(model, (3, 8, 8))


NUMBERS = torch.tensor([0, 1, 2, 3])
DATA = {
    "a label too high": (lambda: nn.Linear(4, 4), (torch.randn(4, 4), torch.tensor([1, 2, 3, 4])), {}, "D002"),
    "labels in a column": (lambda: nn.Linear(4, 4), (torch.randn(4, 4), NUMBERS[:, None]), {}, "D010"),
    "several outputs in training": (
        lambda: models.inception_v3(weights=None, init_weights=False, num_classes=4),
        (torch.randn(4, 3, 299, 299), NUMBERS), {}, "H007",
    ),
    "images of 0 … 255": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
        (torch.rand(8, 3, 16, 16) * 255, NUMBERS.repeat(2)), {}, "D023",
    ),
    "vanishing gradients": (
        lambda: nn.Sequential(*[k for _ in range(12) for k in (nn.Linear(32, 32), nn.Sigmoid())], nn.Linear(32, 4)),
        (torch.randn(64, 32), NUMBERS.repeat(16)), {}, "T003",
    ),
    "a loss of what was detached": (
        lambda: nn.Linear(4, 4), (torch.randn(4, 4), NUMBERS), {"loss": lambda out, _: (out.detach() ** 2).mean()}, "T006",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DATA)
def test_what_only_real_samples_show_is_told(name):
    build, data, named, code = DATA[name]
    torch.manual_seed(0)
    assert code in codes(build(), data=data, **named)


def test_a_last_batch_of_one_sample_is_told():
    samples = torch.utils.data.TensorDataset(torch.randn(9, 7), torch.zeros(9, dtype=torch.long))
    model = nn.Sequential(nn.Linear(7, 16), nn.BatchNorm1d(16))
    assert "D025" in codes(model, data=torch.utils.data.DataLoader(samples, batch_size=4))


def test_a_learning_rate_that_explodes_is_told():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)
    data = (torch.randn(128, 32), torch.randn(128, 1) * 3)
    assert "T012" in codes(model, data=data, loss=nn.MSELoss(), optimizer=optimizer)


def test_uint8_images_are_told():
    assert "S012" in codes(small(), torch.randint(0, 255, (1, 3, 32, 32), dtype=torch.uint8))


def test_flow_that_depends_on_values_is_told_and_followed_on_request():
    model = Net(lambda net, x: net.a(x) if x.sum() > 0 else x, a=nn.Linear(4, 4))
    assert codes(model, torch.ones(2, 4)) == {"S009"}
    assert codes(model, torch.ones(2, 4), real=True) == {"S020"}
