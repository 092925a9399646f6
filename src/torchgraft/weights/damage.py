"""Why a file of weights could not be read, in plain words, and what to do."""

from __future__ import annotations

import zipfile
from pathlib import Path
from pickle import UnpicklingError

__all__ = ["FORMS", "reason"]

FORMS = "give a safetensors file, or a .pt file of tensors alone: torch.save(model.state_dict(), …)"

_AGAIN = "download or copy it again, or take an older copy"

_DAMAGE = ("unexpected EOF", "corrupted")
"""What torch says of files that end too soon or were written over."""

_STARTS = (
    (b"version https://git-lfs", "it is a Git LFS pointer, not the weights themselves", "run git lfs pull"),
    (b"\x89HDF", "it is an HDF5 file, as Keras writes them", "convert it to safetensors where Keras is installed"),
    (b"GGUF", "it is a GGUF file of llama.cpp, mostly of quantised codes", "take the model's safetensors files"),
    (b"\x1f\x8b", "it is packed by gzip", "unpack it first: gunzip, or tar -xzf, and name the file in it"),
    (b"7z\xbc\xaf", "it is packed by 7-Zip", "unpack it first, and name the file in it"),
    (b"\x28\xb5\x2f\xfd", "it is packed by zstd", "unpack it first: unzstd, and name the file in it"),
)
"""How files begin that are no weights of torch."""

_INSIDE = (
    (
        ".npy",
        "it is an archive of numpy arrays (.npz)",
        "save them by safetensors.numpy.save_file, under the names of the model",
    ),
    (
        "archived_model.json",
        "it is an exported program (.pt2), which is code",
        "save the state dict of its module",
    ),
    ("models/model.json", "it is an exported program (.pt2), which is code", "save the state dict of its module"),
)
"""What zip archives hold that are no weights of torch."""


def reason(path: Path, error: Exception) -> tuple[str, str]:
    """Say why a file could not be read, and what to do."""
    with path.open("rb") as file:
        start = file.read(200).lstrip()
    if not start:
        return "the file is empty", _AGAIN
    if start[:9].lower() == b"<!doctype" or start.lower().startswith(b"<html"):
        return "it is a web page, not weights: the download went wrong", _AGAIN
    if (other := _other_form(path, start)) is not None:
        return other
    if _is_cut(path, start, error):
        return f"the file is damaged or cut off ({path.stat().st_size:,} bytes)", _AGAIN
    if "TorchScript" in str(error):
        return "it is a TorchScript archive, which is code", "save its state dict: torch.save(m.state_dict(), …)"
    return _other_error(path, error)


def _other_form(path: Path, start: bytes) -> tuple[str, str] | None:
    """Name a form that holds no state dict, or one under the name of another."""
    if path.suffix == ".safetensors" and (zipfile.is_zipfile(path) or start[:1] == b"\x80"):
        return "it is a file of torch.save under the name of a safetensors file", "rename it to end in .pt"
    if path.suffix == ".onnx":
        return "it is an ONNX graph, not a state dict", FORMS
    for mark, what, hint in _STARTS:
        if start.startswith(mark):
            return what, hint
    names = zipfile.ZipFile(path).namelist() if zipfile.is_zipfile(path) else []
    for end, what, hint in _INSIDE:
        if any(name.endswith(end) for name in names):
            return what, hint
    return None


def _other_error(path: Path, error: Exception) -> tuple[str, str]:
    if isinstance(error, UnpicklingError):  # torch's own words advise to run the code in the file
        return _pickled_code(path), FORMS
    if isinstance(error, (LookupError, AttributeError, TypeError)):  # bytes that are no pickle
        return "it is no file of weights", FORMS
    return (str(error).splitlines()[0] if str(error) else type(error).__name__), FORMS


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
