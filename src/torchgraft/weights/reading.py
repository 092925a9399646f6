"""Files of weights, read without running any code: safetensors, or what torch saved of tensors alone."""

from __future__ import annotations

import json
import os
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchgraft.errors import SourceError, nearest
from torchgraft.weights.damage import reason
from torchgraft.weights.hashes import verify

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["check_there", "note", "part_of", "read"]

_SUFFIXES = (".index.json", ".safetensors", ".pt", ".pth", ".bin", ".ckpt")


def read(path: str | os.PathLike[str], *, sha256: str = "") -> Any:
    """Read a file of weights onto the CPU, wherever it was saved; code in it is never run.

    The tensors are mapped privately: a page is read when it is first needed, and what is written to them never
    reaches the file. So the file must not be written over while they live; replacing it by another is safe.

    Args:
        path: a safetensors file, the `….safetensors.index.json` of several, or a file that `torch.save` wrote.
        sha256: what the file must have, or its first digits.

    Raises:
        SourceError: there is no such file, it is damaged or another than promised, or it holds more than data.
    """
    path = Path(path).expanduser()
    check_there(path)
    if sha256:
        verify(path, sha256)
    try:
        if path.name.endswith(".index.json"):
            return _sharded(path)
        return _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    except SourceError:
        raise
    except Exception as error:
        why, hint = reason(path, error)
        raise SourceError(f"the weights can't be read: {why}", where=str(path), hint=hint) from error


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


def part_of(path: str | os.PathLike[str]) -> str:
    """Say which part of several a file is by its name (`model-00001-of-00003.safetensors`); empty for a whole."""
    found = re.search(r"-0*(\d+)-of-0*(\d+)\.\w+$", Path(path).name)
    return f"it is part {found[1]} of {found[2]}" if found and found[2] != "1" else ""


def _not_there(path: Path) -> SourceError:
    if (path / ".metadata").is_file() and any(path.glob("*.distcp")):
        return SourceError(
            f"{path} is a distributed checkpoint, whose index is a pickle of code",
            where=str(path),
            hint="dcp_to_torch_save(FOLDER, 'w.pt') of torch.distributed.checkpoint.format_utils makes one file",
        )
    if path.is_dir():
        files = [one.name for one in sorted(path.iterdir()) if one.name.endswith(_SUFFIXES)]
        files.sort(key=lambda name: (not name.endswith(".index.json"), bool(part_of(name))))
        named = f"name a file in it: {', '.join(files[:4])}" if files else "name a file"
        return SourceError(f"{path} is a folder", where=str(path), hint=named)
    near = nearest(path.name, [one.name for one in path.parent.glob("*")]) if path.parent.is_dir() else ""
    gone = " (a link to a file that is not there)" if path.is_symlink() else ""
    return SourceError(f"there is no file {path}{gone}", where=str(path), hint=near or "check the path")


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import safe_open

    with safe_open(path, framework="pt", device="cpu") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118


def _sharded(path: Path) -> dict[str, Tensor]:
    """Read every file that an index names; names that leave the index's folder are refused."""
    index: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(index.values())):
        if Path(name).name != name:
            raise ValueError(f"its index names a file elsewhere: {name}")
        tensors |= read(path.parent / name)
    absent = [name for name in index if name not in tensors]
    if absent:
        raise ValueError(
            f"{len(absent)} tensors that the index names are not in its files, such as {absent[0]} in "
            f"{index[absent[0]]}: parts of different versions"
        )
    return tensors


def _pickled(path: Path) -> Any:
    import torch
    from torch.serialization import safe_globals

    with safe_globals(_plain_data()):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))


def _plain_data() -> list[Any]:
    """Give the classes that hold data and do nothing when they are made: the usual settings beside weights."""
    from argparse import Namespace

    import numpy as np
    from numpy._core import multiarray

    kinds = {type(np.dtype(code)) for code in "?bBhHiIlLqQefd"}
    made = (multiarray.scalar, multiarray._reconstruct)
    older = [(one, f"numpy.core.multiarray.{one.__name__}") for one in made]  # as numpy 1 wrote it
    return [Namespace, np.dtype, np.ndarray, *made, *older, *kinds]
