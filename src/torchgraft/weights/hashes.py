"""The sha256 of files of weights: what a name, a cache or the user promises, against what is there."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from pathlib import Path

from torchgraft.errors import SourceError

__all__ = ["cached", "check_cached", "misnamed", "sha256_of", "verify"]


def misnamed(path: str | os.PathLike[str]) -> tuple[str, str] | None:
    """Give the hash that a file's name promises and the one it has, where they differ.

    Names such as `resnet18-f37072fd.pth` end in the first digits of the file's sha256: torch.hub's own rule,
    eight digits at the least. Eight figures without a letter are taken for a date. In the cache of Hugging Face a
    large file is a blob whose whole name is its sha256.
    """
    promised = _promised(Path(path).expanduser())
    if not promised:
        return None
    real = sha256_of(path)
    return None if real.startswith(promised) else (promised, real[: len(promised)])


def verify(path: str | os.PathLike[str], sha256: str) -> None:
    """Hold a file to a sha256, or to its first digits, eight at the least.

    Raises:
        SourceError: the file has another, or this is none.
    """
    asked = sha256.lower().removeprefix("sha256:")
    if not re.fullmatch("[0-9a-f]{8,64}", asked):
        raise SourceError(
            f"'{sha256}' is no sha256",
            where=os.fspath(path),
            hint="give 64 digits from 0 to f, or the first eight of them or more: sha256sum FILE prints them",
        )
    real = sha256_of(path)
    if not real.startswith(asked):
        raise SourceError(
            f"its sha256 is {real}, not {asked}: a damaged or another file",
            where=os.fspath(path),
            hint="download it again; if this file is the right one, give its own sha256",
        )


def check_cached(repository: str) -> None:
    """Hold the weights of a model in the cache of Hugging Face to the hashes that their blobs are named by.

    Args:
        repository: `organisation/name`; where nothing of it is in the cache, there is nothing to check.

    Raises:
        SourceError: a file is damaged.
    """
    from huggingface_hub import constants

    home = Path(constants.HF_HUB_CACHE) / f"models--{repository.partition('@')[0].replace('/', '--')}"
    for path in sorted(home.glob("snapshots/*/*")):
        if path.suffix in (".safetensors", ".bin", ".pth") and path.is_file() and (wrong := misnamed(path)):
            raise SourceError(
                f"the cached file is damaged: its sha256 is {wrong[1][:12]}…, not {wrong[0][:12]}…",
                where=str(path),
                hint=f"delete it to download it again: {path.resolve()}",
            )


def cached() -> list[str]:
    """Name the models in the cache of Hugging Face."""
    from huggingface_hub import constants

    home = Path(constants.HF_HUB_CACHE)
    found = home.glob("models--*/snapshots/*/*") if home.is_dir() else []
    return sorted({one.parents[2].name.removeprefix("models--").replace("--", "/") for one in found})


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Give the sha256 of a file, in hexadecimal; one that did not change since is not read again."""
    found = Path(path).expanduser().resolve()
    state = found.stat()
    return _sha256(found, state.st_size, state.st_mtime_ns, state.st_ino)


@functools.lru_cache(maxsize=256)
def _sha256(path: Path, *_state: int) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _promised(path: Path) -> str:
    real = path.resolve()
    if real.parent.name == "blobs" and re.fullmatch("[0-9a-f]{64}", real.name):
        return real.name
    ending = re.search(r"-([0-9a-f]{8,64})\.\w+$", path.name)
    return "" if ending is None or ending[1].isdigit() else ending[1]
