"""What differs between two models by name: recipes, sources, kept versions; these by their hashes first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from torchgraft.errors import StoreError, TorchgraftError
from torchgraft.graph import drawing, written
from torchgraft.graph.between import between
from torchgraft.keep import is_version, open_named, open_version, split_reference
from torchgraft.loading import replay
from torchgraft.recipe import Recipe, is_recipe
from torchgraft.sources import parse_source
from torchgraft.store import Manifest, Store, state_digest
from torchgraft.view.compare import compare
from torchgraft.view.diff import Difference, base_of, side_of
from torchgraft.view.places import check_place
from torchgraft.view.sides import Side
from torchgraft.weights.plan import tensors_of

if TYPE_CHECKING:
    from torch import Tensor

    from torchgraft.graft import Graft

__all__ = ["diff_named", "draw_diff", "opened"]


def diff_named(
    before: str,
    after: str,
    *,
    input: Sequence[int] | None = None,
    trust: bool = False,
    values: bool = True,
    to: str | Path | None = None,
) -> Difference:
    """Say what differs between two models by name.

    Two versions are compared by their manifests: a tensor of the same hash is not read, and of a base that both
    have in common nothing is read that neither changed.

    Args:
        before: a recipe.yaml, a source, or a version, as `open_named` takes it.
        after: the same.
        input: the shape of one input without the batch, where a source needs it.
        trust: whether code of the user's own may be run.
        values: compare the numbers of tensors too.
        to: draw both in one graph into this file: .svg, .html, .png, .dot or .json.

    Raises:
        TorchgraftError: one of them can't be opened, or the file can't be written.
    """
    if to is not None:
        check_place(to)
    bases = _Bases(trust)
    (first, one), (second, other) = (
        opened(name, input=input, trust=trust, bases=bases) for name in (before, after)
    )
    if one.title == other.title and before != after:
        one, other = replace(one, title=before), replace(other, title=after)
    found = compare(one, other, values=values)
    if to is not None:
        draw_diff(found, first, second, to)
    return found


def draw_diff(told: Difference, graft: Graft, other: Graft | None, to: str | Path) -> Path:
    """Draw two grafts in one graph, or a graft over its base where there is no other.

    Raises:
        StoreError: the file can't be written.
        SourceError: the shape of an input is not known.
    """
    check_place(to)
    if other is None:
        with base_of(graft) as bare:
            before = drawing(bare, fold=False)
        return written(between(before, drawing(graft, fold=False), told), to)
    return written(between(drawing(graft, fold=False), drawing(other, fold=False), told), to)


def opened(
    target: str,
    *,
    input: Sequence[int] | None = None,
    usual: Sequence[int] | None = None,
    trust: bool = False,
    bases: _Bases | None = None,
) -> tuple[Graft, Side]:
    """Open what a name stands for, and write it down; of a version no tensor is read before it is asked for.

    Args:
        target: a recipe.yaml, a source, or a version.
        input: the shape of one input without the batch.
        usual: the same, for a source alone: recipes and versions have their own.
        trust: whether code of the user's own may be run.
        bases: those that are loaded already.

    Raises:
        TorchgraftError: it can't be opened.
    """
    if not is_version(target):
        shape = input if input or is_recipe(target) else usual
        return _whole(open_named(target, input=shape, trust=trust))
    folder, version = split_reference(target)
    store = Store(folder)
    manifest = store.find(version)
    graft = _skeleton(manifest, trust)
    if graft is None:
        return _whole(open_version(target, trust=trust))
    graft.version = manifest
    kept = _Kept(store, manifest, graft, bases or _Bases(trust))
    return graft, replace(side_of(graft), read=kept.read, digest=kept.digest)


def _whole(graft: Graft) -> tuple[Graft, Side]:
    return graft, side_of(graft)


def _skeleton(manifest: Manifest, trust: bool) -> Graft | None:
    """Make a version's model without its numbers; None where it can't be made so."""
    recipe = Recipe.from_yaml(manifest.recipe, name=f"v{manifest.number}")
    try:
        return replay(recipe, base=parse_source(recipe.base).skeleton(seed=recipe.seed, trust=trust), trust=trust)
    except (TorchgraftError, RuntimeError, NotImplementedError):  # an edit that reads values, such as merge
        return None


@dataclass
class _Bases:
    """Bases, each loaded once, and only when a tensor of it is asked for."""

    trust: bool
    loaded: dict[tuple[str, int], Callable[[], dict[str, Tensor]]] = field(default_factory=dict)

    def of(self, recipe: Recipe) -> Callable[[], dict[str, Tensor]]:
        """Give what loads the base of a recipe."""

        @cache
        def load() -> dict[str, Tensor]:
            return tensors_of(parse_source(recipe.base).load(seed=recipe.seed, trust=self.trust).module)

        return self.loaded.setdefault((recipe.base, recipe.seed), load)


class _Kept:
    """The tensors of a version, where they lie: its own in the store, the others in the base."""

    def __init__(self, store: Store, manifest: Manifest, graft: Graft, bases: _Bases) -> None:
        self.store, self.manifest, self.recipe = store, manifest, graft.recipe
        self.model = graft.module
        self.base = bases.of(graft.recipe)
        self.checked = False
        self.state = frozenset(tensors_of(graft.module))

    def digest(self, name: str) -> str:
        """Tell the bytes of a tensor: its hash, or its place in a base of which the hash is known."""
        if name in self.manifest.tensors:
            return self.manifest.tensors[name]
        known = name in self.state and self.manifest.base_digest
        return f"{self.manifest.base_digest} {self.recipe.base_name(name)}" if known else ""

    def read(self, name: str) -> Tensor | None:
        """Open a tensor, verified."""
        if name in self.manifest.tensors:
            alone = {"tensors": {name: self.manifest.tensors[name]}, "aliases": {}}
            return self.store.tensors(self.manifest.model_copy(update=alone))[name]
        if name in self.state and self.manifest.base_digest:
            return self._inherited().get(self.recipe.base_name(name))
        return dict(self.model.named_buffers(remove_duplicate=False)).get(name)

    def _inherited(self) -> dict[str, Tensor]:
        state = self.base()
        if not self.checked and self.manifest.base_digest != state_digest(state):
            raise StoreError(
                "the base is not the one that this version was made from",
                where=self.manifest.base,
                hint="bring the base's old weights back, or name them: file:WEIGHTS@…",
            )
        self.checked = True
        return state
