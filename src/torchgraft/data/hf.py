"""`hf:NAME`: sets of the Hugging Face datasets library, from its hub, from data files, or saved to disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torchgraft.data.base import DataSet, DataSource, Progress
from torchgraft.data.columns import PARTS
from torchgraft.data.options import number_of, options, task_of, yes
from torchgraft.data.rowsets import open_rows
from torchgraft.data.rowstream import VALIDATION, open_stream
from torchgraft.data.words import listing
from torchgraft.errors import DataError, nearest

__all__ = ["Hf", "of_object"]

SETTINGS = ("config", "train", "val", "image", "text", "label", "classes", "task", "streaming", "held", "buffer")
BUILDERS = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet",
            ".arrow": "arrow"}  # fmt: skip


class Hf(DataSource):
    """A set of the datasets library: `hf:cifar10`, or a folder that `save_to_disk` wrote, or a data file.

    Columns are found by their types: Image or text, ClassLabel or another label; `image=`, `text=` and `label=`
    name them. `config=` is the hub's configuration, `train=` and `val=` its splits, `task=` what labels are.
    `streaming=true` reads one sample after the other, for sets that do not fit: `held=1000` so many are kept to
    validate on, `buffer=1000` so many are shuffled at a time, `classes=a,b` names classes that the set does not.
    """

    def open(self, *, seed: int = 0, strict: bool = False, progress: Progress | None = None) -> DataSet:
        """Load the set, and look at its samples once; those that can't be read are left out."""
        where = str(self)
        name, asked = options(self.rest, SETTINGS, where)
        task = task_of(asked, where)
        streaming = yes(asked, "streaming", where)
        with _installed(where):
            loaded = _load(name, asked.get("config"), where, streaming=streaming)
        train, val, said = _parts(loaded, asked, where)
        if streaming:
            held = number_of(asked, "held", VALIDATION, where)
            buffer = number_of(asked, "buffer", 1000, where)
            return open_stream(
                train, val, asked, task=task, said=said, held=held, buffer=buffer, seed=seed, where=where
            )
        return open_rows(
            train, val, asked, task=task, said=said, seed=seed, strict=strict, progress=progress, where=where
        )


def of_object(data: Any, *, seed: int, where: str = "data") -> DataSet:
    """Open a datasets.Dataset or DatasetDict that is there already.

    Raises:
        DataError: as `hf:` does.
    """
    train, val, said = _parts(data, {}, where)
    return open_rows(train, val, {}, task=None, said=said, seed=seed, strict=False, progress=None, where=where)


@contextmanager
def _installed(where: str) -> Iterator[None]:
    try:
        import datasets  # noqa: F401
    except ImportError as error:
        raise DataError("the datasets library is not installed", where, "pip install 'torchgraft[hf]'") from error
    yield


def _load(name: str, config: str | None, where: str, *, streaming: bool) -> Any:
    """Load what a name stands for: a Dataset or a dict of them, to be read at random or as a stream."""
    import datasets

    path = Path(name).expanduser()
    try:
        if any((path / mark).is_file() for mark in ("dataset_dict.json", "state.json")):
            return datasets.load_from_disk(str(path))
        if path.is_file():
            if path.suffix.lower() not in BUILDERS:
                raise DataError(f"{path} is no data file", where, f"its name ends in one of {', '.join(BUILDERS)}")
            more = {"sep": "\t"} if path.suffix.lower() == ".tsv" else {}
            builder = BUILDERS[path.suffix.lower()]
            return datasets.load_dataset(builder, data_files=str(path), streaming=streaming, **more)
        return datasets.load_dataset(str(path) if path.is_dir() else name, config, streaming=streaming)
    except DataError:
        raise
    except Exception as error:  # the library and its readers raise nearly anything
        raise _refused(name, path, error, where) from error


def _refused(name: str, path: Path, error: Exception, where: str) -> DataError:
    """Say why a set can't be had; a name that looks like a path is looked for on the hub by mistake."""
    said = " ".join(str(error).split())[:300]
    local = path.parent.is_dir() and str(path.parent) != "."
    beside = [entry.name for entry in path.parent.iterdir()] if local else []
    hint = nearest(path.name, beside) or "name a set of the hub, a folder that save_to_disk wrote, or a data file"
    return DataError(f"'{name}' can't be loaded: {said}", where, hint)


def _parts(loaded: Any, asked: Mapping[str, str], where: str) -> tuple[Any, Any | None, str]:
    """Find both halves among the splits of a set; val is None where none is stated."""
    if not isinstance(loaded, Mapping):
        if "train" in asked or "val" in asked:
            raise DataError("the set has no splits by name", where, "leave train= and val= out")
        return loaded, None, ""
    for key in ("train", "val"):
        if key in asked and asked[key] not in loaded:
            hint = nearest(asked[key], loaded) or f"it has {', '.join(loaded)}"
            raise DataError(f"the set has no split '{asked[key]}'", where, hint)
    train = asked.get("train") or _part(loaded, ("train",)) or (next(iter(loaded)) if len(loaded) == 1 else None)
    if train is None:
        raise DataError(
            f"it can't be told which split trains: {listing(list(loaded))}", where, "say which: ?train=…"
        )
    val = asked.get("val") or _part({name: 0 for name in loaded if name != train}, ("val", "test"))
    if val is None:
        return loaded[train], None, ""
    return loaded[train], loaded[val], f"stated: {train} and {val}"


def _part(splits: Mapping[str, Any], kinds: Sequence[str]) -> str | None:
    """Give the first split of one of the kinds, in their order."""
    return next((name for kind in kinds for name in splits if PARTS.get(name.lower()) == kind), None)
