from __future__ import annotations

import hashlib
import json
import os

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from torchgraft.errors import SourceError
from torchgraft.sources import parse_source
from torchgraft.weights.skeleton import on_meta


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of Hugging Face that holds random weights, and no network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    def keep(repository: str, files: dict) -> None:
        home = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
        (home / "refs").mkdir(parents=True)
        (home / "blobs").mkdir()
        (home / "snapshots" / "abc").mkdir(parents=True)
        (home / "refs" / "main").write_text("abc")
        for name, data in files.items():
            blob = home / "blobs" / hashlib.sha256(data).hexdigest()
            blob.write_bytes(data)
            os.symlink(blob, home / "snapshots" / "abc" / name)

    return keep


def packed(module: nn.Module, tmp_path) -> bytes:
    save_file(module.state_dict(), tmp_path / "packed.safetensors")
    return (tmp_path / "packed.safetensors").read_bytes()


def same(a: nn.Module, b: nn.Module) -> bool:
    a, b = a.state_dict(), b.state_dict()
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def test_weights_in_the_cache_of_the_hub_are_loaded_straight(cache, tmp_path):
    trained = timm.create_model("resnet10t")
    cache("timm/resnet10t.c3_in1k", {"model.safetensors": packed(trained, tmp_path)})
    base = parse_source("timm:resnet10t").load()
    assert same(base.module, trained)
    assert not on_meta(base.module)
    (offer,) = (one for one in type(parse_source("timm:resnet10t")).offers() if one.name == "resnet10t")
    assert (offer.weights, offer.there) == (("c3_in1k",), "c3_in1k")


def test_a_damaged_blob_is_refused(cache, tmp_path):
    cache("timm/resnet10t.c3_in1k", {"model.safetensors": packed(timm.create_model("resnet10t"), tmp_path)})
    (blob,) = (tmp_path / "hub").glob("models--*/blobs/*")
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    with pytest.raises(SourceError, match="the cached file is damaged"):
        parse_source("timm:resnet10t").load()


def test_a_model_of_ones_own_on_the_hub_is_loaded_by_its_configuration(cache, tmp_path):
    trained = timm.create_model("test_resnet", num_classes=7)
    config = {
        "architecture": "test_resnet",
        "num_classes": 7,
        "pretrained_cfg": {
            "input_size": [3, 160, 160],
            "mean": [0.1, 0.2, 0.3],
            "std": [0.4, 0.5, 0.6],
            "num_classes": 7,
        },
    }
    cache("me/mine", {"model.safetensors": packed(trained, tmp_path), "config.json": json.dumps(config).encode()})
    base = parse_source("timm:hf-hub:me/mine").load()
    assert same(base.module, trained)
    assert base.preprocess.mean == (0.1, 0.2, 0.3)
    assert parse_source("timm:hf-hub:me/mine@none").load().module.fc.out_features == 7


def test_a_folder_is_loaded_by_its_configuration(tmp_path):
    trained = timm.create_model("test_vit", num_classes=3)
    (tmp_path / "mine").mkdir()
    timm.models.save_for_hf(trained, tmp_path / "mine", model_config={"num_classes": 3})
    base = parse_source(f"timm:local-dir:{tmp_path}/mine").load()
    assert same(base.module, trained)
    with pytest.raises(SourceError, match=r"no config\.json(.|\n)*file:"):
        parse_source(f"timm:local-dir:{tmp_path}").load()


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("resnet18", "crop"),
        ("vit_tiny_patch16_224", "crop"),
        ("eva02_tiny_patch14_336.mim_in22k_ft_in1k", "crop"),
        ("convnext_tiny.in12k_ft_in1k_384", "stretch"),
    ],
)
def test_images_are_prepared_as_timm_does(name, frame):
    config = timm.get_pretrained_cfg(name).to_dict()
    check_like_timm(config)
    assert from_config(config).frame == frame


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("percent", [0.9, 1.0])
def test_every_way_to_bring_an_image_to_its_shape_is_timms(mode, percent):
    config = timm.get_pretrained_cfg("resnet18").to_dict() | {"crop_mode": mode, "crop_pct": percent}
    check_like_timm(config)


def from_config(config):
    from torchgraft.sources.timm import _preprocess

    return _preprocess(config)


def check_like_timm(config) -> None:
    """The same size, and nearly the same values, of a picture that is wider than high."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 140, 3), dtype=np.uint8)).resize(
        (700, 450)
    )
    theirs = timm.data.create_transform(
        input_size=config["input_size"],
        interpolation=config["interpolation"],
        mean=config["mean"],
        std=config["std"],
        crop_pct=config["crop_pct"],
        crop_mode=config["crop_mode"],
    )(image)
    ours = from_config(config).transform()(image)
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().mean()) < 0.05
