"""Files of weights, read without running any code: safetensors, or what torch saved of tensors alone."""

from __future__ import annotations

import hashlib
import json
import os
import re
import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from torchgraft.errors import SourceError, nearest

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["check_there", "misnamed", "note", "read"]

_FORMS = "give a safetensors file, or a .pt file of tensors alone: torch.save(model.state_dict(), …)"

_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")

_DAMAGE = ("unexpected EOF", "corrupted")
"""What torch says of files that end too soon or were written over."""


def read(path: str | os.PathLike[str]) -> Any:
    """Read a file of weights onto the CPU, wherever it was saved; code in it is never run.

    Args:
        path: a safetensors file, the `….safetensors.index.json` of several, or a file that `torch.save` wrote.

    Raises:
        SourceError: there is no such file, it is damaged, or it holds more than data.
    """
    path = Path(path).expanduser()
    check_there(path)
    try:
        if path.name.endswith(".index.json"):
            return _sharded(path)
        return _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    except SourceError:
        raise
    except Exception as error:
        reason, hint = _reason(path, error)
        raise SourceError(f"the weights can't be read: {reason}", where=str(path), hint=hint) from error


def check_there(path: Path) -> None:
    """See that there is a file, at no cost.

    Raises:
        SourceError: there is none, with the nearest names.
    """
    if not path.is_file():
        raise _not_there(path)


def note(path: Path, key: str) -> str:
    """Give one entry of the metadata of a safetensors file; empty where there is none, or no such file."""
    from safetensors import SafetensorError, safe_open

    if path.suffix != ".safetensors":
        return ""
    try:
        with safe_open(path, framework="pt") as opened:
            return str((opened.metadata() or {}).get(key, ""))
    except SafetensorError:
        return ""


def misnamed(path: str | os.PathLike[str]) -> tuple[str, str] | None:
    """Give the hash that a file's name promises and the one it has, where they differ.

    Names such as `resnet18-f37072fd.pth` end in the first digits of the file's sha256: torch.hub's own rule,
    eight digits at the least. Eight figures without a letter are taken for a date.
    """
    path = Path(path).expanduser()
    promised = re.search(r"-([0-9a-f]{8,64})\.\w+$", path.name)
    if promised is None or promised[1].isdigit():
        return None
    with path.open("rb") as opened:
        real = hashlib.file_digest(opened, "sha256").hexdigest()
    return None if real.startswith(promised[1]) else (promised[1], real[: len(promised[1])])


def _not_there(path: Path) -> SourceError:
    if path.is_dir():
        files = [one.name for one in sorted(path.iterdir()) if one.suffix in _SUFFIXES]
        named = f"name a file in it: {', '.join(files[:4])}" if files else "name a file"
        return SourceError(f"{path} is a folder", where=str(path), hint=named)
    near = nearest(path.name, [one.name for one in path.parent.glob("*")]) if path.parent.is_dir() else ""
    return SourceError(f"there is no file {path}", where=str(path), hint=near or "check the path")


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import safe_open

    with safe_open(path, framework="pt", device="cpu") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118


def _sharded(path: Path) -> dict[str, Tensor]:
    """Read every file that an index names; names that leave the index's folder are refused."""
    shards = sorted(set(json.loads(path.read_text())["weight_map"].values()))
    tensors: dict[str, Tensor] = {}
    for name in shards:
        if Path(name).name != name:
            raise ValueError(f"its index names a file elsewhere: {name}")
        tensors |= read(path.parent / name)
    return tensors


def _pickled(path: Path) -> Any:
    import torch
    from torch.serialization import safe_globals

    with safe_globals(_plain_data()):
        return torch.load(path, map_location="cpu", weights_only=True)


def _plain_data() -> list[Any]:
    """Give the classes that hold data and do nothing when they are made: the usual settings beside weights."""
    from argparse import Namespace

    import numpy as np
    from numpy._core import multiarray

    kinds = {type(np.dtype(code)) for code in "?bBhHiIlLqQefd"}
    made = (multiarray.scalar, multiarray._reconstruct)
    older = [(one, f"numpy.core.multiarray.{one.__name__}") for one in made]  # as numpy 1 wrote it
    return [Namespace, np.dtype, np.ndarray, *made, *older, *kinds]


def _reason(path: Path, error: Exception) -> tuple[str, str]:
    """Say in plain words why a file could not be read, and what to do."""
    start = path.open("rb").read(200).lstrip()
    again = "download or copy it again, or take an older copy"
    if not start:
        return "the file is empty", again
    if start.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, not the weights themselves", "run git lfs pull"
    if start[:9].lower() in (b"<!doctype", b"<html>") or start.lower().startswith(b"<html"):
        return "it is a web page, not weights: the download went wrong", again
    if _is_cut(path, start, error):
        return f"the file is damaged or cut off ({path.stat().st_size:,} bytes)", again
    if "TorchScript" in str(error):
        return "it is a TorchScript archive, which is code", "save its state dict: torch.save(m.state_dict(), …)"
    if isinstance(error, UnpicklingError):  # torch's own words advise to run the code in the file
        return _pickled_code(path), _FORMS
    if isinstance(error, (LookupError, AttributeError, TypeError)):  # bytes that are no pickle
        return "it is no file of weights", _FORMS
    return (str(error).splitlines()[0] if str(error) else type(error).__name__), _FORMS


def _is_cut(path: Path, start: bytes, error: Exception) -> bool:
    if start.startswith(b"PK") and not zipfile.is_zipfile(path):
        return True
    if type(error).__name__ == "SafetensorError":
        return True
    return isinstance(error, EOFError) or any(word in str(error) for word in _DAMAGE)


def _pickled_code(path: Path) -> str:
    from torch.serialization import get_unsafe_globals_in_checkpoint

    try:
        names = [name for name in get_unsafe_globals_in_checkpoint(str(path)) if not _harmless(name)]
    except Exception:  # not a zip file of torch's, or no pickle at all
        return "it is no file of weights, or it holds more than tensors, and code from files is never run"
    shown = f" ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})" if names else ""
    return f"it holds more than tensors, and code from files is never run{shown}"


def _harmless(name: str) -> bool:
    return name.startswith(("numpy.", "argparse.Namespace", "collections.OrderedDict", "torch._utils"))
