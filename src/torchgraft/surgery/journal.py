"""The only place where a model is changed, and a journal of every change.

An edit never writes into an existing tensor: it puts new modules and parameters beside the old ones and
moves references. So every change can be taken back and made again exactly, tensors by identity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torchgraft.errors import EditError, SelectionError, nearest
from torchgraft.paths import joined

if TYPE_CHECKING:
    from torch import Tensor, nn

    from torchgraft.trace import Trace

__all__ = ["Change", "Surgery", "every", "held", "inside", "twin"]


@dataclass(frozen=True)
class Change:
    """One change of a reference, both ways."""

    do: Callable[[], None]
    undo: Callable[[], None]


class Surgery:
    """Changes one model for one edit, and remembers how to take the changes back.

    Attributes:
        model: the model that is edited.
        look: gives the trace of the model as it was before the edit, in evaluation or training mode.
        roles: selector names that stand for paths, such as `head`.
        seed: what new tensors are drawn from.
        trust: whether the user's own code may be imported and run.
        added: paths of the modules that this edit put in.
        placed: the modules themselves, once the edit is done.
        touched: ids of the modules that were changed; None where something beside modules was.
        drawn: parameters that the edit drew anew, so that no trained value is left in them.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        look: Callable[[bool], Trace],
        roles: Mapping[str, Sequence[str]],
        seed: int = 0,
        trust: bool = False,
        untrained: Callable[[], Set[int]] | None = None,
        put: Callable[[], Set[int]] | None = None,
    ) -> None:
        self.model = model
        self.look = look
        self.roles = roles
        self.seed = seed
        self.trust = trust
        self.added: list[str] = []
        self.placed: dict[str, nn.Module] = {}
        self.touched: set[int] | None = set()
        self.drawn: list[nn.Parameter] = []
        self._untrained = untrained
        self._put = put
        self._fresh: Set[int] | None = None
        self._changes: list[Change] = []

    # reading

    def module(self, path: str) -> nn.Module:
        """Give the module at a path.

        Raises:
            SelectionError: there is none, with the nearest names.
        """
        found = held(self.model, path) if path else None
        if found is None:
            known = [name for name, _ in self.model.named_modules(remove_duplicate=False) if name]
            raise SelectionError(
                f"the model has no module '{path}'",
                where=path or "(the model itself)",
                hint=nearest(path, known) or f"one of {', '.join(n for n in known if '.' not in n)}",
            )
        return found

    def parent(self, path: str) -> tuple[nn.Module, str]:
        """Give the parent of the module at `path` and the name under which it is held."""
        self.module(path)
        home, _, name = path.rpartition(".")
        return (self.module(home) if home else self.model), name

    def trained(self, parameter: nn.Parameter) -> bool:
        """Tell whether a parameter has the base's trained values: no edit put it in or drew it anew."""
        if self._fresh is None:
            self._fresh = frozenset() if self._untrained is None else self._untrained()
        return id(parameter) not in self._fresh

    def newcomers(self) -> Set[int]:
        """Give ids of the parameters that earlier edits put in or drew anew, a random base's own left out."""
        return frozenset() if self._put is None else self._put()

    # changing

    def put(self, path: str, module: nn.Module) -> None:
        """Hold another module under an existing path, and under every other name of the one that was there.

        Raises:
            EditError: the module is the model itself, or holds the place.
        """
        old = self.module(path)
        if any(part is self.model for part in every(module)):
            raise EditError("the model can't be put into itself", where=path, hint="copy.deepcopy it first")
        self._become_like(module, old)
        for parent in [one for one in every(self.model) if old in one._modules.values()]:
            names = [name for name, child in parent._modules.items() if child is old]
            self._children(parent, {**parent._modules, **dict.fromkeys(names, module)})
        self.added.append(path)

    def trade(self, pairs: Mapping[nn.Module, nn.Module]) -> None:
        """Hold other modules wherever the old ones are held, in one pass over the model for all of them."""
        parents = [one for one in every(self.model) if not pairs.keys().isdisjoint(one._modules.values())]
        for old, new in pairs.items():
            self._become_like(new, old)
        for parent in parents:
            self._children(parent, {name: one and pairs.get(one, one) for name, one in parent._modules.items()})

    def insert(self, home: str, name: str, module: nn.Module, *, after: str | None) -> str:
        """Put a module into a Sequential by order, after the child of that name (None: first).

        Raises:
            EditError: the name is taken.
        """
        parent = self.module(home) if home else self.model
        path = joined(home, name)
        if hasattr(parent, name):
            raise EditError(f"'{path}' exists already", where=path, hint="give the new module another name")
        self._become_like(module, parent)
        order: dict[str, nn.Module | None] = {} if after is not None else {name: module}
        for key, child in parent._modules.items():
            order[key] = child
            if key == after:
                order[name] = module
        self._children(parent, order)
        self.added.append(path)
        return path

    def drop(self, path: str) -> None:
        """Take a child out of its parent."""
        parent, name = self.parent(path)
        self._children(parent, {key: child for key, child in parent._modules.items() if key != name})

    def rename(self, path: str, name: str) -> str:
        """Hold a child under another name in the same place of the order, and give its new path.

        Raises:
            EditError: the name is taken.
        """
        parent, old = self.parent(path)
        if hasattr(parent, name):
            home = path.rpartition(".")[0]
            raise EditError(f"'{joined(home, name)}' exists already", where=path, hint="give another name")
        self._children(parent, {name if key == old else key: child for key, child in parent._modules.items()})
        return joined(path.rpartition(".")[0], name)

    def exchange(self, old: Tensor, new: Tensor) -> None:
        """Hold another parameter or buffer wherever the old one is held, under any of its names."""
        for module in every(self.model):
            for table in (module._parameters, module._buffers):
                for name in [name for name, one in table.items() if one is old]:
                    self._entry(module, table, name, new)

    def hold(self, module: nn.Module, name: str, tensor: Tensor | None) -> None:
        """Hold a parameter (or buffer) under an existing name of one module alone, such as to tie or untie it."""
        table: Any = module._parameters if name in module._parameters else module._buffers
        self._entry(module, table, name, tensor)

    def _entry(self, module: nn.Module, table: dict[str, Any], name: str, tensor: Tensor | None) -> None:
        before = table[name]
        self._do(Change(lambda: table.__setitem__(name, tensor), lambda: table.__setitem__(name, before)), module)

    def set(self, holder: object, attribute: str, value: Any) -> None:
        """Set a plain attribute of a module."""
        own = vars(holder)
        had, before = attribute in own, own.get(attribute)

        def undo() -> None:
            if had:
                own[attribute] = before
            else:
                own.pop(attribute, None)

        self._do(Change(lambda: own.__setitem__(attribute, value), undo), holder)

    def register(self, parent: nn.Module, name: str, module: nn.Module) -> None:
        """Hold a module as a child under the name of a plain attribute, which gives way."""
        own = vars(parent)
        before = list(own.items())

        def undo() -> None:
            own.clear()
            own.update(before)

        self._become_like(module, parent)
        self._do(Change(lambda: own.pop(name, None) and None, undo), parent)
        self._children(parent, {**parent._modules, name: module})

    def recast(self, module: nn.Module, cls: type[nn.Module]) -> None:
        """Give a module another class, such as one with a rewritten forward."""
        before = type(module)
        change = Change(lambda: setattr(module, "__class__", cls), lambda: setattr(module, "__class__", before))
        self._do(change, module)

    def set_grad(self, parameters: Iterable[nn.Parameter], wanted: bool) -> None:
        """Freeze or unfreeze parameters."""
        others = [one for one in parameters if one.requires_grad != wanted]
        if others:
            self._do(Change(lambda: _flag(others, wanted), lambda: _flag(others, not wanted)), None)

    def settle(self) -> None:
        """Remember which module each added path holds, once the edit is done."""
        self.placed = {path: self.module(path) for path in self.added}

    @property
    def count(self) -> int:
        """The number of changes so far."""
        return len(self._changes)

    def also(self, change: Change) -> None:
        """Make a change that no trace depends on, such as of an optimizer that follows."""
        self._do(change, None)

    # both ways

    def undo(self) -> None:
        """Take every change back, the last one first."""
        for change in reversed(self._changes):
            change.undo()

    def redo(self) -> None:
        """Make every change again."""
        for change in self._changes:
            change.do()

    def _do(self, change: Change, holder: object) -> None:
        """Make a change, and note whose it is; None: of a flag that no trace depends on."""
        from torch import nn

        change.do()
        self._changes.append(change)
        if isinstance(holder, nn.Module):
            if self.touched is not None:
                self.touched.add(id(holder))
        elif holder is not None:
            self.touched = None

    def _children(self, parent: nn.Module, wanted: Mapping[str, nn.Module | None]) -> None:
        from torch import jit

        if isinstance(parent, jit.ScriptModule):
            raise EditError(
                "a scripted module can't be edited",
                where=type(parent).__name__,
                hint="edit the Python module that it was scripted from",
            )
        before = dict(parent._modules)
        after = dict(wanted)
        self._do(Change(lambda: _hold(parent, after), lambda: _hold(parent, before)), parent)

    def _become_like(self, module: nn.Module, model: nn.Module) -> None:
        """Give a new module the training flag of its place."""
        for part in every(module):
            if part.training != model.training:
                self.set(part, "training", model.training)


def twin(layer: nn.Module, path: str) -> nn.Module:
    """Give a second layer of the same class, hooks and attributes, whose tensors may be set beside the old ones.

    Raises:
        EditError: its weights are computed from others (parametrizations, weight norm), or it is scripted.
    """
    from torch import jit
    from torch.nn.utils import parametrize

    computed = parametrize.is_parametrized(layer) or any(
        name.removesuffix("_g") == "weight" and name != "weight" for name in layer._parameters
    )
    if computed or isinstance(layer, jit.ScriptModule):
        raise EditError(
            f"the weights of this {type(layer).__name__} are computed from others and can't be resized",
            where=path,
            hint="remove the parametrization first, or replace the layer",
        )
    made = object.__new__(type(layer))
    vars(made).update(vars(layer))
    for name in ("_parameters", "_buffers", "_modules"):
        vars(made)[name] = dict(vars(layer)[name])
    return made


def every(model: nn.Module) -> list[nn.Module]:
    """Give every module once, a parent before its children; quicker than `model.modules()`, which makes names."""
    queue, seen = [model], {id(model)}
    for module in queue:
        for child in module._modules.values() if module._modules else ():
            if child is not None and id(child) not in seen:
                seen.add(id(child))
                queue.append(child)
    return queue


def _hold(parent: nn.Module, children: Mapping[str, nn.Module | None]) -> None:
    parent._modules.clear()
    parent._modules.update(children)


def _flag(parameters: Iterable[nn.Parameter], wanted: bool) -> None:
    for one in parameters:
        one.requires_grad = wanted


def inside(model: nn.Module, homes: Iterable[str]) -> dict[str, nn.Module]:
    """Give every module in some modules, themselves included, each once by its first path there."""
    found: dict[int, tuple[str, nn.Module]] = {}
    queue = [(home, held(model, home)) for home in homes]
    for path, module in queue:
        if module is not None and id(module) not in found:
            found[id(module)] = (path, module)
            queue += [(f"{path}.{name}", child) for name, child in module._modules.items()]
    return dict(found.values())


def held(model: nn.Module, path: str) -> nn.Module | None:
    """Give the module at a path, or None."""
    found: nn.Module | None = model
    for name in path.split("."):
        if found is None:
            return None
        inside: Any = found._modules  # of a scripted module it is no dict
        found = inside.get(name) if isinstance(inside, dict) else dict(found.named_children()).get(name)
    return found
