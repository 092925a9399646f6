"""Keep a graft as a version, and open it again."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torchgraft.errors import RecipeError, SourceError, StoreError, TorchgraftWarning
from torchgraft.graft import Graft
from torchgraft.history import History
from torchgraft.loading import load, loaded_base, replay
from torchgraft.recipe import Recipe, is_recipe
from torchgraft.sources import Base, parse_source
from torchgraft.sources.base import is_code
from torchgraft.store import Manifest, Store, state_digest

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["RUNS", "is_version", "open_named", "open_version", "opened_base", "save", "split_reference"]

RUNS = "runs"
"""The folder that versions go to when none is named."""


def save(
    graft: Graft,
    folder: str | Path = RUNS,
    *,
    classes: Sequence[str] = (),
    metrics: Mapping[str, float] | None = None,
    history: History | None = None,
    note: str = "",
) -> Manifest:
    """Keep a graft's state as a new version: its recipe and the tensors that differ from the base.

    The base is loaded again to tell which tensors differ; where it can't be, all are kept.

    A graft that was opened from a version keeps its classes, unless others are given.

    Raises:
        StoreError: it can't be written; what was kept before is whole.
    """
    return Store(folder).keep(
        recipe=graft.recipe.to_yaml(),
        base=graft.recipe.base,
        state=graft.module.state_dict(),
        base_state=_base_state(graft),
        base_names={name: graft.recipe.base_name(name) for name in graft.module.state_dict()},
        classes=classes or (graft.version.classes if graft.version else ()),
        metrics=metrics,
        history=history,
        note=note,
    )


def _base_state(graft: Graft) -> dict[str, Tensor] | None:
    if graft.recipe.base.startswith("object:"):
        return None
    try:
        base = parse_source(graft.recipe.base).load(seed=graft.recipe.seed, trust=graft.trust)
    except SourceError:
        return None
    return base.module.state_dict()


def split_reference(reference: str) -> tuple[str, str]:
    """Take a reference apart: `v3` lies in `runs`, `DIR@v3` in DIR; a folder alone means its latest version."""
    folder, at, version = reference.rpartition("@")
    if at:
        return folder or RUNS, version
    return (reference, "latest") if Path(reference).is_dir() else (RUNS, reference)


def open_version(
    reference: str | Path, *, trust: bool = False, objects: Mapping[str, nn.Module] | None = None
) -> Graft:
    """Open a version: load its base, apply its edits, put its own tensors in place.

    Args:
        reference: `v3`, an id, `latest` or `best` in ./runs; `DIR@v3` in another folder.
        trust: whether code of the user's own may be run.
        objects: modules that were handed over in Python, by their place; `''` is the base itself.

    Raises:
        StoreError: there is no such version, or it is damaged, or its base is another now.
    """
    return _opened(reference, trust=trust, objects=objects)[0]


def open_named(target: str, *, input: Sequence[int] | None = None, trust: bool = False) -> Graft:
    """Open what a name stands for: a recipe file, a kept version (`v3`, `DIR@latest`), or a source.

    Args:
        target: the name; of a file such as `net.py:model` the code is run, since it is named outright.
        input: the shape of one input without the batch; a version has its own.
        trust: whether code of the user's own may be run.

    Raises:
        RecipeError: the recipe is wrong, or an input is given for a version.
        SourceError, StoreError: there is no such model, or no such version.
        EditError: an edit of the recipe does not fit.
    """
    if is_recipe(target):
        recipe = Recipe.read(target)
        return replay(recipe.model_copy(update={"input": tuple(input)}) if input else recipe, trust=trust)
    if not is_version(target):
        return load(target, input=input, trust=trust or is_code(target))
    if input:
        raise RecipeError(f"the version {target} has an input of its own", where="input", hint="leave it out")
    return open_version(target, trust=trust)


def is_version(target: str) -> bool:
    """Tell whether a name stands for a kept version."""
    return not is_recipe(target) and _VERSION.fullmatch(target.rpartition("@")[2]) is not None


_VERSION = re.compile(r"v\d+|latest|best")


def opened_base(reference: str | Path, text: str, *, trust: bool = False) -> Base:
    """Open a version as the base of new edits; see `open_version`.

    Args:
        reference: see `open_version`.
        text: what the version is called as a source.
        trust: whether code of the user's own may be run.
    """
    graft, base = _opened(reference, trust=trust)
    return Base(graft.module, text, graft.input_shape, graft.preprocess, base.example, base.tokenizer)


def _opened(
    reference: str | Path, *, trust: bool = False, objects: Mapping[str, nn.Module] | None = None
) -> tuple[Graft, Base]:
    """Open a version, and give its base as well."""
    folder, version = split_reference(str(reference))
    store = Store(folder)
    manifest = store.find(version)
    recipe = Recipe.from_yaml(manifest.recipe, name=f"{folder}/versions/{manifest.id}.yaml")
    given = dict(objects or {})
    with warnings.catch_warnings():  # of tensors that are drawn: the version has its own
        warnings.simplefilter("ignore", TorchgraftWarning)
        base = loaded_base(recipe, trust=trust, objects=given)
    base_state = base.module.state_dict()
    if manifest.base_digest and manifest.base_digest != state_digest(base_state):
        raise StoreError(
            "the base is not the one that this version was made from",
            where=manifest.base,
            hint="bring the base's old weights back, or name them: file:WEIGHTS@…",
        )
    graft = replay(recipe, trust=trust, objects=given, base=base)
    _put(graft, store.tensors(manifest), base_state if manifest.base_digest else {}, manifest)
    graft.version = manifest
    return graft, base


def _put(graft: Graft, tensors: Mapping[str, Tensor], base: Mapping[str, Tensor], manifest: Manifest) -> None:
    """Give every tensor its kept value: its own, or the base's where they did not differ."""
    own = graft.module.state_dict()
    inherited = {name: base.get(graft.recipe.base_name(name)) for name in own if name not in tensors}
    state = {**tensors, **{name: tensor for name, tensor in inherited.items() if tensor is not None}}
    wrong = [
        name
        for name in {**own, **tensors}
        if name not in own or name not in state or own[name].shape != state[name].shape
    ]
    if wrong:
        raise StoreError(
            f"{len(wrong)} kept tensors do not fit the model that the recipe makes, such as {wrong[0]}",
            where=f"v{manifest.number} ({manifest.id})",
            hint=f"open it with the torchgraft and torch that kept it ({manifest.torchgraft}, {manifest.torch})",
        )
    parameters = {**dict(graft.module.named_parameters()), **dict(graft.module.named_buffers())}
    for name, tensor in parameters.items():
        if name in state and state[name].dtype != tensor.dtype:  # load_state_dict would cast in silence
            tensor.data = tensor.data.to(state[name].dtype)
    graft.module.load_state_dict(state)
