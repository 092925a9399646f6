"""Tensors as the bytes of a safetensors file, and back.

Reading is safetensors' own, memory-mapped. Writing is done here, because its writer neither tells which
system error stopped it nor lets one flush the file before it is moved into place.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torchgraft.errors import StoreError
from torchgraft.store.tensors import dtype_name, plain, raw_bytes

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["damaged", "decode", "encode", "size", "storable"]

_HINT = "bring it back from a copy, or use another version"
_METADATA = "__metadata__"
_CODES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "complex64": "C64",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
    "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
    "float8_e4m3fn": "F8_E4M3", "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2": "F8_E5M2", "float8_e5m2fnuz": "F8_E5M2FNUZ", "float8_e8m0fnu": "F8_E8M0",
}  # fmt: skip


def encode(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Iterator[bytes | memoryview]:
    """Give the bytes of a safetensors file piece by piece, so that no second copy of all is ever held."""
    if _METADATA in tensors:
        raise StoreError("safetensors keeps this name for itself", _METADATA, "rename the tensor")
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))  # keeps each one aligned
    yield _header(tensors, names, metadata)
    for name in names:
        yield raw_bytes(plain(tensors[name], name))


def size(tensor: Tensor) -> int:
    """Give the bytes that a tensor's values take."""
    return tensor.numel() * tensor.element_size()


def _header(tensors: Mapping[str, Tensor], names: list[str], metadata: Mapping[str, str]) -> bytes:
    entries: dict[str, object] = {_METADATA: dict(metadata)} if metadata else {}
    start = 0
    for name in names:
        tensor = tensors[name]
        end = start + size(tensor)
        entries[name] = {
            "dtype": _CODES[dtype_name(storable(tensor, name))],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
        start = end
    try:
        text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError as error:  # half a surrogate pair, as in the name of a badly encoded folder
        raise StoreError("a name or a note is not valid Unicode", ascii(error.object), "rename it") from error
    text += b" " * (-len(text) % 8)  # so that the values begin at a multiple of eight
    return len(text).to_bytes(8, "little") + text


def storable(tensor: Tensor, name: str) -> Tensor:
    """Give the tensor back if safetensors knows its dtype, a StoreError if not."""
    kind = dtype_name(tensor)
    if kind not in _CODES:
        raise StoreError(f"safetensors has no {kind}", name, f"convert it to one of {', '.join(_CODES)}")
    return tensor


def decode(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Open a safetensors file, memory-mapped; writing into a tensor leaves the file as it is."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            return tensors, dict(file.metadata() or {})
    except FileNotFoundError as error:
        raise StoreError("the file is missing", str(path), _HINT) from error
    except OSError as error:
        raise StoreError(f"the file can't be read: {error}", str(path), _HINT) from error
    except SafetensorError as error:
        raise damaged(path, str(error)) from error


def damaged(path: Path, why: str) -> StoreError:
    """Say that a file is not what was once written."""
    return StoreError(f"the file is damaged: {why}", str(path), _HINT)
