"""Where a model looks for a class: by hand, and on digits that a trained network reads."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torchgraft as tg
from torchgraft.errors import DataError, SelectionError
from torchgraft.features import feature_maps, grad_cam, score_cam


@pytest.fixture(scope="module")
def glyphs():
    return tg.load("bundled:glyphs")


@pytest.fixture(scope="module")
def digits():
    from sklearn.datasets import load_digits

    found = load_digits()
    ink = torch.tensor(found.images[:48], dtype=torch.float32)[:, None] / 16
    ink = nn.functional.interpolate(ink, (16, 16), mode="bilinear")
    return (ink - 0.5) / 0.5, ink[:, 0]


def test_grad_cam_is_the_formula_of_the_paper(glyphs, digits):
    images = digits[0][:3]
    kept = {}
    model = glyphs.module.eval()
    handle = model.layer2.register_forward_hook(lambda m, a, out: kept.update(out=out))
    scores = model(images.clone().requires_grad_())
    handle.remove()
    (gradient,) = torch.autograd.grad(scores[:, 5].sum(), [kept["out"]])
    wanted = (gradient.mean((2, 3), keepdim=True) * kept["out"]).sum(1).relu()
    found = grad_cam(glyphs, images, at="layer2", target=5)
    assert torch.allclose(found.maps, wanted, atol=1e-6)
    assert found.classes == (5, 5, 5)
    assert found.chances == pytest.approx(scores.softmax(1)[:, 5].tolist(), rel=1e-4)
    assert found.images.shape == (3, 16, 16)
    assert float(found.images.amin()) == 0
    assert float(found.images.amax()) == 1


def test_score_cam_is_the_formula_of_the_paper(glyphs, digits):
    image = digits[0][:1]
    with torch.no_grad(), glyphs.capture("layer1", stop=False) as seen:
        seen.run(image)
        channels = seen["layer1"][0]
        scores = []
        for one in channels:
            mask = nn.functional.interpolate(one[None, None], (16, 16), mode="bilinear")
            mask = (mask - mask.min()) / (mask.max() - mask.min())
            scores.append(glyphs.module.eval()(image * mask)[0, 7])
    wanted = (torch.stack(scores).softmax(0)[:, None, None] * channels).sum(0).relu()
    found = score_cam(glyphs, image, at="layer1", target=7, batch=5)
    assert torch.allclose(found.maps[0], wanted, atol=1e-5)


@pytest.mark.parametrize("method", [grad_cam, score_cam])
def test_a_trained_network_looks_at_the_ink_and_not_at_the_border(glyphs, digits, method):
    images, ink = digits
    found = method(glyphs, images[:24])
    border = torch.ones(16, 16, dtype=torch.bool)
    border[2:-2, 2:-2] = False
    on_ink = torch.stack([one[where > 0.5].mean() for one, where in zip(found.images, ink, strict=False)])
    on_border = torch.stack(
        [one[border & (where < 0.1)].mean() for one, where in zip(found.images, ink, strict=False)]
    )
    assert float(on_ink.nanmean()) > 1.3 * float(on_border.nanmean())


def test_the_last_map_is_found(glyphs, digits):
    assert grad_cam(glyphs, digits[0][:1]).at == "layer3"


class Tokens(nn.Module):
    """A small vision transformer that reads its class token."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.blocks = nn.Sequential(
            *[nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True) for _ in range(2)]
        )
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = self.blocks(torch.cat([self.token.expand(len(x), -1, -1), x], 1))
        return self.head(self.norm(x)[:, 0])


def test_tokens_become_a_map_without_the_class_token():
    torch.manual_seed(0)
    g = tg.load(Tokens(), input=(3, 32, 48))
    x = torch.randn(2, 3, 32, 48)
    found = grad_cam(g, x)
    assert found.maps.shape == (2, 4, 6)
    assert found.at == "blocks.1.norm1", "behind it, the score depends on the class token alone"
    assert float(found.maps.amax()) > 0
    assert float(grad_cam(g, x, at="norm").maps.amax()) == 0


def test_maps_with_channels_last():
    torch.manual_seed(0)
    g = tg.load("torchvision:swin_t@none", input=(3, 64, 64))
    found = grad_cam(g, torch.randn(1, 3, 64, 64), at="features.3")
    assert found.maps.shape == (1, 8, 8)


def test_no_gradient_is_left(glyphs, digits, snapshot):
    before = snapshot(glyphs.module)
    with torch.no_grad():
        grad_cam(glyphs, digits[0][:1])
    assert snapshot(glyphs.module) == before
    assert all(one.grad is None for one in glyphs.module.parameters())


def test_a_class_is_named_or_numbered(glyphs, digits):
    names = [f"sign {number}" for number in range(297)]
    found = grad_cam(glyphs, digits[0][:1], target="sign 8", classes=names)
    assert (found.classes, found.names) == ((8,), ("sign 8",))


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"target": "²"}, "there is no class '²'(.|\n)*from 0 to 296"),
        ({"target": 400}, "there is no class 400(.|\n)*from 0 to 296"),
        ({"target": "sing 8", "classes": ["sign 8"]}, "did you mean sign 8"),
        ({"at": "fc"}, r"no map is given there: fc \[1, 297\]"),
        ({"at": "layre3"}, "did you mean layer3"),
    ],
)
def test_mistakes_are_told(glyphs, digits, settings, what):
    with pytest.raises((DataError, SelectionError), match=what):
        grad_cam(glyphs, digits[0][:1], **settings)


def test_one_number_alone_has_no_probability():
    g = tg.load(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1)), input=(3, 8, 8)
    )
    found = grad_cam(g, torch.rand(2, 3, 8, 8))
    assert found.at == "0"
    assert [chance != chance for chance in found.chances] == [True, True]  # NaN


def test_images_of_another_shape_than_the_models_own_have_their_map():
    g = tg.load("resnet18@none", input=(3, 64, 64))
    images = torch.rand(1, 3, 64, 128)
    found = grad_cam(g, images)
    assert (found.at, found.maps.shape[1:]) == ("layer4", (2, 4))
    own = [one.name for one in feature_maps(g, torch.rand(1, 3, 64, 64))]
    assert [one.name for one in feature_maps(g, images)] == own
