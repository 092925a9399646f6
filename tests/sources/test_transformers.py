from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import torchgraft as tg
from torchgraft.errors import SourceError, TorchgraftWarning
from torchgraft.sources import parse_source
from torchgraft.weights.skeleton import on_meta

transformers = pytest.importorskip("transformers")

TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A tiny BERT, its head tied to its embedding, as `save_pretrained` keeps it, in several parts."""
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    model = transformers.BertForMaskedLM(transformers.BertConfig(**TINY, vocab_size=60))
    model.save_pretrained(folder, max_shard_size="8KB")
    (folder / "tokenizer_config.json").write_text("{}")
    return folder, model


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vit")
    model = transformers.ViTForImageClassification(
        transformers.ViTConfig(**TINY, image_size=32, patch_size=8, num_labels=5)
    )
    model.save_pretrained(folder)
    images = {
        "do_resize": True, "do_normalize": True, "size": {"height": 32, "width": 32}, "resample": 2,
        "image_mean": [0.5, 0.4, 0.3], "image_std": [0.1, 0.2, 0.3],
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(images))
    return folder, model


def same(a: nn.Module, b: nn.Module) -> bool:
    a, b = a.state_dict(), b.state_dict()
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def test_a_folder_gives_the_class_that_its_configuration_names_with_weights_of_several_parts(bert):
    folder, model = bert
    assert len(list(folder.glob("*.safetensors"))) > 1
    base = parse_source(f"transformers:{folder}").load()
    assert type(base.module) is transformers.BertForMaskedLM
    assert same(base.module, model)
    assert base.module.cls.predictions.decoder.weight is base.module.bert.embeddings.word_embeddings.weight
    assert base.tokenizer == str(folder)


def test_its_example_is_traced(bert):
    g = tg.load(f"transformers:{bert[0]}")
    assert g.trace().output_shapes()[0] == (2, 8, 60)
    assert not [one for one in g.check() if one.severity != "note"]


def test_another_class_is_asked_for_and_what_it_lacks_is_told(bert):
    with pytest.warns(TorchgraftWarning, match=r"4 tensors are not in the weights and were drawn anew \(such as"):
        base = parse_source(f"transformers:{bert[0]}#AutoModelForSequenceClassification").load(seed=3)
    assert type(base.module) is transformers.BertForSequenceClassification
    assert not on_meta(base.module)
    with pytest.warns(TorchgraftWarning):
        again = parse_source(f"transformers:{bert[0]}#AutoModelForSequenceClassification").load(seed=3)
    assert same(base.module, again.module)


def test_a_configuration_alone_draws_random_weights_from_the_seed(bert):
    text = f"transformers:{bert[0]}/config.json@none"
    one, two, other = (parse_source(text).load(seed=seed).module for seed in (1, 1, 2))
    assert same(one, two)
    assert not same(one, other)
    with pytest.raises(SourceError, match="a configuration alone has no weights"):
        parse_source(f"transformers:{bert[0]}/config.json").load()


def test_training_in_place_does_not_reach_the_files(bert, tmp_path):
    folder = shutil.copytree(bert[0], tmp_path / "copy")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    module = parse_source(f"transformers:{folder}").load().module
    with torch.no_grad():
        for one in module.parameters():
            one.add_(1)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_images_come_with_their_preparation(vit):
    folder, model = vit
    base = parse_source(f"transformers:{folder}").load()
    assert same(base.module, model)
    assert (base.input, base.example) == ((3, 32, 32), None)
    assert base.preprocess.model_dump(include={"size", "resize", "mean", "std", "interpolation"}) == {
        "size": (32, 32), "resize": None, "mean": (0.5, 0.4, 0.3), "std": (0.1, 0.2, 0.3), "interpolation": "bilinear",
    }  # fmt: skip
    assert tg.load(base).trace().output_shapes() == [(2, 5)]


@pytest.mark.parametrize(
    ("held", "wanted"),
    [
        ({"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}, "do_center_crop": True}, ((224, 224), 224, "crop")),
        ({"size": {"shortest_edge": 256}, "crop_size": 224, "do_center_crop": True}, ((224, 224), 256, "crop")),
        ({"size": {"height": 248, "width": 248}, "crop_size": {"height": 224, "width": 224}, "do_center_crop": True}, ((224, 224), 248, "stretch")),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875}, ((224, 224), 256, "crop")),
        ({"size": {"shortest_edge": 384}, "crop_pct": 0.875}, ((384, 384), None, "crop")),
        ({"size": 224}, ((224, 224), None, "crop")),
        ({"image_processor": {"size": {"height": 48, "width": 64}}}, ((48, 64), None, "crop")),
    ],
)  # fmt: skip
def test_every_way_in_which_sizes_are_written_is_read(tmp_path, held, wanted):
    from torchgraft.sources.takes import preprocess_of

    (tmp_path / "preprocessor_config.json").write_text(json.dumps(held))
    read = preprocess_of(str(tmp_path / "preprocessor_config.json"), transformers.ViTConfig())
    assert (read.size, read.resize, read.frame) == wanted


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("transformers:bret@none", "no type of model 'bret'(.|\n)*did you mean bert"),
        ("transformers:./nowhere", r"there is no nowhere/config\.json"),
        (
            "transformers:bert@none#AutoModelForSequenceClasification",
            "did you mean AutoModelForSequenceClassification",
        ),
        ("transformers:bert@none#AutoTokenizer", "no model class 'AutoTokenizer'"),
    ],
)
def test_what_can_not_be_had_says_what_to_do(text, match, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=match):
        parse_source(text).load()


def test_code_in_weights_is_never_run(bert, tmp_path):
    shutil.copy(bert[0] / "config.json", tmp_path)
    torch.save(nn.Linear(2, 2), tmp_path / "pytorch_model.bin")
    with pytest.raises(SourceError, match="code from files is never run"):
        parse_source(f"transformers:{tmp_path}").load()


def test_code_beside_a_configuration_is_never_run(tmp_path):
    config = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "mine.py").write_text("raise SystemExit('code was run')\n")
    with pytest.raises(SourceError, match=r"comes with code of its own, which is never run(.|\n)*python:"):
        parse_source(f"transformers:{tmp_path}").load()


def test_without_the_library_the_command_that_brings_it_is_named(monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SourceError, match=r"pip install 'torchgraft\[transformers\]'"):
        parse_source("transformers:bert@none").load()


def test_weights_of_a_file_go_into_a_configuration(bert, tmp_path):
    state = {name: one.clone() for name, one in bert[1].state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    base = parse_source(f"file:{tmp_path}/w.safetensors@transformers:{bert[0]}/config.json@none").load()
    assert same(base.module, bert[1])
    assert base.module.cls.predictions.decoder.weight is base.module.bert.embeddings.word_embeddings.weight
    assert base.example is not None


@pytest.mark.parametrize("kind", ["gpt2", "vit", "clip", "whisper"])
def test_types_of_every_sort_are_traced_without_memory(kind):
    g = tg.load(f"transformers:{kind}@none", meta=True)
    assert all(one.is_meta for one in g.module.parameters())
    assert not [one for one in g.check() if one.is_error]


def test_offers_are_types_and_what_is_cached():
    names = {one.name for one in type(parse_source("transformers:bert@none")).offers()}
    assert {"bert@none", "gpt2@none", "vit@none"} <= names
