"""`version:FOLDER@VERSION`: a kept version as a base for new edits; `runs@v3` without the scheme means it too."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from torchgraft.errors import SourceError, StoreError
from torchgraft.sources.base import Base, Offer, Source

__all__ = ["Version"]

_HOME = "torchgraft.keep"
"""What keeps versions stands above: it is looked up by name when it is asked for, as the verbs of a graft are."""


class Version(Source):
    """A version that was kept before: its model with its tensors, as the base of a new recipe.

    `latest` and `best` are written out as the number they stand for now, so that a recipe means the same later.
    """

    form: ClassVar[str] = "FOLDER@VERSION"

    def check(self, *, trust: bool = False) -> None:
        """See that the version is there."""
        self._manifest()

    def load(self, *, seed: int = 0, trust: bool = False) -> Base:
        """Open the version: its base with its edits made again, and its own tensors."""
        kept = self._manifest()
        folder = self._split()[0]
        try:
            keep = importlib.import_module(_HOME)
            opened: Base = keep.opened_base(f"{folder}@{kept.id}", f"version:{folder}@v{kept.number}", trust=trust)
        except StoreError as error:
            raise SourceError(error.what, where=str(self), hint=error.hint) from error
        return opened

    @property
    def bare(self) -> Source:
        """The same: a version is its tensors."""
        return self

    def skeleton(self, *, seed: int = 0, trust: bool = False) -> Base:
        """Open the version, and let its values go."""
        from torchgraft.weights.skeleton import emptied

        base = self.load(seed=seed, trust=trust)
        return replace(base, module=emptied(base.module))

    @classmethod
    def offers(cls) -> Sequence[Offer]:
        """List the versions in ./runs."""
        keep = importlib.import_module(_HOME)
        if not Path(keep.RUNS).is_dir():
            return []
        return [
            Offer(f"{keep.RUNS}@v{one.number}", (one.id,), one.note) for one in keep.Store(keep.RUNS).versions()
        ]

    def _split(self) -> tuple[str, str]:
        pair: tuple[str, str] = importlib.import_module(_HOME).split_reference(self.rest)
        return pair

    def _manifest(self) -> Any:
        folder, version = self._split()
        try:
            return importlib.import_module(_HOME).Store(folder).find(version)
        except StoreError as error:
            raise SourceError(error.what, where=str(self), hint=error.hint) from error
