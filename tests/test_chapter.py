"""The course chapter's own edits, each through torchgraft: what fits works, what does not is refused and told."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

import torchgraft as tg
from torchgraft.errors import EditError


def test_the_output_layer_is_replaced_by_a_plain_one(resnet18):
    resnet18.head(10)
    assert isinstance(resnet18.module.fc, nn.Linear)
    assert resnet18.module.fc.in_features == 512
    assert resnet18.module(torch.randn(2, 3, 64, 64)).shape == (2, 10)


def test_the_output_layer_is_replaced_by_a_head_of_several_layers(resnet18):
    resnet18.head(10, hidden=[512], dropout=0.5)
    assert [type(layer) for layer in resnet18.module.fc] == [nn.Linear, nn.ReLU, nn.Dropout, nn.Linear]
    assert resnet18.module(torch.randn(2, 3, 64, 64)).shape == (2, 10)


def test_the_output_layer_can_be_replaced_by_a_module_of_ones_own(resnet18):
    fc = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Dropout(0.5), nn.Linear(512, 10))
    resnet18.replace("fc", fc)
    assert resnet18.module.fc is fc
    assert resnet18.module(torch.randn(2, 3, 64, 64)).shape == (2, 10)


def test_layer3_as_usually_written_is_refused_because_128_channels_arrive(resnet18, snapshot):
    before = snapshot(resnet18.module)
    stage = nn.Sequential(
        nn.Conv2d(256, 512, kernel_size=3, padding=1),
        nn.BatchNorm2d(512),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
    )
    with pytest.raises(EditError, match=r"layer3\.0 \(Conv2d\).* takes 256 channels, but gets 128") as refused:
        resnet18.replace("layer3", stage)
    finding = refused.value.findings[0]
    assert finding.code == "S001"
    assert finding.where == "resnet18 / layer3.0"
    assert "made by  layer2.1.relu (ReLU)" in finding.facts
    assert snapshot(resnet18.module) == before


def test_layer3_with_its_input_put_right_is_refused_because_layer4_gets_512(resnet18):
    stage = nn.Sequential(nn.Conv2d(128, 512, 3, padding=1), nn.BatchNorm2d(512), nn.ReLU(), nn.MaxPool2d(2))
    with pytest.raises(EditError, match=r"layer4\.0\.conv1 \(Conv2d\) takes 256 channels, but gets 512"):
        resnet18.replace("layer3", stage)


def test_layer3_fits_when_both_ends_agree(resnet18):
    resnet18.replace(
        "layer3",
        [
            {"nn.Conv2d": {"out_channels": 256, "kernel_size": 3, "padding": 1}},
            {"nn.BatchNorm2d": {}},
            {"nn.ReLU": {"inplace": True}},
            {"nn.MaxPool2d": {"kernel_size": 2}},
        ],
    )
    assert resnet18.module.layer3[0].in_channels == 128
    assert resnet18.module.layer3[1].num_features == 256
    assert resnet18.module(torch.randn(2, 3, 64, 64)).shape == (2, 1000)


def test_the_attention_block_is_refused_because_it_doubles_the_channels(resnet18, snapshot, custom_block):
    before = snapshot(resnet18.module)
    with pytest.raises(
        EditError, match=r"layer3\.0\.conv1 \(Conv2d\) takes 128 channels, but gets 256"
    ) as refused:
        resnet18.append("layer2", custom_block(128), name="attention")
    assert "made by  layer2.attention (CustomBlock), added by edit 1" in refused.value.findings[0].facts
    assert snapshot(resnet18.module) == before


def test_an_attention_block_that_keeps_the_channels_goes_into_layer2(resnet18):
    base = list(resnet18.module.state_dict())
    resnet18.insert(tg.blocks.SqueezeExcite(reduction=4), after="layer2", name="attention")
    assert list(resnet18.module.layer2._modules) == ["0", "1", "attention"]
    assert set(base) < set(resnet18.module.state_dict())


def test_everything_but_the_head_is_frozen(resnet18):
    resnet18.head(10)
    resnet18.freeze(all_but="head")
    trainable = [name for name, p in resnet18.module.named_parameters() if p.requires_grad]
    assert trainable == ["fc.weight", "fc.bias"]
    assert sum(p.numel() for p in resnet18.module.parameters() if p.requires_grad) == 5130


def test_each_part_gets_its_learning_rate_and_no_parameter_is_left_out(resnet18):
    resnet18.head(10)
    groups = resnet18.groups({"conv1.**": {"lr": 1e-4}, "fc": {"lr": 1e-2}}, lr=1e-3)
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    rates = {name: group["lr"] for group in optimizer.param_groups for name in group["names"]}
    assert rates["conv1.weight"] == 1e-4
    assert rates["layer2.0.conv1.weight"] == 1e-3
    assert rates["fc.weight"] == 1e-2
    assert set(rates) == {name for name, _ in resnet18.module.named_parameters()}


def test_a_linear_layer_after_vgg16s_thousand_classes_works_and_is_noted():
    g = tg.load("torchvision:vgg16@none", input=(3, 64, 64))
    g.append("classifier", nn.Linear(1000, 10), name="Linear")
    assert list(g.module.classifier._modules)[-1] == "Linear"
    assert g.trace().output_shapes() == [(2, 10)]
    assert [finding.code for finding in g.check()] == [
        "H002",
        "S022",
    ]  # the images are small: vgg16 stretches their last map


def test_weights_are_drawn_anew_by_kind_of_layer(resnet18):
    old = resnet18.module.bn1.weight
    resnet18.init(
        "**", conv={"kaiming_normal": {"mode": "fan_out"}}, linear={"normal": {"std": 0.01}}, bias="zeros"
    )
    fan_out = 64 * 3 * 3
    drawn = resnet18.module.layer1[0].conv1.weight
    assert float(drawn.std()) == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)
    assert float(resnet18.module.fc.weight.std()) == pytest.approx(0.01, rel=0.05)
    assert not resnet18.module.fc.bias.any()
    assert resnet18.module.bn1.weight is old


def test_the_three_layers_of_the_tutorial_get_their_rates_and_the_table_says_so(resnet18):
    groups = resnet18.groups({"conv1": {"lr": 1e-4}, "layer1": {}, "fc": {"lr": 1e-2}}, lr=1e-3)
    torch.optim.SGD(groups, momentum=0.9)
    held = [parameter for group in groups for parameter in group["params"]]
    assert len(held) == len({id(one) for one in held}) == len(list(resnet18.module.parameters()))
    assert "0.0001" in str(groups)
    assert "0.01" in str(groups)


class DynamicNet(nn.Module):
    """Layers from a list of widths, with ReLU and dropout between them."""

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(given, gives) for given, gives in itertools.pairwise(widths))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for number, layer in enumerate(self.blocks):
            x = layer(x)
            if number != len(self.blocks) - 1:
                x = nn.functional.dropout(nn.functional.relu(x), 0.5, self.training)
        return x


def test_a_network_of_a_module_list_is_edited_in_the_middle():
    g = tg.load(DynamicNet([784, 256, 128]), input=(784,))
    g.insert({"nn.Linear": {"out_features": 256}}, after="blocks.0", name="more")
    assert list(g.module.blocks._modules) == ["0", "more", "1"]
    g.replace("blocks.1", nn.Linear(256, 10))
    assert g.module.eval()(torch.randn(2, 784)).shape == (2, 10)
    with pytest.raises(EditError, match="takes 256 features, but gets 64"):
        g.replace("blocks.more", nn.Linear(256, 64))


def test_the_dynamic_network_is_a_block_too():
    g = tg.load(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), input=(1, 28, 28))
    g.replace("1", tg.blocks.MLP(widths=[256, 128, 10], dropout=0.5))
    assert [m.out_features for m in g.module[1] if isinstance(m, nn.Linear)] == [256, 128, 10]


def test_two_branches_whose_sizes_disagree_are_fused():
    g = tg.load("torchvision:vgg11@none", input=(3, 64, 64))
    paths = [
        [{"nn.Conv2d": {"out_channels": 64, "kernel_size": 3}}, {"nn.MaxPool2d": {"kernel_size": 2}}],
        [{"nn.Conv2d": {"out_channels": 64, "kernel_size": 5}}, {"nn.AvgPool2d": {"kernel_size": 2}}],
    ]
    g.replace("features.0", tg.blocks.MultiPath(paths=paths, channels=64), fix="adapt")
    assert g.module.eval()(torch.randn(2, 3, 64, 64)).shape == (2, 1000)


def test_the_attention_block_can_start_without_a_trace_in_the_output(resnet18):
    x = torch.randn(2, 3, 64, 64)
    before = resnet18.module.eval()(x)
    resnet18.insert(tg.blocks.CBAM(start="identity"), after="layer2", name="attention")
    torch.testing.assert_close(resnet18.module.eval()(x), before, atol=1e-6, rtol=0)


def test_the_old_spelling_of_pretrained_is_understood_and_explained():
    with pytest.warns(tg.errors.TorchgraftWarning, match="@none"):
        assert tg.load("resnet18", pretrained=False).recipe.base.endswith("resnet18@none")


def test_vgg16_on_cifar_shows_the_sizes_of_every_layer_and_stays_as_it_was(snapshot):
    g = tg.load("torchvision:vgg16_bn@none", input=(3, 32, 32), meta=True)
    g.head(10)
    seen = g.show()
    sizes = {row.path: row.gave for row in seen.rows}
    assert sizes["features.43"] == ((2, 512, 1, 1),)
    assert sizes["avgpool"] == ((2, 512, 7, 7),)
    assert sizes[""] == ((2, 10),)
    assert seen.parameters == sum(one.numel() for one in g.module.parameters())
    assert all(one.is_meta for one in g.module.parameters())


def test_the_structure_is_drawn_without_a_program_of_its_own(resnet18, tmp_path):
    resnet18.head(10)
    for name in ("model.svg", "model.png", "model.html", "model.dot", "model.json"):
        resnet18.draw(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000
    assert "layer4" in (tmp_path / "model.svg").read_text()


def test_the_map_of_a_layer_is_caught_and_the_hook_is_gone(resnet18):
    model, x = resnet18.module.eval(), torch.randn(2, 3, 64, 64)
    with resnet18.capture("layer2.0.conv1") as seen:
        model(x)
    before = model.maxpool(model.relu(model.bn1(model.conv1(x))))
    torch.testing.assert_close(seen["layer2.0.conv1"], model.layer2[0].conv1(model.layer1(before)))
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


def test_out_of_memory_is_told_beforehand_with_half_precision_and_accumulation_as_remedies(resnet18):
    found = resnet18.memory("1.2GiB", batch=256)
    assert [one.code for one in found.findings] == ["M001"]
    assert {"bf16", "accumulate"} <= {remedy.name for remedy in found.remedies}


def test_a_training_script_is_profiled_in_place_of_bottleneck(tmp_path, capfd):
    from torchgraft.cli.main import main

    script = tmp_path / "train.py"
    script.write_text(
        "import sys, torch\n"
        "model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 2))\n"
        "optimizer = torch.optim.SGD(model.parameters(), lr=float(sys.argv[1]))\n"
        "for _ in range(20):\n"
        "    optimizer.zero_grad()\n"
        "    model(torch.randn(32, 64)).pow(2).mean().backward()\n"
        "    optimizer.step()\n"
        "print('trained')\n"
    )
    with pytest.raises(SystemExit) as ended:
        main(["profile", str(script), "0.1"])
    assert ended.value.code == 0
    told = capfd.readouterr().out
    assert "trained" in told
    assert "Linear" in told
