"""The working object: a plain module, its recipe and its latest trace. Applying an edit is a transaction."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn

from torchgraft.check import Evidence, Finding, judge
from torchgraft.check.rule import DataFacts
from torchgraft.edits.base import Edit, kinds
from torchgraft.edits.input import Input
from torchgraft.edits.surgery import Surgery
from torchgraft.errors import EditError, RecipeError, SourceError
from torchgraft.params.groups import parameter_groups
from torchgraft.preprocess import Preprocess
from torchgraft.recipe import Recipe
from torchgraft.select import Roles
from torchgraft.sources import parse_source
from torchgraft.trace import Trace, output_layers, trace

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Graft", "load", "replay"]


class Graft:
    """A model under change.

    Attributes:
        module: the model itself: plain PyTorch, no hook, no class of torchgraft.
        recipe: what was done to it, as data.
        preprocess: how the base's images were prepared, if its source says so.
    """

    def __init__(
        self,
        module: nn.Module,
        recipe: Recipe,
        *,
        example: Any = None,
        preprocess: Preprocess | None = None,
        trust: bool = False,
    ) -> None:
        self.module = module
        self.recipe = recipe
        self.preprocess = preprocess
        self.trust = trust
        self._example = example
        self._history: list[tuple[Edit, Surgery]] = []
        self._undone: list[tuple[Edit, Surgery]] = []
        self._traces: dict[bool, Trace] = {}

    # looking

    @property
    def name(self) -> str:
        """What the model is called in findings."""
        return self.recipe.base.partition(":")[2].partition("@")[0] or self.recipe.base

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        """The shape of one input as the model takes it now, without the batch."""
        shape = self.recipe.input
        for edit in self.recipe.edits:
            if isinstance(edit, Input):
                shape = edit.given(shape)
        return shape

    def trace(self, *, train: bool = False) -> Trace:
        """Give the latest trace in evaluation or training mode, taken when it is first asked for.

        Raises:
            SourceError: the shape of the input is not known.
        """
        if train not in self._traces:
            self._traces[train] = trace(self.module, self._inputs(), train=train)
        return self._traces[train]

    def _inputs(self) -> Any:
        if self._example is not None:
            return self._example
        if self.input_shape is None:
            raise SourceError(
                f"the input of {self.name} is not known",
                where=self.recipe.base,
                hint="say its shape without the batch: tg.load(…, input=(3, 224, 224))",
            )
        return torch.empty(2, *self.input_shape, device="meta")

    @property
    def roles(self) -> Roles:
        """Selector names that stand for paths: `head` is what makes the output."""
        made = [
            path for edit in self.recipe.edits for path in getattr(edit, "at", ()) if edit.kind() == "head"
        ]
        return {"head": tuple(f"{path}.**" for path in made) or tuple(output_layers(self.trace()))}

    @property
    def added(self) -> dict[str, int]:
        """Paths of the modules that edits put in, and the number of the edit."""
        return {path: n + 1 for n, (_, surgery) in enumerate(self._history) for path in surgery.added}

    def check(self, data: DataFacts | None = None) -> tuple[Finding, ...]:
        """Judge the model as it stands: traces in evaluation and training mode, read by every rule."""
        return judge(self._evidence(data))

    def _evidence(self, data: DataFacts | None = None) -> Evidence:
        runs = (self.trace(), self.trace(train=True))
        return Evidence(self.module, runs, self.added, self.name, data)

    def __str__(self) -> str:
        edits = "\n".join(f"  {n}. {edit.sentence()}" for n, edit in enumerate(self.recipe.edits, 1))
        return f"{self.recipe.base}\n{edits or '  unchanged'}"

    # changing

    def apply(self, edit: Edit) -> Self:
        """Apply an edit, trace and check the model; what does not fit is taken back.

        Raises:
            EditError: the edit does not fit; it carries the findings, and the model is as it was.
        """
        surgery = Surgery(
            self.module,
            look=lambda train: self.trace(train=train),
            roles=_Roles(self),
            seed=self.recipe.seed * 1_000_003 + len(self.recipe.edits),
            trust=self.trust,
        )
        kept = self.recipe, dict(self._traces), list(self._history)
        broken = edit.structural and self.trace().mismatch is not None
        try:
            done = edit.apply(surgery)
            self._history.append((done, surgery))
            self._with(done)
            self._judge(done, broken)
        except BaseException:
            surgery.undo()
            self.recipe, self._traces, self._history = kept
            raise
        self._undone.clear()
        return self

    def _with(self, edit: Edit) -> None:
        self.recipe = self.recipe.model_copy(update={"edits": (*self.recipe.edits, edit)})
        if edit.structural:
            self._traces = {}

    def _judge(self, edit: Edit, broken: bool) -> None:
        if not edit.structural or broken:
            return
        errors = [finding for finding in self.check() if finding.is_error]
        if errors:
            raise EditError(
                f"the edit does not fit: {edit.sentence()}",
                where=f"{self.name}, edit {len(self.recipe.edits)}",
                hint="the model is unchanged; see the finding",
                findings=errors,
            )

    def undo(self) -> Self:
        """Take the last edit back, exactly.

        Raises:
            EditError: there is none.
        """
        if not self._history:
            raise EditError("there is no edit to take back", where=self.name)
        edit, surgery = self._history.pop()
        surgery.undo()
        self._undone.append((edit, surgery))
        self.recipe = self.recipe.model_copy(update={"edits": self.recipe.edits[:-1]})
        self._traces = {}
        return self

    def redo(self) -> Self:
        """Make the edit again that was taken back last.

        Raises:
            EditError: there is none.
        """
        if not self._undone:
            raise EditError("there is no edit to make again", where=self.name)
        edit, surgery = self._undone.pop()
        surgery.redo()
        self._history.append((edit, surgery))
        self._with(edit)
        self._traces = {}
        return self

    # parameters

    def groups(
        self, settings: Mapping[str, Mapping[str, Any]] | None = None, **default: Any
    ) -> list[dict[str, Any]]:
        """Sort the trainable parameters into parameter groups for an optimizer of torch.

        Args:
            settings: for each selector, such as `conv1.**` or `head`, what differs; the last that selects wins.
            default: the settings of all other trainable parameters, such as `lr=1e-3`.

        Returns:
            one dict for each group, with `params`, `names` and settings: every trainable parameter is in exactly
            one group, no frozen one in any.
        """
        return parameter_groups(self.module, settings or {}, default, roles=self.roles)

    if TYPE_CHECKING:  # one method for each edit, made from the edit classes below

        def __getattr__(self, name: str) -> Callable[..., Self]: ...


class _Roles(Mapping[str, "Sequence[str]"]):
    """The roles of a graft, looked up only when a selector asks for one."""

    def __init__(self, graft: Graft) -> None:
        self._graft = graft

    def __getitem__(self, name: str) -> Sequence[str]:
        if name != "head":
            raise KeyError(name)
        return self._graft.roles[name]

    def __iter__(self) -> Any:
        return iter(("head",))

    def __len__(self) -> int:
        return 1


def _method(kind: str, cls: type[Edit]) -> Callable[..., Graft]:
    def method(self: Graft, *args: Any, **kwargs: Any) -> Graft:
        return self.apply(cls.of(*args, **kwargs))

    fields = [(field.alias or name, field) for name, field in cls.model_fields.items()]
    parameters = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    for name, field in fields:
        default = (
            inspect.Parameter.empty if field.is_required() else field.get_default(call_default_factory=True)
        )
        shown = name if name.isidentifier() and name != "with" else "module"
        parameters.append(
            inspect.Parameter(
                shown, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=field.annotation
            )
        )
    method.__name__ = method.__qualname__ = kind
    method.__doc__ = cls.__doc__
    method.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return method


for _kind, _cls in kinds().items():
    setattr(Graft, _kind, _method(_kind, _cls))


def load(
    base: str | nn.Module,
    *,
    input: Iterable[int] | Any = None,
    seed: int = 0,
    trust: bool = False,
) -> Graft:
    """Load a base model, or take one that was made by hand, as a graft.

    Args:
        base: a source such as `torchvision:resnet18@IMAGENET1K_V1`, or any module.
        input: the shape of one input without the batch, or an example (a tensor with its batch, or a tuple of them).
        seed: what new weights are drawn from.
        trust: whether code of the user's own may be run (`python:` sources, `package.module:Class` modules).

    Raises:
        SourceError: the base can't be had.
    """
    shape, example = _shape_of(input)
    if isinstance(base, nn.Module):
        recipe = Recipe(base=f"object:{type(base).__name__}", input=shape, seed=seed)
        return Graft(base, recipe, example=example, trust=trust)
    loaded = parse_source(base).load(seed=seed, trust=trust)
    recipe = Recipe(base=loaded.text, input=shape or loaded.input, seed=seed)
    return Graft(loaded.module, recipe, example=example, preprocess=loaded.preprocess, trust=trust)


def _shape_of(given: Any) -> tuple[tuple[int, ...] | None, Any]:
    if given is None:
        return None, None
    if isinstance(given, (list, tuple)) and all(isinstance(size, int) for size in given):
        return tuple(given), None
    return None, given


def replay(recipe: Recipe, *, trust: bool = False, objects: Mapping[str, nn.Module] | None = None) -> Graft:
    """Load a recipe's base and apply its edits again: same recipe, same base, same seed, same tensors.

    Args:
        recipe: what to make.
        trust: whether code of the user's own may be run.
        objects: modules that were handed over in Python when the recipe was made, by their place.

    Raises:
        SourceError: the base can't be had.
        EditError: an edit does not fit.
    """
    given = objects or {}
    if recipe.base.startswith("object:"):
        if "" not in given:
            raise RecipeError(
                f"the base, a {recipe.base.partition(':')[2]}, was handed over in Python",
                where="base",
                hint="hand it over again: tg.open(…, objects={'': model})",
            )
        graft = load(given[""], input=recipe.input, seed=recipe.seed, trust=trust)
        graft.recipe = graft.recipe.model_copy(update={"base": recipe.base})
    else:
        graft = load(recipe.base, input=recipe.input, seed=recipe.seed, trust=trust)
    graft.recipe = graft.recipe.model_copy(update={"preprocess": recipe.preprocess, "train": recipe.train})
    for edit in recipe.edits:
        graft.apply(_with_objects(edit, given))
    return graft


def _with_objects(edit: Edit, objects: Mapping[str, nn.Module]) -> Edit:
    """Put modules that are handed over again into an edit that names their place."""
    field = "with_" if "with_" in type(edit).model_fields else "module"
    spec = getattr(edit, field, None)
    name = getattr(edit, "name", None)
    at = getattr(edit, "at", "")
    if spec is None or spec.replays:
        return edit
    for key in (f"{at}.{name}", at, name):
        if key in objects:
            made: Edit = type(edit).model_validate(
                {**{n: getattr(edit, n) for n in type(edit).model_fields}, field: objects[key]}
            )
            return made
    return edit
