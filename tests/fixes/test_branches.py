from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tests.fixes.mending import kept, mended, offered
from tests.net import Net
from torch import nn


class UNet(nn.Module):
    """Two levels: at 31 pixels both skip connections are off by one."""

    def __init__(self) -> None:
        super().__init__()
        self.e1, self.e2, self.e3 = nn.Conv2d(3, 4, 3, 1, 1), nn.Conv2d(4, 8, 3, 1, 1), nn.Conv2d(8, 16, 3, 1, 1)
        self.u2, self.d2 = nn.ConvTranspose2d(16, 8, 2, 2), nn.Conv2d(16, 8, 3, 1, 1)
        self.u1, self.d1 = nn.ConvTranspose2d(8, 4, 2, 2), nn.Conv2d(8, 2, 3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = F.relu(self.e1(x))
        b = F.relu(self.e2(F.max_pool2d(a, 2)))
        c = F.relu(self.e3(F.max_pool2d(b, 2)))
        y = F.relu(self.d2(torch.cat([self.u2(c), b], 1)))
        return self.d1(torch.cat([self.u1(y), a], 1))


class Block(nn.Module):
    def __init__(self, given: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(given, out, 3, stride, 1), nn.BatchNorm2d(out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.norm(self.conv(x))
        out += x
        return F.relu(out)


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_every_level_of_a_unet_is_padded_and_the_output_keeps_the_image_size():
    model = UNet()
    trained, even = state(model), torch.randn(1, 3, 32, 32)
    names = offered(model, torch.randn(2, 3, 31, 31))
    assert names[0] == "pad"
    assert "stretch" not in names  # the output would be stretched with the image
    g, output = mended(model, torch.randn(2, 3, 31, 31))
    assert output.shape == (2, 2, 31, 31)
    assert kept(g, trained)
    assert [edit.kind() for edit in g.recipe.edits] == ["rewire", "rewire"]
    with pytest.raises(RuntimeError):
        g.module(even)  # the padding is for this size


def test_paths_of_other_strides_are_interpolated_first_then_pooled():
    def forward(net, x):
        return torch.cat([net.a(x), net.b(x)], 1)

    model = Net(forward, a=nn.Conv2d(3, 8, 3, padding=1), b=nn.Conv2d(3, 8, 5, stride=2, padding=2))
    example = torch.randn(2, 3, 16, 16)
    assert offered(model, example) == ["interpolate", "pool"]
    a, b = model.a(example), model.b(example)
    _, output = mended(model, example)
    assert output.shape == (2, 16, 16, 16)
    assert torch.equal(output[:, :8], a)
    assert torch.allclose(output[:, 8:], F.interpolate(b, size=16, mode="bilinear", align_corners=False))
    again = Net(forward, a=nn.Conv2d(3, 8, 3, padding=1), b=nn.Conv2d(3, 8, 5, stride=2, padding=2))
    _, pooled = mended(again, example, "pool")
    assert pooled.shape == (2, 16, 8, 8)


def test_a_shortcut_beside_a_strided_body_gets_a_projection_of_its_own():
    body = nn.Sequential(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32))
    g, output = mended(Net(lambda net, x: x + net.body(x), body=body), torch.randn(2, 16, 8, 8))
    assert output.shape == (2, 32, 4, 4)
    conv, norm = (part for name, part in g.module.named_children() if name != "body" for part in part)
    assert (conv.weight.shape, conv.stride, conv.bias) == ((32, 16, 1, 1), (2, 2), None)
    assert isinstance(norm, nn.BatchNorm2d)


def test_every_residual_block_of_a_network_gets_its_shortcut():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), Block(4, 4, 1), Block(4, 8, 2), Block(8, 8, 2))
    trained = state(model)
    g, output = mended(model, torch.randn(2, 3, 18, 18))
    assert output.shape == (2, 8, 4, 4)
    assert kept(g, trained)


def test_a_map_and_a_vector_are_joined_by_averaging_the_map():
    def forward(net, image, table):
        return net.fc(torch.cat([net.conv(image), table], 1))

    model = Net(forward, conv=nn.Conv2d(3, 16, 1), fc=nn.Linear(24, 5))
    _, output = mended(model, (torch.randn(2, 3, 7, 7), torch.randn(2, 8)))
    assert output.shape == (2, 5)


def test_a_gate_without_its_map_dimensions_gets_them():
    def forward(net, x):
        return x * net.gate(x.mean((2, 3)))

    model = Net(forward, gate=nn.Linear(4, 4))
    _, output = mended(model, torch.randn(2, 4, 7, 5))
    assert output.shape == (2, 4, 7, 5)


def test_a_shared_layer_is_never_wrapped_for_one_of_its_calls():
    def forward(net, x):
        small = net.act(net.down(net.act(x)))
        return net.act(small + x)

    model = Net(forward, act=nn.ReLU(), down=nn.Conv2d(3, 3, 3, stride=2, padding=1))
    g, output = mended(model, torch.randn(2, 3, 8, 8))
    assert isinstance(g.module.act, nn.ReLU)
    assert output.shape[:2] == (2, 3)


def test_a_branch_that_came_up_too_large_is_cut_to_the_map_it_returns_to():
    def forward(net, x):
        a = net.first(x)
        return net.last(torch.cat([net.up(net.down(a)), a], 1))

    model = Net(
        forward,
        first=nn.Conv3d(1, 4, 3, padding=1),
        down=nn.Conv3d(4, 4, 3, 2, 1),
        up=nn.ConvTranspose3d(4, 4, 2, 2),
        last=nn.Conv3d(8, 2, 1),
    )
    assert offered(model, torch.randn(2, 1, 9, 9, 9))[0] == "crop"
    _, output = mended(model, torch.randn(2, 1, 9, 9, 9))
    assert output.shape == (2, 2, 9, 9, 9)
