"""A module's own forward as a graph, captured by torch.fx with every child as it is, and made a class again."""

from __future__ import annotations

import copy
import inspect
import linecache
import operator
import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torchgraft.errors import EditError

if TYPE_CHECKING:
    from torch import nn
    from torch.fx import Graph, Node

__all__ = ["accepting", "calls", "captured", "derived", "operands", "plain", "renewed", "set_arguments", "turned"]

_INPLACE = {"iadd": "add", "imul": "mul", "isub": "sub", "itruediv": "div", "truediv": "div", "concat": "cat"}

# Where torch's own functions are builtins, their positional arguments have no names to read.
_ARGUMENTS = {
    "cat": ("tensors", "dim"),
    "stack": ("tensors", "dim"),
    "flatten": ("input", "start_dim", "end_dim"),
    "softmax": ("input", "dim"),
    "log_softmax": ("input", "dim"),
    "squeeze": ("input", "dim"),
    "mean": ("input", "dim", "keepdim"),
    "sum": ("input", "dim", "keepdim"),
}


def plain(name: str) -> str:
    """Give the name of an operation without what tells apart its forms: `add_`, `__radd__`, `iadd` are `add`."""
    bare = name.strip("_")
    bare = bare[1:] if bare in ("radd", "rmul", "rsub", "rtruediv") else bare
    return _INPLACE.get(bare, bare)


def captured(
    module: nn.Module,
    path: str,
    *,
    tensors: int | None = None,
    dtypes: Sequence[str] = (),
    cut: Callable[[Graph], None] | None = None,
) -> Graph:
    """Give the forward of one module as a graph whose other modules are single calls.

    Args:
        module: the module; it is neither run nor changed.
        path: where it stands, for messages.
        tensors: how many tensors the forward is given; optional arguments beyond keep their defaults.
        dtypes: of these tensors, as far as they are known, such as `float32`: a forward may ask for them.
        cut: takes away what is not wanted, before training and evaluation are compared.

    Raises:
        EditError: its flow depends on values, differs between training and evaluation, or it keeps state.
    """
    where = path or "(the model itself)"
    if "forward" in vars(module):
        raise EditError("the forward was set on the instance, so it can't be rewritten", where=where)
    graph, train = (_one_way(module, where, flag, tensors, dtypes) for flag in (False, True))
    if cut is not None:
        cut(graph)
        cut(train)
    _joined(graph, train, where)
    return graph


def _one_way(module: nn.Module, where: str, train: bool, tensors: int | None, dtypes: Sequence[str]) -> Graph:
    import torch
    from torch import fx

    class Outer(fx.Tracer):
        """Takes every child as it is."""

        def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
            return True

        def to_bool(self, obj: fx.Proxy) -> bool:
            """Answer whether two dtypes are the same, which no value decides."""
            told = _same_dtype(obj.node, module, dtypes)
            return super().to_bool(obj) if told is None else told

    twin = _apart(module, train, tensors)
    before, dice = dict(vars(twin)), (random.getstate(), torch.get_rng_state())
    sizes = {name: len(value) for name, value in before.items() if isinstance(value, (list, dict, set))}
    try:
        graph = Outer().trace(twin, concrete_args=_left_out(twin, tensors))
    except Exception as error:  # whatever the forward does with a proxy
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise EditError(
            f"the forward can't be rewritten: {reason}",
            where=where,
            hint="its flow depends on values; change its code, or replace the module",
        ) from error
    now = vars(twin)
    same = now.keys() == before.keys() and all(now[name] is value for name, value in before.items())
    same = same and all(len(now[name]) == size for name, size in sizes.items())
    if not same or random.getstate() != dice[0] or not torch.equal(torch.get_rng_state(), dice[1]):
        torch.set_rng_state(dice[1])
        random.setstate(dice[0])
        raise EditError(
            "the forward can't be rewritten: it keeps tensors or draws numbers of its own",
            where=where,
            hint="change its code, or replace the module",
        )
    return graph


def _same_dtype(node: Node, module: nn.Module, dtypes: Sequence[str]) -> bool | None:
    """Answer a comparison of two dtypes; None where it is another question, or one of them is not known."""
    if node.op != "call_function" or node.target not in (operator.eq, operator.ne) or len(node.args) != 2:
        return None
    one, other = (_dtype_of(side, module, dtypes) for side in node.args)
    if one is None or other is None:
        return None
    return (one == other) is (node.target is operator.eq)


def _dtype_of(side: Any, module: nn.Module, dtypes: Sequence[str]) -> str | None:
    import torch

    if isinstance(side, torch.dtype):
        return str(side).removeprefix("torch.")
    args: tuple[Any, ...] = getattr(side, "args", ())
    if len(args) != 2 or args[1] != "dtype" or side.target is not getattr:
        return None
    home: Node = args[0]
    if home.op == "get_attr":
        held = operator.attrgetter(str(home.target))(module)
        return str(held.dtype).removeprefix("torch.")
    places = [one for one in home.graph.nodes if one.op == "placeholder"]
    known = home.op == "placeholder" and places.index(home) < len(dtypes)
    return dtypes[places.index(home)].removeprefix("torch.") if known else None


def _with_names(cls: type[nn.Module], count: int) -> type[nn.Module]:
    """Give the class with a forward of so many named arguments, where its own takes any others or is decorated."""
    listed = list(inspect.signature(cls.forward).parameters.values())[1:]
    kinds = [one.kind for one in listed]
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        names = ", ".join(f"given_{number}" for number in range(count))
    elif inspect.Parameter.VAR_KEYWORD in kinds or hasattr(cls.forward, "__wrapped__"):
        names = ", ".join(one.name for one in listed[:count])
    else:
        return cls
    scope: dict[str, Any] = {"inner": cls.forward}
    exec(f"def forward(self, {names}):\n    return inner(self, {names})", scope)
    return type(cls.__name__, (cls,), {"forward": scope["forward"]})


def accepting(graph: Graph, module: nn.Module) -> None:
    """Let a graph take the arguments that the module's forward may be given beside those of the graph, unused."""
    from torch import fx

    held = [node for node in graph.nodes if node.op == "placeholder"]
    names = {str(node.target) for node in held}
    with graph.inserting_after(held[-1]) if held else graph.inserting_before():
        for one in reversed(list(inspect.signature(module.forward).parameters.values())):
            if one.kind is one.VAR_KEYWORD:
                graph.placeholder(f"**{one.name}")
            elif one.name not in names and one.default is not one.empty:
                graph.placeholder(one.name, None, None if isinstance(one.default, fx.Node) else one.default)


def _apart(module: nn.Module, train: bool, tensors: int | None) -> nn.Module:
    """Give a second object with the same children, so that nothing is written to the module."""
    made: nn.Module = object.__new__(_with_names(type(module), tensors or 1))
    for name, value in vars(module).items():
        vars(made)[name] = copy.copy(value) if isinstance(value, (dict, list, set)) else value
    vars(made)["training"] = train
    return made


def _left_out(module: nn.Module, tensors: int | None) -> dict[str, Any] | None:
    """Give the optional arguments of the forward that it is not given, with their defaults."""
    listed = list(inspect.signature(module.forward).parameters.values())
    optional = {one.name: one.default for one in listed[tensors or 1 :] if one.default is not one.empty}
    return optional or None


def _joined(graph: Graph, train: Graph, where: str) -> None:
    """Make the evaluation graph right for training too: arguments that follow the flag read it."""
    ours, theirs = list(graph.nodes), list(train.nodes)
    if [(one.op, _named(one)) for one in ours] != [(one.op, _named(one)) for one in theirs]:
        raise EditError(
            "the forward does other things in training than in evaluation, so it can't be rewritten",
            where=where,
            hint="change its code, or replace the module",
        )
    for mine, other in zip(ours, theirs, strict=True):
        mine.args = tuple(_either(graph, mine, *pair) for pair in zip(mine.args, other.args, strict=True))
        mine.kwargs = {name: _either(graph, mine, mine.kwargs[name], other.kwargs[name]) for name in mine.kwargs}


def _either(graph: Graph, node: Node, ours: Any, theirs: Any) -> Any:
    if ours is False and theirs is True:
        with graph.inserting_before(node):
            return graph.create_node("get_attr", "training")
    if repr(ours) != repr(theirs):
        raise EditError("the forward computes with other numbers in training, so it can't be rewritten")
    return ours


def _named(node: Node) -> str:
    return plain(node.target if isinstance(node.target, str) else getattr(node.target, "__name__", ""))


def calls(graph: Graph, operation: str) -> list[Node]:
    """Give the calls of an operation, or of a child, in order."""
    wanted = plain(operation)
    return [
        node
        for node in graph.nodes
        if (node.op == "call_module" and node.target == operation)
        or (node.op in ("call_function", "call_method") and _named(node) == wanted)
    ]


def operands(node: Node) -> list[Node]:
    """Give the tensors of a call in order, one that is given twice twice; sizes and weights are left out."""
    from torch.fx.node import map_arg

    found: list[Node] = []

    def seen(one: Node) -> Node:
        found.append(one)
        return one

    map_arg((node.args, node.kwargs), seen)
    return [one for one in found if one.op != "get_attr" and not _is_size(one)]


def _is_size(node: Node) -> bool:
    name = _named(node)
    if node.op == "call_method" and name in ("size", "dim", "numel"):
        return True
    if node.op == "call_function" and name == "getattr":
        return node.args[1] in ("shape", "ndim", "dtype", "device")
    return node.op == "call_function" and bool(node.all_input_nodes) and all(map(_is_size, node.all_input_nodes))


def set_arguments(node: Node, arguments: Mapping[str, Any], where: str) -> None:
    """Set arguments of a call by name.

    Raises:
        EditError: the operation's arguments are not known by name.
    """
    names = _ARGUMENTS.get(_named(node)) or _signature(node.target)
    for name, value in arguments.items():
        if names and name not in names:
            raise EditError(
                f"'{_named(node)}' has no argument '{name}'", where=where, hint=f"it takes {', '.join(names)}"
            )
        place = names.index(name) if name in names else len(node.args)
        if place < len(node.args):
            node.update_arg(place, value)
        else:
            node.kwargs = {**node.kwargs, name: value}


def _signature(target: Any) -> tuple[str, ...]:
    try:
        return tuple(inspect.signature(target).parameters) if callable(target) else ()
    except (TypeError, ValueError):
        return ()


def turned(node: Node, into: str, arguments: Mapping[str, Any]) -> None:
    """Make a call another one: a flatten of its first tensor, or that tensor itself."""
    import torch

    first = operands(node)[0]
    graph = node.graph
    if into == "flatten":
        with graph.inserting_before(node):
            instead = graph.call_function(torch.flatten, (first,), dict(arguments))
    else:
        instead = first
    node.replace_all_uses_with(instead)
    graph.erase_node(node)


def renewed(module: nn.Module, graph: Graph) -> type[nn.Module]:
    """Make the class of the module again with the graph as its forward."""
    code = graph.python_code("self")
    cls = type(module)
    source = f"# the forward of {cls.__name__}, rewritten\n{code.src.strip()}\n"
    file = f"<rewritten {cls.__name__} {id(graph)}>"
    names = dict(code.globals)
    exec(compile(source, file, "exec"), names)
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    return derived(cls, names["forward"])


def derived(cls: type[nn.Module], forward: Callable[..., Any]) -> type[nn.Module]:
    """Give a class that differs in its forward alone, and is copied with it."""
    from torch import fx

    body = {"forward": forward, "__module__": cls.__module__, "__doc__": cls.__doc__}
    if issubclass(cls, fx.GraphModule):  # a copy of one is made from its graph, and would lose the new forward
        body["__deepcopy__"] = _copied
    made: type[nn.Module] = type(cls.__name__, (cls,), body)
    return made


def _copied(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    made: nn.Module = object.__new__(type(module))
    memo[id(module)] = made
    vars(made).update(copy.deepcopy(vars(module), memo))
    return made
