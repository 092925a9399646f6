from __future__ import annotations

import pytest
import torch

from torchgraft.errors import TrainError
from torchgraft.memory.room import CONTEXT, read_size, room_of, spoken


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("24GB", 24 * 10**9),
        ("24GiB", 24 * 2**30),
        ("16000MiB", 16000 * 2**20),
        ("1.5 gb", 1_500_000_000),
        ("80G", 80 * 10**9),
        ("512 B", 512),
        ("0GB", None),
        ("24", None),
        ("many", None),
        ("-3GB", None),
    ],
)
def test_sizes_are_read_with_their_units(text, size):
    assert read_size(text) == size


@pytest.mark.parametrize("text", ["24", "lots", "gpu", "cuda:x", "0GB", ""])
def test_what_is_neither_a_size_nor_a_device_is_told(text):
    with pytest.raises(TrainError, match="neither a size nor a device") as refused:
        room_of(text)
    assert "24GB" in refused.value.hint


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one here")
def test_a_device_that_is_not_here_is_told():
    with pytest.raises(TrainError, match="no device 'cuda' here"):
        room_of("cuda")


def test_the_cpu_has_what_is_free():
    room = room_of("cpu")
    assert 0 < room.size < 2**45
    assert not room.gpu
    assert room.context == 0


def test_a_size_leaves_room_for_the_context_and_fragments():
    room = room_of("8GiB")
    assert room.holds(room.most)
    assert not room.holds(room.most + 2**20)
    assert room.allowance(0) == CONTEXT


@pytest.mark.parametrize(
    ("size", "words"), [(0, "0 B"), (1536, "1.50 KiB"), (24 * 2**30, "24.0 GiB"), (300 * 2**20, "300 MiB")]
)
def test_sizes_are_spoken_with_three_figures(size, words):
    assert spoken(size) == words
