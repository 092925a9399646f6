from __future__ import annotations

import hashlib
import io
import json
import time
from argparse import Namespace
from unittest import mock

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from torchgraft.errors import SourceError
from torchgraft.weights.fit import fit
from torchgraft.weights.hashes import misnamed
from torchgraft.weights.reading import note, read
from torchgraft.weights.unwrap import states

LAYER = nn.Linear(20, 30)
STATE = LAYER.state_dict()


def cut(path, **kwargs):
    whole = io.BytesIO()
    torch.save({"w": torch.randn(1000)}, whole, **kwargs)
    path.write_bytes(whole.getvalue()[:2000])


def exported(path):
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),)), path)


def distributed(path):
    path.mkdir()
    (path / ".metadata").write_bytes(b"x")
    (path / "__0_0.distcp").write_bytes(b"x")


def test_a_file_that_was_saved_on_a_gpu_opens_anywhere(tmp_path):
    with mock.patch("torch.serialization.location_tag", return_value="cuda:0"):
        torch.save(STATE, tmp_path / "gpu.pt")
    assert read(tmp_path / "gpu.pt")["weight"].device.type == "cpu"


def test_settings_and_figures_beside_the_weights_are_read_as_data(tmp_path):
    torch.save({"model": STATE, "args": Namespace(lr=0.1), "best": np.float64(0.9)}, tmp_path / "w.pth")
    assert read(tmp_path / "w.pth")["args"].lr == 0.1


def test_files_in_several_parts_are_joined(tmp_path):
    for name in STATE:
        save_file({name: STATE[name]}, tmp_path / f"{name}.safetensors")
    index = {"weight_map": {name: f"{name}.safetensors" for name in STATE}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert set(read(tmp_path / "model.safetensors.index.json")) == set(STATE)


def test_parts_of_different_versions_are_refused(tmp_path):
    save_file({"weight": STATE["weight"]}, tmp_path / "a.safetensors")
    index = {"weight_map": dict.fromkeys(STATE, "a.safetensors")}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(SourceError, match=r"1 tensors that the index names are not in its files, such as bias"):
        read(tmp_path / "model.safetensors.index.json")


def test_a_missing_part_is_named(tmp_path):
    (tmp_path / "x.index.json").write_text(json.dumps({"weight_map": {"a": "b-00001-of-00002.safetensors"}}))
    with pytest.raises(SourceError, match=r"there is no file .*b-00001-of-00002"):
        read(tmp_path / "x.index.json")


def test_one_part_of_several_is_told_to_be_one(tmp_path):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    part = {name: one for name, one in model.state_dict().items() if name.startswith("0.")}
    save_file(part, tmp_path / "model-00001-of-00003.safetensors")
    found = fit(model, tmp_path / "model-00001-of-00003.safetensors")
    assert found.why_not("")[0].endswith("it is part 1 of 3")
    assert "index.json" in found.why_not("")[1]
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(SourceError, match=r"is a folder(.|\n)*name a file in it: model\.safetensors\.index\.json"):
        read(tmp_path)


def test_tensors_of_a_file_are_mapped_and_not_read_twice(tmp_path):
    torch.save(STATE, tmp_path / "w.pt")
    before = (tmp_path / "w.pt").read_bytes()
    read(tmp_path / "w.pt")["weight"].zero_()
    assert (tmp_path / "w.pt").read_bytes() == before


def test_a_state_dict_of_many_tensors_is_found_in_little_time():
    many = {f"layers.{number}.weight": torch.zeros(2) for number in range(20_000)}
    start = time.process_time()
    assert len(states(many)[0].state) == 20_000
    assert time.process_time() - start < 5  # it once took a minute: each tensor was compared with all others


def test_an_index_may_not_lead_elsewhere(tmp_path):
    (tmp_path / "x.index.json").write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}))
    with pytest.raises(SourceError, match="names a file elsewhere"):
        read(tmp_path / "x.index.json")


@pytest.mark.parametrize(
    ("name", "write", "match"),
    [
        ("a.pt", cut, r"damaged or cut off \(2,000 bytes\)"),
        ("a.pt", lambda path: cut(path, _use_new_zipfile_serialization=False), "damaged or cut off"),
        ("a.pt", lambda path: path.write_bytes(b""), "the file is empty"),
        ("a.pt", lambda path: path.write_text("<!DOCTYPE html><html></html>"), "a web page"),
        ("a.pt", lambda path: path.write_text("version https://git-lfs.github.com/spec/v1"), "Git LFS pointer"),
        ("a.pt", lambda path: path.write_bytes(bytes(range(1, 200))), "no file of weights"),
        (
            "a.pt",
            lambda path: torch.save(nn.Linear(2, 2), path),
            r"never run \(torch\.nn\.modules\.linear\.Linear\)",
        ),
        ("a.safetensors", lambda path: path.write_bytes(b"\x90\x01" + bytes(50)), "damaged or cut off"),
        ("a.safetensors", lambda path: path.mkdir(), "is a folder"),
        ("a.safetensors", lambda path: torch.save(STATE, path), "torch.save under the name of a safetensors file"),
        ("a.h5", lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(50)), "an HDF5 file"),
        ("a.gguf", lambda path: path.write_bytes(b"GGUF" + bytes(50)), "a GGUF file"),
        ("a.pth.gz", lambda path: path.write_bytes(b"\x1f\x8b" + bytes(50)), "packed by gzip"),
        ("a.npz", lambda path: np.savez(path, w=np.ones(3)), r"an archive of numpy arrays"),
        ("a.pt2", lambda path: exported(path), r"an exported program"),
        ("a", lambda path: distributed(path), "a distributed checkpoint"),
    ],
)
def test_what_can_not_be_read_says_why(tmp_path, name, write, match):
    write(tmp_path / name)
    with pytest.raises(SourceError, match=match) as refused:
        read(tmp_path / name)
    assert "weights_only" not in str(refused.value)


def test_a_name_with_a_hash_is_held_to_it(tmp_path):
    torch.save(STATE, tmp_path / "w.pth")
    real = hashlib.sha256((tmp_path / "w.pth").read_bytes()).hexdigest()
    for name in (f"net-{real[:8]}.pth", "net-20240131.pth", "net.pth", "net-small.pth"):
        (tmp_path / name).write_bytes((tmp_path / "w.pth").read_bytes())
        assert real[:8].isdigit() or misnamed(tmp_path / name) is None
    (tmp_path / "net-abcdef12.pth").write_bytes(b"x")
    assert misnamed(tmp_path / "net-abcdef12.pth")[0] == "abcdef12"


def test_a_note_is_read_from_the_metadata(tmp_path):
    save_file(STATE, tmp_path / "w.safetensors", {"base": "resnet18"})
    assert note(tmp_path / "w.safetensors", "base") == "resnet18"
    assert note(tmp_path / "w.pt", "base") == ""


@pytest.mark.parametrize(
    ("held", "inside"),
    [
        (STATE, ()),
        ({"epoch": 3, "state_dict": STATE, "optimizer": {}}, ("state_dict",)),
        ({"net": STATE, "acc": 0.9}, ("net",)),
        ({"model": {"state_dict": STATE}, "args": {"lr": 1}}, ("model", "state_dict")),
        ({"ema": STATE, "model": STATE}, ("model",)),
        ({"whatever": STATE, "lr": torch.tensor(0.1), "step": torch.tensor(3)}, ("whatever",)),
        ((STATE, 3), ("0",)),
        (LAYER, ()),
        ({name: one.numpy() for name, one in STATE.items()}, ()),
        ({"model": LAYER, "epoch": 1}, ("model",)),
    ],
)
def test_the_state_dict_is_found_wherever_it_lies(held, inside):
    found = states(held)[0]
    assert found.inside == inside
    assert set(found.state) == {"weight", "bias"}


def test_an_optimizer_holds_no_weights():
    optimizer = torch.optim.Adam(LAYER.parameters())
    LAYER(torch.randn(2, 20)).sum().backward()
    optimizer.step()
    assert states(optimizer.state_dict()) == []
    assert [one.inside for one in states({"optimizer": optimizer.state_dict(), "model": STATE})] == [("model",)]
    with pytest.raises(SourceError, match="the state of an optimizer"):
        fit(LAYER, optimizer.state_dict())


def test_of_several_the_one_that_fits_is_taken():
    other = nn.Linear(5, 6).state_dict()
    found = fit(LAYER, {"model": other, "generator": STATE})
    assert (found.found.inside, [one.inside for one in found.also]) == (("generator",), [("model",)])


@pytest.mark.parametrize("held", [42, [], {}, {"epoch": 3}])
def test_what_holds_no_weights_is_refused(held):
    with pytest.raises(SourceError, match=r"no weights|no state dict"):
        fit(LAYER, held)


@pytest.mark.parametrize("text", ["hello world, this is text\n", "e1\n", "{}"])
def test_a_file_of_text_is_told_to_be_none_of_weights(tmp_path, text):
    (tmp_path / "w.pt").write_text(text)
    with pytest.raises(SourceError, match="no file of weights"):
        read(tmp_path / "w.pt")
