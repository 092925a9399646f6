"""What makes a graft handy: one method for each edit, and roles that wait until they are asked for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torchgraft.edits.base import Edit, kinds
from torchgraft.errors import RecipeError, TorchgraftError
from torchgraft.repair import Way
from torchgraft.select import Roles
from torchgraft.surgery.journal import held
from torchgraft.trace import output_layers
from torchgraft.trace.order import order
from torchgraft.wording import named

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from torchgraft.graft import Graft
    from torchgraft.trace import Trace

__all__ = ["VERBS", "Workbench", "edit_of", "method_of", "numbered", "roles_of", "running"]


class _Roles(Mapping[str, Sequence[str]]):
    """The roles of a graft: finding one takes a trace, so it waits until a selector asks for it."""

    def __init__(self, roles: Mapping[str, Callable[[], Sequence[str]]]) -> None:
        self._roles = roles

    def __getitem__(self, name: str) -> Sequence[str]:
        return self._roles[name]()

    def __contains__(self, name: object) -> bool:
        return name in self._roles

    def __iter__(self) -> Iterator[str]:
        return iter(self._roles)

    def __len__(self) -> int:
        return len(self._roles)


def roles_of(graft: Graft, *, swept: bool = False) -> Roles:
    """Give the selector names that stand for paths in a graft: `head` makes the output, `stem` reads the input.

    Args:
        graft: whose model is meant.
        swept: the model was looked at just before, and only edits changed it since.
    """

    def head() -> Sequence[str]:
        made = [path for edit in graft.recipe.edits if edit.kind() == "head" for path in getattr(edit, "at", ())]
        there = [path for path in made if not path or held(graft.module, path) is not None]
        return [f"{path}.**" for path in there] or output_layers(running(graft, "head", swept=swept))

    def stem() -> Sequence[str]:
        return order(running(graft, "stem", swept=swept), graft.module).stem.paths

    return _Roles({"head": head, "stem": stem})


def running(graft: Graft, asked: str, *, swept: bool = False) -> Trace:
    """Give the trace of a model that runs.

    Raises:
        EditError: it does not, so what is asked for can't be found.
    """
    graft._looks.sweep(quick=swept)
    found = graft._looks.of("eval")
    if found.mismatch is not None:
        raise graft._does_not_run(asked)
    return found


VERBS = {
    "capture": "torchgraft.features:capture",
    "check": "torchgraft.checking:judged",
    "diff": "torchgraft.view.diff:diff",
    "draw": "torchgraft.graph:draw",
    "drift": "torchgraft.drift:drift",
    "find_batch": "torchgraft.searching:find_batch",
    "find_rate": "torchgraft.searching:find_rate",
    "fix": "torchgraft.fixing:mend",
    "load_weights": "torchgraft.filling:load_into",
    "memory": "torchgraft.memory:memory",
    "params": "torchgraft.view.params:params",
    "profile": "torchgraft.profile:profile",
    "save": "torchgraft.keep:save",
    "select": "torchgraft.view.params:select",
    "show": "torchgraft.view.summary:show",
    "train": "torchgraft.adapt:train",
}
"""What one does with a graft: it lives in higher layers, imported when it is asked for."""


class Workbench:
    """A graft as a repair sees it."""

    def __init__(self, graft: Graft) -> None:
        self._graft = graft
        self.module = graft.module

    def trace(self, *, train: bool = False) -> Trace:
        """Trace the model as it stands."""
        return self._graft._looks.of("train" if train else "eval")

    def do(self, edit: Edit) -> list[str]:
        """Apply an edit unjudged."""
        return self._graft._do(edit)


@contextmanager
def numbered(number: int) -> Iterator[None]:
    """Let an error tell which edit of several it is about."""
    try:
        yield
    except TorchgraftError as error:
        error.where = f"edit {number}, {error.where}" if error.where else f"edit {number}"
        raise


def edit_of(given: Any) -> Edit:
    """Give what is an edit.

    Raises:
        RecipeError: it is something else, such as the text of one in a recipe.
    """
    if isinstance(given, Edit):
        return given
    meant = next(iter(given), None) if isinstance(given, Mapping) else given
    kind = meant if isinstance(meant, str) and meant in kinds() else "head"
    raise RecipeError(
        f"{named(given)} is no edit: {given!r:.40}",
        where="apply",
        hint=f"g.{kind}(…), or g.apply({kinds()[kind].__name__}(…)) with that of torchgraft.edits.{kind}",
    )


def method_of(kind: str, cls: type[Edit]) -> Callable[..., Graft]:
    """Make the method of a graft that applies an edit: its arguments are the fields of the edit, in order."""

    def method(
        self: Graft, *args: Any, fix: Way | None = None, optimizer: Optimizer | None = None, **kwargs: Any
    ) -> Graft:
        return self.apply(cls.of(*args, **kwargs), fix=fix, optimizer=optimizer)

    parameters = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    for name, field in cls.model_fields.items():
        shown = field.alias or name
        shown = shown if shown.isidentifier() and shown != "with" else "module"
        default = inspect.Parameter.empty if field.is_required() else field.get_default(call_default_factory=True)
        late = field.is_required() and any(one.default is not inspect.Parameter.empty for one in parameters)
        form = inspect.Parameter.KEYWORD_ONLY if late else inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters.append(inspect.Parameter(shown, form, default=default, annotation=field.annotation))
    for name, kind_of in (("fix", Way | None), ("optimizer", "torch.optim.Optimizer | None")):
        parameters.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind_of)
        )
    parameters.sort(key=lambda one: one.kind)
    method.__name__ = method.__qualname__ = kind
    method.__doc__ = cls.__doc__
    method.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return method
