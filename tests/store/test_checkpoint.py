"""A training state goes to one file and comes back the same, or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from store_states import WITH_DISK, same, states

from torchgraft.errors import StoreError
from torchgraft.store import load_state, save_state

NOTES = st.dictionaries(st.text(max_size=8), st.text(st.characters(codec="utf-8"), max_size=20), max_size=3)


@WITH_DISK
@given(states(), NOTES)
def test_any_state_comes_back_bit_for_bit(state, notes):
    with TemporaryDirectory() as folder:
        save_state(Path(folder) / "last.safetensors", state, notes)
        loaded, metadata = load_state(Path(folder) / "last.safetensors")
        assert metadata == notes
        assert loaded.keys() == state.keys()
        assert all(same(loaded[name], state[name]) for name in state)


@WITH_DISK
@given(states())
def test_ties_come_back_as_ties_and_nothing_else_is_tied(state):
    with TemporaryDirectory() as folder:
        save_state(Path(folder) / "last.safetensors", state, {})
        loaded, _ = load_state(Path(folder) / "last.safetensors")
        filled = sorted(name for name in state if state[name].numel())
        for one in filled:
            for other in filled:
                tied = state[one] is state[other]
                assert (loaded[one].data_ptr() == loaded[other].data_ptr()) == tied


def test_a_tied_tensor_is_stored_once(tmp_path):
    weight = torch.randn(200, 100)
    save_state(tmp_path / "a", {"embed": weight, "head": weight}, {})
    assert (tmp_path / "a").stat().st_size < 1.1 * weight.nbytes


def test_other_programs_can_read_the_file(tmp_path):
    save_state(tmp_path / "a.safetensors", {"w": torch.arange(3.0)}, {"epoch": "4"})
    assert same(load_file(tmp_path / "a.safetensors")["w"], torch.arange(3.0))


def test_a_loaded_state_outlives_the_file_that_replaces_it(tmp_path):
    path = tmp_path / "last.safetensors"
    save_state(path, {"w": torch.ones(1000)}, {})
    loaded, _ = load_state(path)
    save_state(path, {"w": torch.zeros(1000)}, {})
    assert same(loaded["w"], torch.ones(1000))


def test_training_on_a_loaded_state_leaves_the_file_alone(tmp_path):
    save_state(tmp_path / "a", {"w": torch.ones(1000)}, {})
    loaded, _ = load_state(tmp_path / "a")
    loaded["w"].zero_()
    assert same(load_state(tmp_path / "a")[0]["w"], torch.ones(1000))


def test_missing_folders_are_made(tmp_path):
    save_state(tmp_path / "runs" / "one" / "last.safetensors", {}, {})
    assert load_state(tmp_path / "runs" / "one" / "last.safetensors") == ({}, {})


def test_a_flipped_bit_anywhere_is_noticed(tmp_path):
    path = tmp_path / "a"
    save_state(path, {"w": torch.randn(4), "b": torch.zeros(2, dtype=torch.int64)}, {"epoch": "4"})
    whole = path.read_bytes()
    for place in range(len(whole)):
        torn = bytearray(whole)
        torn[place] ^= 1
        path.write_bytes(torn)
        with pytest.raises(StoreError, match="damaged") as refusal:
            load_state(path)
        assert refusal.value.where == str(path)


def test_a_file_cut_short_at_any_length_is_noticed(tmp_path):
    path = tmp_path / "a"
    save_state(path, {"w": torch.randn(4)}, {"epoch": "4"})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(StoreError, match="damaged"):
            load_state(path)


def test_a_safetensors_file_of_another_program_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"w": torch.ones(2)}, tmp_path / "a")
    with pytest.raises(StoreError, match="not what save_state wrote"):
        load_state(tmp_path / "a")


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(StoreError, match="missing"):
        load_state(tmp_path / "a")


def test_a_folder_in_place_of_the_file_is_refused(tmp_path):
    with pytest.raises(StoreError, match="can't be read"):
        load_state(tmp_path)
    with pytest.raises(StoreError, match="can't be saved"):
        save_state(tmp_path, {}, {})
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "runs").write_text("mine")
    with pytest.raises(StoreError, match="a file stands where a folder should be"):
        save_state(tmp_path / "runs" / "last.safetensors", {}, {})
    assert (tmp_path / "runs").read_text() == "mine"


def test_a_state_that_can_not_be_stored_leaves_the_last_one(tmp_path):
    path = tmp_path / "a"
    save_state(path, {"w": torch.ones(1)}, {})
    for name, tensor in {
        "meta": torch.ones(1, device="meta"),
        "wide": torch.ones(1, dtype=torch.complex128),
        "__metadata__": torch.ones(1),
    }.items():
        with pytest.raises(StoreError) as refusal:
            save_state(path, {"w": torch.zeros(1), name: tensor}, {})
        assert refusal.value.where == name
    assert same(load_state(path)[0]["w"], torch.ones(1))
    assert [each.name for each in tmp_path.iterdir()] == ["a"]


def test_text_that_is_not_unicode_is_refused(tmp_path):
    for state, notes in (({"caf\udce9": torch.ones(1)}, {}), ({}, {"folder": "caf\udce9"})):
        with pytest.raises(StoreError, match="not valid Unicode"):
            save_state(tmp_path / "a", state, notes)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ["torchgraft.ties", "torchgraft.sha256"])
def test_metadata_keys_of_torchgraft_are_refused(tmp_path, key):
    with pytest.raises(StoreError, match="keeps this metadata key"):
        save_state(tmp_path / "a", {}, {key: ""})


def test_what_a_killed_save_left_is_removed_after_an_hour(tmp_path):
    old, new, foreign = (tmp_path / name for name in (".a.0000.tmp", ".a.1111.tmp", ".b.0000.tmp"))
    for each in (old, new, foreign):
        each.write_bytes(b"torn")
    for each in (old, foreign):
        os.utime(each, (time.time() - 4000,) * 2)
    save_state(tmp_path / "a", {}, {})
    assert {each.name for each in tmp_path.iterdir()} == {"a", new.name, foreign.name}


LIMITED = """
import resource, signal, sys, torch
from torchgraft.errors import StoreError
from torchgraft.store import save_state
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
save_state(sys.argv[1], {"w": torch.ones(100)}, {})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    save_state(sys.argv[1], {"w": torch.ones(1_000_000)}, {})
except StoreError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on file sizes")
def test_a_file_over_the_size_limit_leaves_the_last_one(tmp_path):
    path = tmp_path / "last.safetensors"
    told = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, check=True
    ).stdout
    assert "limit on file sizes" in told
    assert "4.00 MB are needed" in told
    assert same(load_state(path)[0]["w"], torch.ones(100))
    assert [each.name for each in tmp_path.iterdir()] == ["last.safetensors"]
