"""Hubs and caches where the user's environment says they are, without a network."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models

_LOADS = """
import sys, warnings, torch
from torchgraft.errors import TorchgraftWarning
from torchgraft.sources import parse_source
warnings.simplefilter("ignore", TorchgraftWarning)  # random weights have not the hash of the real ones
for text, first in zip(sys.argv[1::2], sys.argv[2::2]):
    base = parse_source(text).load()
    assert float(next(iter(base.module.parameters())).flatten()[0]) == float(first), text
"""


def first(module: nn.Module) -> str:
    return repr(float(next(iter(module.parameters())).detach().flatten()[0]))


def cached(home: Path, repository: str, folder: Path) -> None:
    """Lay the files of a folder into a cache of Hugging Face, as its client does."""
    home = home / "hub" / f"models--{repository.replace('/', '--')}"
    for part in ("refs", "blobs", "snapshots/abc"):
        (home / part).mkdir(parents=True)
    (home / "refs" / "main").write_text("abc")
    for path in folder.iterdir():
        blob = home / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
        blob.write_bytes(path.read_bytes())
        os.symlink(blob, home / "snapshots" / "abc" / path.name)


def test_weights_come_from_the_caches_that_the_environment_names(tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    net = models.shufflenet_v2_x0_5(weights=None)
    url = models.ShuffleNet_V2_X0_5_Weights.DEFAULT.url
    (tmp_path / "torch" / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(net.state_dict(), tmp_path / "torch" / "hub" / "checkpoints" / url.rpartition("/")[2])

    resnet = timm.create_model("resnet10t")
    (tmp_path / "resnet").mkdir()
    save_file(resnet.state_dict(), tmp_path / "resnet" / "model.safetensors")
    cached(tmp_path / "hf", "timm/resnet10t.c3_in1k", tmp_path / "resnet")

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    bert = transformers.BertModel(transformers.BertConfig(**sizes, vocab_size=60))
    bert.save_pretrained(tmp_path / "bert", max_shard_size="8KB")
    cached(tmp_path / "hf", "me/bert", tmp_path / "bert")

    loads = (
        "shufflenet_v2_x0_5",
        first(net),
        "timm:resnet10t",
        first(resnet),
        "transformers:me/bert",
        first(bert),
    )
    paths = {"TORCH_HOME": str(tmp_path / "torch"), "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TORCH_HOME"))}
    done = subprocess.run(
        [sys.executable, "-c", _LOADS, *loads], env={**clean, **paths}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
