from __future__ import annotations

import hashlib

import pytest
import torch
from torch import nn
from torchvision import models

import torchgraft as tg
from torchgraft.errors import SourceError, TorchgraftWarning
from torchgraft.sources import parse_source
from torchgraft.weights.skeleton import on_meta


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A cache of torch.hub that holds random weights under the names of real ones."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    (tmp_path / "checkpoints").mkdir()

    def keep(weights, **extra) -> nn.Module:
        trained = models.get_model(weights[0], weights=None, **extra)
        url = models.get_model_weights(weights[0])[weights[1]].url
        torch.save(trained.state_dict(), tmp_path / "checkpoints" / url.rpartition("/")[2])
        return trained

    return keep


def same(a: nn.Module, b: nn.Module) -> bool:
    a, b = a.state_dict(), b.state_dict()
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.filterwarnings("ignore:.*promises the sha256")
@pytest.mark.parametrize(
    ("name", "weights", "extra"),
    [
        ("regnet_y_400mf", "IMAGENET1K_V2", {}),
        ("shufflenet_v2_x0_5", "IMAGENET1K_V1", {}),
        ("densenet121", "IMAGENET1K_V1", {}),
        ("lraspp_mobilenet_v3_large", "COCO_WITH_VOC_LABELS_V1", {"weights_backbone": None, "num_classes": 21}),
        ("ssdlite320_mobilenet_v3_large", "COCO_V1", {"weights_backbone": None, "num_classes": 91}),
        ("r3d_18", "KINETICS400_V1", {}),
    ],
)
def test_models_of_every_sort_come_straight_from_torchs_cache(hub, name, weights, extra):
    trained = hub((name, weights), **extra)
    loaded = parse_source(f"{name}@{weights}").load().module
    assert same(loaded, trained)
    assert not on_meta(loaded)


def test_a_cached_file_is_held_to_the_hash_in_its_name(hub):
    hub(("resnet18", "IMAGENET1K_V1"))
    with pytest.warns(TorchgraftWarning, match=r"promises the sha256 f37072fd(.|\n)*delete it"):
        parse_source("resnet18").load()


def test_a_damaged_file_in_the_cache_is_told(hub, tmp_path):
    hub(("resnet18", "IMAGENET1K_V1"))
    (file,) = (tmp_path / "checkpoints").iterdir()
    file.write_bytes(file.read_bytes()[:5000])
    with (
        pytest.warns(TorchgraftWarning, match="promises"),
        pytest.raises(SourceError, match="damaged or cut off"),
    ):
        parse_source("resnet18").load()


def test_code_in_a_cached_file_is_never_run(hub, tmp_path):
    hub(("resnet18", "IMAGENET1K_V1"))
    (file,) = (tmp_path / "checkpoints").iterdir()
    torch.save(nn.Linear(2, 2), file)
    with pytest.warns(TorchgraftWarning), pytest.raises(SourceError, match="code from files is never run"):
        parse_source("resnet18").load()


# the old spelling


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("resnet50@pretrained", "torchvision:resnet50@IMAGENET1K_V1"),
        ("torchvision:resnet50@pretrained", "torchvision:resnet50@IMAGENET1K_V1"),
        ("resnet50(pretrained=True)", "torchvision:resnet50@IMAGENET1K_V1"),
        ("resnet50(True)", "torchvision:resnet50@IMAGENET1K_V1"),
        ("torchvision.models.resnet50(pretrained=False)", "torchvision:resnet50@none"),
        ("models.resnet50()", "torchvision:resnet50@none"),
        ("models.resnet50(weights='IMAGENET1K_V2')", "torchvision:resnet50@IMAGENET1K_V2"),
        ("models.resnet50(weights=models.ResNet50_Weights.IMAGENET1K_V2)", "torchvision:resnet50@IMAGENET1K_V2"),
        ("models.resnet50(weights=ResNet50_Weights.DEFAULT)", "torchvision:resnet50@DEFAULT"),
        ("torchvision.models.get_model('resnet50', weights=None)", "torchvision:resnet50@none"),
        (
            "torch.hub.load('pytorch/vision:v0.10.0', 'resnet50', pretrained=True)",
            "torchvision:resnet50@IMAGENET1K_V1",
        ),
        ("keypointrcnn_resnet50_fpn@pretrained", "torchvision:keypointrcnn_resnet50_fpn@COCO_V1"),
        ("timm.create_model('resnet18', pretrained=True)", "timm:resnet18"),
        ("timm.create_model('resnet18')", "timm:resnet18@none"),
        ("AutoModel.from_pretrained('me/bert')", "transformers:me/bert#AutoModel"),
    ],
)
def test_the_spelling_of_other_libraries_is_understood_and_explained(text, meant):
    with pytest.warns(TorchgraftWarning, match=r"is read as|means"):
        assert str(parse_source(text)) == meant


def test_pretrained_means_the_weights_of_that_time_and_the_newer_ones_are_named():
    with pytest.warns(
        TorchgraftWarning, match=r"means torchvision:resnet50@IMAGENET1K_V1; .*resnet50@IMAGENET1K_V2"
    ):
        parse_source("resnet50@pretrained")


@pytest.mark.parametrize("text", ["resnet18", "timm:resnet18.a1_in1k", "file:a.pt@resnet18", "python:a.b:c"])
def test_what_is_written_as_it_should_be_is_not_touched(text):
    assert str(parse_source(text)).endswith(text)


@pytest.mark.filterwarnings("ignore:.*promises the sha256")
def test_pretrained_as_an_argument_is_understood_and_explained(hub):
    with pytest.warns(TorchgraftWarning, match="pretrained=False is written 'torchvision:resnet18@none'"):
        assert tg.load("resnet18", pretrained=False).recipe.base == "torchvision:resnet18@none"
    trained = hub(("resnet18", "IMAGENET1K_V1"))
    with pytest.warns(TorchgraftWarning, match="means torchvision:resnet18@IMAGENET1K_V1"):
        assert same(tg.load("resnet18", pretrained=True).module, trained)
    with pytest.raises(SourceError, match="names its weights already"):
        tg.load("resnet18@none", pretrained=True)


def test_sizes_in_a_call_are_told_to_be_edits():
    with pytest.raises(SourceError, match="sizes are changed by edits, such as head"):
        tg.load("resnet18(num_classes=10)")


# what the weights say of their images


def test_segmentation_and_video_give_what_they_have():
    segment = parse_source("lraspp_mobilenet_v3_large@none").load()
    assert (segment.input, segment.preprocess.resize) == ((3, 520, 520), 520)
    video = parse_source("r3d_18@none").load()
    assert (video.input, video.preprocess.size) == ((3, 16, 112, 112), (112, 112))
    assert video.preprocess.mean == (0.43216, 0.394666, 0.37645)
    assert parse_source("ssdlite320_mobilenet_v3_large@none").load().preprocess is None


def test_quantised_models_are_loaded_before_their_quantisation(hub, tmp_path):
    trained = models.quantization.shufflenet_v2_x0_5(weights=None, quantize=False)
    url = models.ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1.url
    torch.save(trained.state_dict(), tmp_path / "checkpoints" / url.rpartition("/")[2])
    with pytest.warns(TorchgraftWarning, match="promises"):
        assert same(parse_source("quantized_shufflenet_v2_x0_5").load().module, trained)


def test_offers_name_weights_and_what_is_here(hub):
    hub(("resnet18", "IMAGENET1K_V1"))
    offers = {one.name: one for one in type(parse_source("resnet18")).offers()}
    assert offers["resnet50"].weights == ("IMAGENET1K_V2", "IMAGENET1K_V1")
    assert offers["resnet18"].there == "IMAGENET1K_V1"
    assert offers["resnet50"].there == ""


# without memory for the parameters


def test_a_skeleton_costs_no_weights_and_is_checked_and_filled(tmp_path):
    g = tg.load("regnet_y_400mf", input=(3, 64, 64), meta=True)
    assert all(one.is_meta for one in g.module.parameters())
    assert g.check() == ()
    trained = models.regnet_y_400mf(weights=None)
    torch.save(trained.state_dict(), tmp_path / "w.pt")
    assert g.load_weights(tmp_path / "w.pt").whole
    assert same(g.module, trained)


def test_a_hash_of_a_file_is_checked_where_the_source_says_one(tmp_path):
    path = tmp_path / "w.pt"
    torch.save(models.shufflenet_v2_x0_5(weights=None).state_dict(), path)
    real = hashlib.sha256(path.read_bytes()).hexdigest()
    for text in (
        f"file:{path}#sha256={real}@shufflenet_v2_x0_5",
        f"file:{path}@shufflenet_v2_x0_5#sha256={real[:12]}",
    ):
        assert parse_source(text).load().text == text
    with pytest.raises(SourceError, match="its sha256 is"):
        parse_source(f"file:{path}#sha256={'0' * 64}@shufflenet_v2_x0_5").load()
