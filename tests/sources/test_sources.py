from __future__ import annotations

import sys

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models

import torchgraft as tg
from torchgraft.errors import SourceError, TorchgraftWarning
from torchgraft.sources import parse_source


@pytest.fixture
def offline(monkeypatch):
    """No server can be reached, and hubs are told so."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def test_a_bare_name_means_torchvision():
    assert str(parse_source("resnet18")) == "torchvision:resnet18"
    assert str(parse_source("timm:resnet18.a1_in1k")) == "timm:resnet18.a1_in1k"


def test_random_weights_are_the_same_for_the_same_seed_and_move_no_generator():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, again = (parse_source("resnet18@none").load(seed=5).module for _ in range(2))
    assert same(first, again)
    assert not same(first, parse_source("resnet18@none").load(seed=6).module)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.filterwarnings("ignore:.*promises the sha256")
def test_weights_that_are_in_torchs_cache_are_loaded_from_there(tmp_path, monkeypatch, offline):
    weights = models.ResNet18_Weights.IMAGENET1K_V1
    trained = models.resnet18(weights=None)
    home = tmp_path / "checkpoints"
    home.mkdir()
    torch.save(trained.state_dict(), home / weights.url.rpartition("/")[2])
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    for text in ("resnet18", "torchvision:resnet18@DEFAULT", "torchvision:resnet18@IMAGENET1K_V1"):
        base = parse_source(text).load()
        assert same(base.module, trained)
    assert base.input == (3, 224, 224)
    assert base.preprocess.size == (224, 224)
    assert base.preprocess.resize == 256
    assert base.preprocess.mean == (0.485, 0.456, 0.406)


def test_weights_that_must_be_downloaded_without_a_network_are_told(tmp_path, monkeypatch, offline):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    with pytest.raises(SourceError, match=r"weights can't be loaded(.|\n)*@none"):
        parse_source("resnet18").load()


def test_timms_weights_without_a_network_are_told(tmp_path, monkeypatch, offline):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(SourceError, match="weights can't be loaded"):
        parse_source("timm:resnet18").load()


def test_timm_gives_its_own_preparation_of_images():
    base = parse_source("timm:vit_tiny_patch16_224@none").load()
    config = timm.create_model("vit_tiny_patch16_224").pretrained_cfg
    assert base.input == (3, 224, 224)
    assert base.preprocess.mean == tuple(config["mean"])
    assert base.preprocess.interpolation == config["interpolation"]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("resnet81", "did you mean resnet18"),
        ("torchvison:resnet18", "did you mean torchvision"),
        ("torchvision:", "names no model"),
        ("resnet18@IMAGENET1K_V3", "did you mean IMAGENET1K_V1"),
        ("timm:resnet81", "did you mean"),
        ("timm:resnet18@a1_in1k", r"timm:resnet18\.a1_in1k"),
        ("timm:resnet18.a1_in2k", r"timm's resnet18 has no weights 'a1_in2k'(.|\n)*did you mean a1_in1k"),
        ("timm:resnet18.xyz@none", r"no weights 'xyz'(.|\n)*one of a1_in1k, a2_in1k"),
        ("timm:qqqqqqqq", r"torchgraft sources 'timm:\*'"),
        ("qqqqqqqq", r"torchgraft sources 'torchvision:\*'"),
        ("python:pkg.mod:factory", "runs code of your own"),
        ("file:nowhere.safetensors@resnet18", "there is no file"),
    ],
)
def test_a_source_that_can_not_be_had_says_what_to_do(text, match):
    with pytest.raises(SourceError, match=match):
        tg.load(text)


# python


@pytest.fixture
def package(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def net():\n    return nn.Linear(3, 4)\n"
        "def fails():\n    raise KeyError('x')\n"
        "def number():\n    return 3\n"
        "def leaves():\n    raise SystemExit(3)\n"
    )
    (tmp_path / "broken.py").write_text("def net(:\n")
    (tmp_path / "failing.py").write_text("1 / 0\n")
    (tmp_path / "leaving.py").write_text("raise SystemExit(3)\n")
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("mine", None)


def test_a_factory_of_ones_own_runs_where_it_is_trusted(package):
    assert isinstance(tg.load("python:mine:net", trust=True).module, nn.Linear)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("python:mine", "names no factory(.|\n)*python:mine:net, "),
        ("python:mines:net", "can't be imported"),
        ("python:mine:nett", "did you mean net"),
        ("python:mine:fails", "the factory failed: KeyError"),
        ("python:broken:net", "'broken' can't be imported: SyntaxError"),
        ("python:failing:net", "'failing' can't be imported: ZeroDivisionError"),
        ("python:leaving:net", "'leaving' can't be imported: SystemExit"),
        ("python::x", "'' can't be imported: ValueError"),
        ("python:.mine:net", "'.mine' can't be imported: TypeError"),
        ("python:..:net", "'..' can't be imported"),
        ("python:mine:", "'mine' has no ''(.|\n)*python:mine:net, "),
        ("python:mine:leaves", "the factory failed: SystemExit"),
        ("python:mine:number", "gave an int, not a torch.nn.Module"),
    ],
)
def test_a_factory_that_does_not_serve_is_told(package, text, match):
    with pytest.raises(SourceError, match=match):
        tg.load(text, trust=True)


def test_code_of_ones_own_is_emptied_after_it_ran_and_takes_weights_of_a_file(package, tmp_path):
    g = tg.load("python:mine:net", trust=True, meta=True, input=(3,))
    assert g.module.weight.is_meta
    assert not tg.load("python:mine:net", trust=True).module.weight.is_meta
    save_file(nn.Linear(3, 4).state_dict(), tmp_path / "w.safetensors")
    assert not tg.load(f"file:{tmp_path}/w.safetensors@python:mine:net", trust=True).module.weight.is_meta


# file


def test_weights_from_a_safetensors_file_go_into_the_architecture_that_is_named(tmp_path):
    trained = models.resnet18(weights=None)
    save_file(trained.state_dict(), tmp_path / "w.safetensors")
    assert same(parse_source(f"file:{tmp_path}/w.safetensors@resnet18").load().module, trained)


def test_the_architecture_may_stand_in_the_file(tmp_path):
    trained = models.resnet18(weights=None)
    save_file(trained.state_dict(), tmp_path / "w.safetensors", {"base": "torchvision:resnet18"})
    assert same(parse_source(f"file:{tmp_path}/w.safetensors").load().module, trained)


def test_older_files_are_read_without_running_code(tmp_path):
    trained = models.resnet18(weights=None)
    torch.save(trained.state_dict(), tmp_path / "w.pt")
    assert same(parse_source(f"file:{tmp_path}/w.pt@resnet18").load().module, trained)


@pytest.mark.parametrize(
    ("wrap", "said"),
    [
        (lambda state: {"state_dict": state, "epoch": 3}, r'lie in \["state_dict"\] of a checkpoint'),
        (lambda state: {"model": {"model": state}}, r'lie in \["model"\]\["model"\]'),
        (
            lambda state: {f"module.{name}": one for name, one in state.items()},
            "122 names with 'module.' too much",
        ),
        (lambda state: {"model": state, "ema": state}, r'\["ema"\] lie beside them'),
    ],
)
def test_what_is_taken_out_of_a_checkpoint_is_said(tmp_path, wrap, said):
    trained = models.resnet18(weights=None)
    torch.save(wrap(trained.state_dict()), tmp_path / "w.pt")
    with pytest.warns(TorchgraftWarning, match=said):
        assert same(parse_source(f"file:{tmp_path}/w.pt@resnet18").load().module, trained)


def test_a_file_whose_name_promises_another_hash_is_told(tmp_path):
    torch.save(models.resnet18(weights=None).state_dict(), tmp_path / "resnet18-abcdef12.pth")
    with pytest.warns(TorchgraftWarning, match="its name promises the sha256 abcdef12"):
        parse_source(f"file:{tmp_path}/resnet18-abcdef12.pth@resnet18").load()


def test_a_pickled_model_is_refused(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "w.pt")
    with pytest.raises(SourceError, match="more than tensors, and code from files is never run") as refused:
        parse_source(f"file:{tmp_path}/w.pt@resnet18").load()
    assert "weights_only" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "do"),
    [("w.safetensors", "file:w.safetensors@resnet18"), ("recipe.yaml", r"Recipe\.read\('recipe\.yaml'\)")],
)
def test_a_file_in_the_place_of_a_model_is_told_what_it_is(text, do):
    with pytest.raises(SourceError, match=do):
        parse_source(text)


def test_weights_of_another_model_are_refused_and_counted(tmp_path):
    save_file(models.resnet34(weights=None).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(SourceError, match=r"not for this model: \d+ unexpected \(such as layer1\.2"):
        parse_source(f"file:{tmp_path}/w.safetensors@resnet18").load()


def test_a_truncated_file_is_refused(tmp_path):
    save_file(models.resnet18(weights=None).state_dict(), tmp_path / "w.safetensors")
    data = (tmp_path / "w.safetensors").read_bytes()
    (tmp_path / "w.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(SourceError, match="the weights can't be read"):
        parse_source(f"file:{tmp_path}/w.safetensors@resnet18").load()


def test_a_missing_file_names_the_nearest(tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "weights.safetensors")
    with pytest.raises(SourceError, match=r"did you mean weights\.safetensors"):
        parse_source(f"file:{tmp_path}/weigths.safetensors@resnet18").load()


def test_a_file_of_a_backbone_alone_gets_new_last_layers_and_says_so(tmp_path):
    trained = models.resnet18(weights=None).state_dict()
    backbone = {name: one for name, one in trained.items() if not name.startswith("fc")}
    path = tmp_path / "backbone.safetensors"
    save_file(backbone, path)
    with pytest.warns(TorchgraftWarning, match=r"fc\.weight, fc\.bias are not in it and are drawn anew"):
        first = parse_source(f"file:{path}@resnet18").load(seed=3).module
    with pytest.warns(TorchgraftWarning):
        again = parse_source(f"file:{path}@resnet18").load(seed=3).module
    assert all(torch.equal(first.state_dict()[name], one) for name, one in backbone.items())
    assert torch.equal(first.fc.weight, again.fc.weight)
    assert first.fc.weight.any()


def test_a_file_without_a_layer_in_the_middle_is_refused(tmp_path):
    trained = models.resnet18(weights=None).state_dict()
    path = tmp_path / "part.safetensors"
    save_file({name: one for name, one in trained.items() if not name.startswith(("fc", "layer3.1"))}, path)
    with pytest.raises(SourceError, match="missing"):
        parse_source(f"file:{path}@resnet18").load()
