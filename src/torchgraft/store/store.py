"""A folder of versions: each a manifest, its tensors shared with all others by their content."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from torchgraft.errors import StoreError, TorchgraftWarning, nearest
from torchgraft.history import LOWER, History, figure_name
from torchgraft.store.codec import damaged, decode, encode, size, storable
from torchgraft.store.files import alone, explained, is_stale, make_folder, write_files
from torchgraft.store.manifest import UNSEALED, UTF8, Manifest, describing
from torchgraft.store.tensors import digest, digests, summed, ties

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Store"]

_KEY = "tensor"


class Store:
    """Versions under one folder: `objects/` holds each tensor once, `versions/` what is made of them.

    Nothing is read or written before a method asks for it. What the disk refuses is a StoreError.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def keep(
        self,
        *,
        recipe: str,
        base: str,
        state: Mapping[str, Tensor],
        base_state: Mapping[str, Tensor] | None = None,
        base_names: Mapping[str, str] | None = None,
        classes: Sequence[str] = (),
        metrics: Mapping[str, float] | None = None,
        history: History | None = None,
        note: str = "",
    ) -> Manifest:
        """Keep a state as the next version; only tensors whose bytes differ from the base's are stored.

        `base_names`: edited name -> the base's, where they differ. Killed or refused, the others stay whole.
        """
        known = digests(base_state or {})
        aliases = ties(state)
        tensors = _differing(digests(state), known, base_names or {}, aliases)
        values = {value: storable(state[name], name) for name, value in tensors.items()}
        with self._writing(values), describing():
            manifest = Manifest(
                id=UNSEALED,
                number=max((each.number for each in self._tidy()), default=0) + 1,
                created=datetime.now(UTC).isoformat(timespec="seconds"),
                note=note,
                recipe=recipe,
                base=base,
                base_digest=summed(known) if base_state is not None else "",
                classes=tuple(classes),
                metrics=dict(metrics or {}),
                history=history,
                tensors=tensors,
                aliases=aliases,
                **_makers(),
            ).sealed()
            self._write(manifest, values)
        return manifest

    def versions(self) -> list[Manifest]:
        """Give all versions, the oldest first; one whose manifest is damaged is left out with a warning."""
        found, problems = self._read()
        for problem in problems:
            warnings.warn(str(problem), TorchgraftWarning, stacklevel=2)
        return found

    def find(self, reference: str) -> Manifest:
        """Give the version that is meant by `v3`, an id or the beginning of one, `latest` or `best`.

        `best` is the best by the figure that the newest one is judged by, such as the accuracy; of several alike,
        the newest.
        """
        versions = self.versions()
        if not versions:
            raise StoreError("no version is kept here", str(self.root), "save one first, or name another folder")
        if reference in _WORDS:
            return _WORDS[reference](versions)
        close = [each for each in versions if reference and each.id.startswith(reference)]
        matches = [each for each in versions if f"v{each.number}" == reference] or close
        if len(matches) == 1:
            return matches[0]
        raise self._unclear(reference, matches, versions)

    def tensors(self, manifest: Manifest) -> dict[str, Tensor]:
        """Open the tensors that differ from the base, memory-mapped and each verified by its digest.

        Names that were tied give the same tensor; names that only hold the same values give two.
        """
        owner = {name: manifest.aliases.get(name, name) for name in manifest.tensors}
        opened = {name: self._open(manifest.tensors[name]) for name in sorted(set(owner.values()))}
        return {name: opened[owner[name]] for name in manifest.tensors}

    def verify(self) -> list[str]:
        """Read everything and say what is missing or damaged; an empty list means that all is whole."""
        versions, damage = self._read()
        problems = [str(each) for each in damage]
        seen: dict[str, str] = {}
        for each in versions:
            for value in sorted(set(each.tensors.values())):
                if value not in seen:
                    seen[value] = self._trouble(value)
                if seen[value]:
                    problems.append(f"v{each.number} ({each.id}): {seen[value]}")
            if not self._recipe_stands(each):
                path = self._path(each, "yaml")
                problems.append(f"v{each.number} ({each.id}): the recipe is missing or was changed: {path}")
        return problems

    def _read(self) -> tuple[list[Manifest], list[StoreError]]:
        """Read every manifest: those that are whole, in order, and what is wrong with the others."""
        found: list[Manifest] = []
        problems: list[StoreError] = []
        for path in self._manifests():
            try:
                found.append(Manifest.read(path))
            except StoreError as problem:
                problems.append(problem)
        return sorted(found, key=lambda each: (each.number, each.created, each.id)), problems

    def _manifests(self) -> list[Path]:
        with explained("the versions can't be read", self.root):
            try:
                inside = sorted((self.root / "versions").iterdir())
            except FileNotFoundError:  # nothing was kept here yet
                return []
            return [path for path in inside if path.suffix == ".json" and not path.name.startswith(".")]

    def _unclear(self, reference: str, matches: list[Manifest], versions: list[Manifest]) -> StoreError:
        listed = ", ".join(f"v{each.number} ({each.id})" for each in (matches or versions)[-8:])
        hint = f"choose from {listed}, latest, best"
        if matches:
            return StoreError(f"'{reference}' could be {len(matches)} versions", str(self.root), hint)
        near = nearest(reference, [*_WORDS, *(name for each in versions for name in (f"v{each.number}", each.id))])
        return StoreError(
            f"there is no version '{reference}'", str(self.root), f"{near}; {hint}" if near else hint
        )

    @contextlib.contextmanager
    def _writing(self, values: Mapping[str, Tensor]) -> Iterator[None]:
        with explained("the version can't be kept", self.root):
            needed = sum(size(tensor) for value, tensor in values.items() if not self._object(value).exists())
        with explained("the version can't be kept", self.root, needed=needed):
            for folder in ("objects", "versions"):
                make_folder(self.root / folder)
            with alone(self.root):
                yield

    def _write(self, manifest: Manifest, values: Mapping[str, Tensor]) -> None:
        """Write objects first and the manifest last: a version is there when its manifest is."""
        absent = [value for value in values if not self._object(value).exists()]
        damage = [value for value in values.keys() - set(absent) if self._trouble(value)]
        for folder in {self._object(value).parent for value in absent}:
            make_folder(folder)
        try:
            write_files((self._object(value), encode({_KEY: values[value]}, {})) for value in absent + damage)
            for kind, text in (("yaml", manifest.recipe), ("json", manifest.text())):
                write_files([(self._path(manifest, kind), [text.encode(*UTF8)])])
        except BaseException:  # also Ctrl-C: a full disk must not stay full of what belongs to no version
            self._discard(manifest, absent)
            raise

    def _discard(self, manifest: Manifest, values: Sequence[str]) -> None:
        with contextlib.suppress(OSError):  # the manifest goes first: what it names must outlive it
            for kind in ("json", "yaml"):
                self._path(manifest, kind).unlink(missing_ok=True)
            for value in values:
                self._object(value).unlink(missing_ok=True)

    def _tidy(self) -> list[Manifest]:
        """Remove what killed processes left behind over an hour ago; gives the versions."""
        versions, problems = self._read()
        used = {value for each in versions for value in each.tensors.values()}
        rests = [*self.root.glob("*/.*.tmp"), *self.root.glob("objects/*/.*.tmp")]
        if not problems:  # a damaged manifest may be mended, so what it might name stays
            ids = {each.id for each in versions}
            rests += [each for each in self.root.glob("objects/*/*.safetensors") if each.stem not in used]
            rests += [each for each in self.root.glob("versions/*.yaml") if each.stem not in ids]
        for rest in filter(is_stale, rests):
            with contextlib.suppress(OSError):
                rest.unlink()
        return versions

    def _open(self, value: str) -> Tensor:
        path = self._object(value)
        tensors, _ = decode(path)
        if set(tensors) != {_KEY} or digest(tensors[_KEY]) != value:
            raise damaged(path, "its content is not what its name says")
        return tensors[_KEY]

    def _trouble(self, value: str) -> str:
        try:
            self._open(value)
        except StoreError as problem:
            return f"{problem.what}: {problem.where}"
        return ""

    def _recipe_stands(self, manifest: Manifest) -> bool:
        with contextlib.suppress(OSError):
            return self._path(manifest, "yaml").read_bytes() == manifest.recipe.encode(*UTF8)
        return False

    def _object(self, value: str) -> Path:
        return self.root / "objects" / value[:2] / f"{value}.safetensors"

    def _path(self, manifest: Manifest, kind: str) -> Path:
        return self.root / "versions" / f"{manifest.id}.{kind}"


def _differing(
    own: Mapping[str, str],
    known: Mapping[str, str],
    base_names: Mapping[str, str],
    aliases: Mapping[str, str],
) -> dict[str, str]:
    """Give the digests that the base does not have; a tie that differs under one name counts with all."""
    changed = {
        aliases.get(name, name) for name, value in own.items() if known.get(base_names.get(name, name)) != value
    }
    return {name: value for name, value in own.items() if aliases.get(name, name) in changed}


def _makers() -> dict[str, str]:
    import torch

    try:
        own = metadata.version("torchgraft")
    except metadata.PackageNotFoundError:  # run from a source tree
        own = "unknown"
    return {"torchgraft": own, "torch": str(torch.__version__)}


def _latest(versions: Sequence[Manifest]) -> Manifest:
    return versions[-1]


def _best(versions: Sequence[Manifest]) -> Manifest:
    name = next((each.judged_by for each in reversed(versions) if each.judged_by), "accuracy")
    judged = [each for each in reversed(versions) if not math.isnan(each.metrics.get(name, math.nan))]
    if not judged:
        raise StoreError(
            f"no version has a figure for its {figure_name(name)}, so none is the best",
            "best",
            "name one: v1, or latest",
        )
    told = next((one.history for one in judged if one.history is not None and one.history.metric == name), None)
    higher = told.higher if told is not None else name.rpartition(".")[2] not in LOWER
    return (max if higher else min)(judged, key=lambda each: each.metrics[name])


_WORDS: dict[str, Callable[[Sequence[Manifest]], Manifest]] = {"latest": _latest, "best": _best}
