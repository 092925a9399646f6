from __future__ import annotations

import hashlib
import os

import huggingface_hub
import pytest

from torchgraft.errors import SourceError
from torchgraft.weights.hashes import check_cached, misnamed, sha256_of, verify


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "w.bin"
    path.write_bytes(b"weights")
    return path


def test_a_file_is_held_to_the_hash_that_is_given(file):
    real = hashlib.sha256(b"weights").hexdigest()
    for asked in (real, real[:8], real.upper(), f"sha256:{real}"):
        verify(file, asked)


@pytest.mark.parametrize(
    ("asked", "match"),
    [("0" * 64, r"its sha256 is [0-9a-f]{64}, not 0000"), ("xyz", "is no sha256"), ("abc", "is no")],
)
def test_another_hash_is_refused(file, asked, match):
    with pytest.raises(SourceError, match=match):
        verify(file, asked)


def test_a_file_that_changed_is_read_again(file):
    before = sha256_of(file)
    file.write_bytes(b"other weights")
    assert sha256_of(file) != before


def test_a_blob_in_the_cache_of_hugging_face_is_held_to_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    home = tmp_path / "models--me--net"
    (home / "blobs").mkdir(parents=True)
    (home / "snapshots" / "abc").mkdir(parents=True)
    blob = home / "blobs" / hashlib.sha256(b"weights").hexdigest()
    blob.write_bytes(b"weights")
    os.symlink(blob, home / "snapshots" / "abc" / "model.safetensors")
    check_cached("me/net")
    assert misnamed(home / "snapshots" / "abc" / "model.safetensors") is None
    blob.write_bytes(b"weighty")
    with pytest.raises(SourceError, match="the cached file is damaged"):
        check_cached("me/net")
    check_cached("me/other")
