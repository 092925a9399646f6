"""Models with weights like trained ones, what they give, and whether two of them do the same."""

from __future__ import annotations

import copy
import functools
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torchvision import models

from benchmarks.zoo import ALL, timm_models, torchvision

TORCHVISION = (
    "resnet18", "resnet50", "resnext50_32x4d", "densenet121", "squeezenet1_0", "squeezenet1_1", "googlenet",
    "inception_v3", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "mnasnet0_5", "shufflenet_v2_x0_5",
    "efficientnet_b0", "regnet_x_400mf", "regnet_y_400mf", "convnext_tiny", "swin_t", "alexnet", "vit_b_32",
)  # fmt: skip
TIMM = (
    "resnet18", "vit_tiny_patch16_224", "convnext_atto", "mobilenetv3_small_050", "efficientnet_b0", "regnety_002",
    "densenet121", "inception_v3", "deit_tiny_distilled_patch16_224", "levit_128s", "convnextv2_atto", "dla34",
    "mixer_s32_224", "poolformer_s12", "edgenext_xx_small", "ghostnet_100", "repvgg_a0", "mobilevit_xxs",
    "resnetv2_50", "swin_tiny_patch4_window7_224",
)  # fmt: skip


@dataclass(frozen=True)
class Model:
    """A model with weights that differ from each other, as trained ones do, and the image that it takes."""

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, int, int]

    def build(self) -> nn.Module:
        """Build it, always with the same weights."""
        return copy.deepcopy(_built(self))

    def images(self, channels: int = 3, *, batch: int = 2) -> Tensor:
        """Give images of noise."""
        return torch.randn(batch, channels, *self.shape[1:], generator=torch.Generator().manual_seed(2))


@functools.lru_cache(maxsize=1)
def _built(one: Model) -> nn.Module:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = one.make()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if not tensor.is_floating_point() or tensor.numel() == 0:
                continue
            noise = torch.rand(tensor.shape, generator=generator)
            if name.endswith("running_var"):
                tensor.mul_(noise + 0.5)
            elif isinstance(tensor, nn.Parameter) or name.endswith("running_mean"):
                tensor.add_((noise - 0.5) * 0.1)
    _settled(model, one.images(batch=4))
    given = scores(model, one.images())
    if (given[0] - given[1]).abs().max() < 0.01 * given.abs().max():
        raise ValueError(
            f"{one.name} gives the same for every image, so that nothing could be told by its outputs"
        )
    return model.eval()


def _settled(model: nn.Module, x: Tensor) -> None:
    """Take the statistics of some images, as a training leaves them: else an image is lost in the offsets."""
    norms = [one for one in model.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]
    momenta = [one.momentum for one in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    with torch.no_grad():
        model.train()(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def chosen(source: str) -> list[Model]:
    if os.environ.get(ALL):
        return [subject(one.name, source) for one in (timm_models() if source == "timm" else torchvision())]
    return [subject(name, source) for name in (TIMM if source == "timm" else TORCHVISION)]


def subject(name: str, source: str) -> Model:
    """Give a model by name, on small images where it takes any."""
    if source == "timm":
        settings = timm.get_pretrained_cfg(name)
        shape = settings.input_size if settings is not None and settings.fixed_input_size else (3, 128, 128)
        return Model(name, lambda: timm.create_model(name), tuple(shape))
    size = {"vit_b_32": 224, "maxvit_t": 224, "inception_v3": 299}.get(name, 128)
    extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return Model(name, lambda: models.get_model(name, **extra), (3, size, size))


# numbers


def scores(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return tensors(model.eval()(x))[0]


def tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [one for part in value if part is not None for one in tensors(part)]


def near(a: Tensor, b: Tensor) -> bool:
    """Tell whether two outputs are the same, beside what two samples differ by."""
    spread = (b - b.mean(0)).abs().max()
    return a.shape == b.shape and bool((a - b).abs().max() <= 5e-3 * spread)


def loaded_equal(theirs: nn.Module, ours: nn.Module, x: Tensor) -> bool:
    """Tell whether two models have the same tensors by name, and give the same with the same values."""
    a, b = theirs.state_dict(), ours.state_dict()
    if {name: one.shape for name, one in a.items()} != {name: one.shape for name, one in b.items()}:
        return False
    theirs.load_state_dict(b)
    return near(scores(theirs, x), scores(ours, x))


def head_input(model: nn.Module, path: str, x: Tensor, *, train: bool = False) -> Tensor:
    seen: list[Tensor] = []
    hook = model.get_submodule(path).register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    with torch.no_grad():
        model.train(train)(x)
    hook.remove()
    return seen[0]
