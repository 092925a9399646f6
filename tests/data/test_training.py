"""Every kind of data goes through a training, from the command line's plan or from Python."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import torchgraft as tg
from torchgraft.errors import DataError
from torchgraft.plan import plan

FLOATS, CLASSES = torch.randn(40, 1, 16, 16, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 3


def glyphs(outputs: int = 3) -> Any:
    graft = tg.load("bundled:glyphs")
    graft.head(outputs)
    return graft


def pictures(home: Path, count: int = 24) -> Path:
    (home / "img").mkdir()
    for number in range(count):
        Image.new("L", (16, 16), number * 10).save(home / "img" / f"{number}.png")
    lines = [f"img/{number}.png,{'cat' if number % 2 else 'dog'}" for number in range(count)]
    (home / "labels.csv").write_text("\n".join(["path,label", *lines]))
    return home / "labels.csv"


def trained(graft: Any, data: Any, **settings: Any) -> Any:
    """Train for one epoch, and give its only figures."""
    settings = {"epochs": 1, "batch": 8, "keep": "last", **settings}
    before = {name: one.clone() for name, one in graft.module.state_dict().items()}
    history = graft.train(data, **settings)
    assert any(not torch.equal(one, before[name]) for name, one in graft.module.state_dict().items())
    return history.epochs[-1]


def test_a_table_is_planned_as_adapt_plans_it(tmp_path: Path) -> None:
    job = plan("bundled:glyphs", f"csv:{pictures(tmp_path)}", settings={"train.epochs": 1})
    assert (job.data.classes, len(job.data.train), job.graft.trace().output_shapes()[0][1]) == (
        ("cat", "dog"),
        20,
        2,
    )


def test_a_table_trains(tmp_path: Path) -> None:
    assert np.isfinite(trained(glyphs(2), str(pictures(tmp_path))).val_loss)


@pytest.mark.parametrize(
    "data",
    [
        (FLOATS, CLASSES),
        ((FLOATS.numpy(), CLASSES.numpy()), (FLOATS[:9].numpy(), CLASSES[:9].numpy())),
        TensorDataset(FLOATS, CLASSES),
        ((FLOATS * 9).byte().squeeze(1), CLASSES.tolist()),
        (DataLoader(TensorDataset(FLOATS, CLASSES), batch_size=8), DataLoader(TensorDataset(FLOATS, CLASSES))),
    ],
    ids=["tensors", "halves of arrays", "dataset", "bytes", "loaders"],
)
def test_what_python_hands_over_trains(data: Any) -> None:
    assert np.isfinite(trained(glyphs(), data).val_loss)


def test_tensors_train_as_a_bare_loop_trains_them() -> None:
    given = (FLOATS, CLASSES)
    graft = glyphs()
    bare = tg.load("bundled:glyphs")
    bare.head(3)
    model = bare.module.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loader: Any = DataLoader(TensorDataset(*given), batch_size=8)
    for inputs, targets in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    settings = {
        "optimizer": {"sgd": {"lr": 0.01}},
        "groups": [],
        "schedule": "constant",
        "warmup": 0.0,
        "clip": None,
    }
    trained(graft, (loader, loader), **settings)
    for name, one in model.state_dict().items():
        assert torch.equal(one, graft.module.state_dict()[name]), name


def test_masks_train_a_network_of_pixels(tmp_path: Path) -> None:
    for number in range(10):
        for part in ("images", "masks"):
            (tmp_path / part).mkdir(exist_ok=True)
        pixels = np.zeros((8, 8), np.uint8)
        pixels[:, number % 8 :] = 1
        Image.fromarray(pixels * 200).convert("RGB").save(tmp_path / "images" / f"{number}.png")
        Image.fromarray(pixels).save(tmp_path / "masks" / f"{number}.png")
    graft = tg.load(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1)), input=(3, 8, 8))
    assert np.isfinite(trained(graft, f"masks:{tmp_path}").val_loss)


def test_a_network_of_pixels_is_checked_with_its_masks(tmp_path: Path) -> None:
    for number in range(4):
        for part in ("images", "masks"):
            (tmp_path / part).mkdir(exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (8, 8, 3)).astype(np.uint8)
        Image.fromarray(noise).save(tmp_path / "images" / f"{number}.png")
        Image.fromarray(np.resize(np.array([0, 1, 255], np.uint8), (8, 8))).save(
            tmp_path / "masks" / f"{number}.png"
        )
    graft = tg.load(nn.Conv2d(3, 2, 1), input=(3, 8, 8))
    assert [found for found in graft.check(data=f"masks:{tmp_path}") if found.is_error] == []


def test_a_stream_trains_for_as_many_steps_as_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    file = io.BytesIO()
    Image.new("L", (16, 16), 90).save(file, "PNG")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    rows = {
        "image": [{"bytes": file.getvalue() + bytes([n]), "path": None} for n in range(40)],
        "label": [0, 1] * 20,
    }
    whole = datasets.Dataset.from_dict(rows, features=features)
    whole.save_to_disk(str(tmp_path / "saved"))
    assert np.isfinite(trained(glyphs(2), f"hf:{tmp_path / 'saved'}?streaming=true").val_loss)
    assert "D024" in {found.code for found in glyphs(2).check(data=f"hf:{tmp_path / 'saved'}?streaming=true")}
    whole.to_parquet(str(tmp_path / "x.parquet"))
    with pytest.raises(DataError, match=r"nobody knows how many samples(.|\n)*train.steps=1000"):
        trained(glyphs(2), f"hf:{tmp_path / 'x.parquet'}?streaming=true")
    assert np.isfinite(trained(glyphs(2), f"hf:{tmp_path / 'x.parquet'}?streaming=true", steps=5).val_loss)
