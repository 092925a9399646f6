"""Cut a model behind some of its modules: each forward on the way to them returns early, and the rest goes.

The forward of every module that leads to a wanted one is captured by torch.fx with its children as they are, ends
where the last wanted value is there, and becomes the forward of a class of its own. Paths and keys stay.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torchgraft.errors import EditError, nearest
from torchgraft.surgery.forward import accepting, captured, renewed
from torchgraft.surgery.standing import is_sequence

if TYPE_CHECKING:
    from torch import nn
    from torch.fx import Graph, Node

    from torchgraft.surgery.journal import Surgery
    from torchgraft.trace import Trace

__all__ = ["Way", "cut", "ways_to"]


@dataclass(frozen=True)
class Way:
    """How the pass comes to a wanted module.

    Attributes:
        name: of what it gives, in the output.
        steps: the modules that are called one inside the other, the wanted one last.
    """

    name: str
    steps: tuple[str, ...]


def ways_to(wanted: Mapping[str, str], surgery: Surgery) -> list[Way]:
    """Find the way to each wanted module.

    Raises:
        SelectionError: there is no such module.
        EditError: the pass does not call it, or calls it several times.
    """
    run = surgery.look(False)
    return [Way(name, _steps(path, run, surgery)) for name, path in wanted.items()]


def _steps(path: str, run: Trace, surgery: Surgery) -> tuple[str, ...]:
    surgery.module(path)
    calls = run.calls_of(path)
    if len(calls) != 1:
        told = f"is called {len(calls)} times" if calls else "is not called itself"
        inside = [call.path for call in run.calls if call.path.startswith(f"{path}.")]
        raise EditError(
            f"{path} {told}, so what it gives is not one value",
            where=path,
            hint=f"name a module that is called once, such as {inside[-1]}"
            if inside
            else nearest(path, run.called),
        )
    steps, call = [path], calls[0]
    while call.parent is not None:
        call = run.calls[call.parent]
        steps.append(call.path)
    return tuple(step for step in reversed(steps) if step)


def cut(
    surgery: Surgery,
    host: str,
    ways: Sequence[Way],
    *,
    through: bool,
    output: Callable[[list[Any]], Any] | None = None,
) -> None:
    """Let a module give what is wanted of its inside, and drop what it does not need for that.

    Args:
        surgery: changes the model.
        host: the module; empty for the model itself.
        ways: to what is wanted, from here on.
        through: whether its own output is wanted as well; it then comes first.
        output: makes the output of all wanted values; one alone, or a tuple, when left out.
    """
    module = surgery.module(host) if host else surgery.model
    if is_sequence(module) and not through and len(ways) == 1 and output is None:
        _shortened(surgery, host, module, ways[0])
        return
    run = surgery.look(False)
    given = run.calls_of(host)
    plan = _Plan(surgery, host, module, ways, through=through, output=output)
    taken = [run.values[number].dtype for number in given[0].given] if given else []
    try:
        graph = captured(module, host, tensors=len(taken) or None, dtypes=taken, cut=plan.apply)
    except EditError as error:
        raise EditError(
            f"{host or 'the model'} can't end early: {error.what}",
            where=host or "(the model itself)",
            hint=f"remove what comes behind {ways[0].steps[-1]} instead, module by module: remove(…)",
        ) from error
    if host:  # only rewritten forwards call it, and what they give beside what is traced are its defaults
        accepting(graph, module)
    graph.lint()
    surgery.recast(module, renewed(module, graph))
    for child, further in plan.inner.items():
        cut(surgery, child, further, through=plan.passes[child])
    _prune(
        surgery, host, module, {str(node.target) for node in graph.nodes if node.op in ("call_module", "get_attr")}
    )


def _shortened(surgery: Surgery, host: str, module: nn.Module, way: Way) -> None:
    """Drop what comes behind in a Sequential: nothing is rewritten."""
    child = way.steps[0]
    names = list(module._modules)
    for name in names[names.index(child.rpartition(".")[2]) + 1 :]:
        surgery.drop(f"{host}.{name}" if host else name)
    if len(way.steps) > 1:
        cut(surgery, child, [Way(way.name, way.steps[1:])], through=False)


class _Plan:
    """What is wanted of one module's forward, as a change of its graph.

    Attributes:
        inner: for each child that leads further: the ways from there.
        passes: whether the child's own output is wanted as well; known once a graph was cut.
    """

    def __init__(
        self,
        surgery: Surgery,
        host: str,
        module: nn.Module,
        ways: Sequence[Way],
        *,
        through: bool,
        output: Callable[[list[Any]], Any] | None,
    ) -> None:
        self._surgery, self._host, self._module = surgery, host, module
        self._ways, self._through, self._output = ways, through, output
        self.passes: dict[str, bool] = {}
        self.inner: dict[str, list[Way]] = {}
        for way in ways:
            if len(way.steps) > 1:
                self.inner.setdefault(way.steps[0], []).append(Way(way.name, way.steps[1:]))

    def apply(self, graph: Graph) -> None:
        """Cut a graph: its output becomes what is wanted, and calls that nothing wanted needs go."""
        nodes = {way.steps[0]: self._call_of(way.steps[0], graph) for way in self._ways}
        end = next(node for node in reversed(graph.nodes) if node.op == "output")
        normal = end.args[0] if self._through else None
        direct = [nodes[way.steps[0]] for way in self._ways if len(way.steps) == 1]
        needed = _closure([*_nodes_in(normal), *nodes.values()])
        roots = {*_nodes_in(normal), *direct}
        found: dict[str, Any] = {}
        for child, further in self.inner.items():
            node = nodes[child]
            self.passes[child] = node in roots or any(user in needed for user in node.users)
            found |= self._opened(graph, node, further, passes=self.passes[child])
        for way in self._ways:
            if len(way.steps) == 1:
                found[way.name] = found.get(f" {way.steps[0]}", nodes[way.steps[0]])
        end = next(node for node in reversed(graph.nodes) if node.op == "output")
        values = [*([end.args[0]] if self._through else []), *(found[way.name] for way in self._ways)]
        graph.erase_node(end)
        kept = self._trimmed(graph, values)
        values = [
            *values[: len(values) - len(self._ways)],
            *(self._safe(graph, one, kept) for one in values[-len(self._ways) :]),
        ]
        graph.output(self._output(values) if self._output else values[0] if len(values) == 1 else tuple(values))

    def _opened(self, graph: Graph, node: Node, further: list[Way], *, passes: bool) -> dict[str, Any]:
        """Take apart what a child gives that leads further: its own output first, where that is wanted."""
        if len(further) + passes == 1:
            return {further[0].name: node}
        users = list(node.users)
        found: dict[str, Any] = {}
        with graph.inserting_after(node):
            items = [graph.call_function(operator.getitem, (node, n)) for n in range(len(further) + passes)]
        if passes:
            for user in users:
                user.replace_input_with(node, items[0])
            found[f" {self._path_of(node)}"] = items[0]
        for way, item in zip(further, items[passes:], strict=True):
            found[way.name] = item
        return found

    def _path_of(self, node: Node) -> str:
        return f"{self._host}.{node.target}" if self._host else str(node.target)

    def _call_of(self, path: str, graph: Graph) -> Node:
        wanted = self._surgery.module(path)
        found = [
            node
            for node in graph.nodes
            if node.op == "call_module" and self._module.get_submodule(str(node.target)) is wanted
        ]
        if len(found) != 1:
            raise EditError(
                f"{self._host or 'the model'} does not call {path} once in training and in evaluation",
                where=path,
                hint="name a module that is called in both",
            )
        only: Node = found[0]
        return only

    def _trimmed(self, graph: Graph, values: list[Any]) -> list[Node]:
        """Erase every call that no wanted value needs, and give what is left in order."""
        needed = _closure([node for value in values for node in _nodes_in(value)])
        last = max(
            (n for n, node in enumerate(graph.nodes) if node in needed and node.op != "placeholder"), default=0
        )
        kept = set(needed)
        for number, node in enumerate(graph.nodes):
            works = self._writes(node) in needed or _asserts(node)
            if node.op == "placeholder" or (number < last and works and _modules_in(node) <= needed):
                kept |= _closure([node])
        for node in reversed(list(graph.nodes)):
            if node not in kept:
                graph.erase_node(node)
        return list(graph.nodes)

    def _writes(self, node: Node) -> Node | None:
        """Give what a call writes to, where it works in place."""
        first = node.args[0] if node.args and hasattr(node.args[0], "op") else None
        if node.op == "call_module":
            return first if _in_place(self._module.get_submodule(str(node.target))) else None  # type: ignore[return-value]
        name = str(getattr(node.target, "__name__", node.target))
        here = node.kwargs.get("inplace") is True or node.target in (
            operator.setitem,
            operator.iadd,
            operator.imul,
        )
        return first if here or (name.endswith("_") and not name.endswith("__")) else None  # type: ignore[return-value]

    def _safe(self, graph: Graph, value: Any, kept: list[Node]) -> Any:
        """Copy a wanted value that a later call writes to, so that it is what its module gave."""
        if not any(self._writes(node) is value for node in kept):
            return value
        with graph.inserting_after(value):
            copied: Any = graph.call_method("clone", (value,))
        return copied


def _in_place(module: nn.Module) -> bool:
    """Tell whether a module writes to what it is given first of all."""
    if is_sequence(module) and len(module._modules):
        return _in_place(next(iter(module.children())))
    return bool(getattr(module, "inplace", False))


def _asserts(node: Node) -> bool:
    return node.op == "call_function" and "assert" in str(getattr(node.target, "__name__", ""))


def _nodes_in(value: Any) -> list[Node]:
    """Give every node in nested arguments."""
    from torch.fx.node import map_arg

    found: list[Node] = []

    def seen(node: Node) -> Node:
        found.append(node)
        return node

    map_arg(value, seen)
    return found


def _closure(roots: Sequence[Node]) -> set[Node]:
    """Give the nodes and all that they are computed from."""
    found: set[Node] = set()
    queue = list(roots)
    while queue:
        node = queue.pop()
        if node not in found:
            found.add(node)
            queue.extend(node.all_input_nodes)
    return found


def _modules_in(node: Node) -> set[Node]:
    return {one for one in _closure([node]) if one.op == "call_module"} - {node}


def _prune(surgery: Surgery, host: str, module: nn.Module, used: set[str]) -> None:
    """Drop every child, parameter and buffer that a rewritten forward does not use."""
    for name, child in list(module._modules.items()):
        if child is None:
            continue
        path = f"{host}.{name}" if host else name
        inside = {one[len(name) + 1 :] for one in used if one.startswith(f"{name}.")}
        if name in used:
            continue
        if inside:
            _prune(surgery, path, child, inside)
        else:
            surgery.drop(path)
    for table in (module._parameters, module._buffers):
        for name in [name for name, one in table.items() if one is not None and name not in used]:
            surgery.hold(module, name, None)
