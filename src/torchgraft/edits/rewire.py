"""Rewire: change one call in a module's forward, where no module stands that an edit could name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from torchgraft.edits.base import Edit
from torchgraft.errors import EditError
from torchgraft.family import kind_of
from torchgraft.modulespec import ModuleSpec
from torchgraft.schema import Name
from torchgraft.surgery.build import build
from torchgraft.surgery.forward import calls, captured, operands, renewed, set_arguments, turned
from torchgraft.surgery.standing import free_name

if TYPE_CHECKING:
    from torch import nn
    from torch.fx import Node

    from torchgraft.surgery.journal import Surgery
    from torchgraft.trace import Trace, Value

__all__ = ["Rewire", "number_of"]


class Rewire(Edit):
    """Rewrite one call in the forward of the module `at`: the module itself, its children and keys stay.

    The forward is captured by torch.fx with every child as it is, the call is changed, and the module gets a
    class of its own with the new forward. A new module may be put on one operand of the call, arguments may be
    set, or the call may become a flatten or nothing at all.

    Attributes:
        at: the module whose forward is rewritten; empty for the model itself.
        operation: what is called there: an operation such as `cat`, `add`, `view`, or a child such as `fc`.
        number: which of its calls, from 0, in the order of the pass.
        module: a new module, put on an operand of the call.
        operand: which tensor of the call passes through it, from 0.
        name: under which the new module is held.
        arguments: arguments of the call to set, such as `{dim: 1}`.
        becomes: `flatten` makes the call torch.flatten of its first tensor, `nothing` takes it out.
    """

    at: str = ""
    operation: str
    number: Annotated[int, Field(strict=True, ge=0)] = 0
    module: ModuleSpec | None = None
    operand: Annotated[int, Field(strict=True, ge=0)] = 0
    name: Name | None = None
    arguments: dict[str, Any] = Field(default_factory=dict)
    becomes: Literal["flatten", "nothing"] | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.module is None and not self.arguments and self.becomes is None:
            raise ValueError("a rewire names module, arguments or becomes")
        return self

    def apply(self, surgery: Surgery) -> Rewire:
        """Capture the forward, change the call, and give the module a class with the new forward.

        Raises:
            EditError: the forward can't be captured, or there is no such call.
        """
        host = surgery.module(self.at) if self.at else surgery.model
        traced = surgery.look(False)
        given = traced.calls_of(self.at)
        graph = captured(host, self.at, tensors=len(given[0].given) if given else None)
        node = self._call(calls(graph, self.operation))
        done = self
        if self.module is not None:
            done = self._with_module(surgery, host, traced, node)
        if self.arguments and self.becomes != "flatten":
            set_arguments(node, self.arguments, self.at)
        if self.becomes is not None:
            turned(node, self.becomes, self.arguments)
        graph.lint()
        surgery.recast(host, renewed(host, graph))
        return done

    def _call(self, found: list[Node]) -> Node:
        if self.number >= len(found):
            raise EditError(
                f"the forward calls '{self.operation}' {len(found)} times, so there is no call {self.number}",
                where=self.at or "(the model itself)",
                hint="calls are counted from 0; trace() shows the operations of each module",
            )
        return found[self.number]

    def _with_module(self, surgery: Surgery, host: nn.Module, traced: Trace, node: Node) -> Rewire:
        assert self.module is not None
        operand = self._operand(node)
        module, spec = build(self.module, _arriving(traced, self), surgery, self.at)
        name = self.name or free_name(kind_of(spec.of.rpartition(".")[2].rpartition(":")[2]), host)
        surgery.insert(self.at, name, module, after=next(reversed(host._modules), None))
        with node.graph.inserting_before(node):
            passed = node.graph.call_module(name, (operand,))
        _pass_through(node, operand, passed, self.operand)
        return self.model_copy(update={"module": spec, "name": name})

    def _operand(self, node: Node) -> Node:
        found = operands(node)
        if self.operand >= len(found):
            raise EditError(
                f"'{self.operation}' takes {len(found)} tensors, so there is no operand {self.operand}",
                where=self.at or "(the model itself)",
                hint="operands are counted from 0",
            )
        return found[self.operand]

    def sentence(self) -> str:
        """Say what is called differently."""
        which = f"call {self.number} of {self.operation}" if self.number else self.operation
        home = f"{which} in {self.at or 'the model'}"
        told = []
        if self.module is not None:
            told.append(f"tensor {self.operand} of {home} passes through {self.module}")
        if self.becomes == "nothing":
            told.append(f"{home} is taken out")
        elif self.becomes is not None:
            told.append(f"{home} becomes {self.becomes}({_written(self.arguments)})")
        elif self.arguments:
            told.append(f"{home} gets {_written(self.arguments)}")
        return "; ".join(told)


def _written(arguments: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in arguments.items())


def number_of(run: Trace, path: str, operation: str) -> int:
    """Count the calls of an operation in the latest call of a module, up to where the pass ended."""
    return len(_ops(run, path, operation))


def _ops(run: Trace, path: str, operation: str) -> list[tuple[int, ...]]:
    """Give the inputs of each such operation in the first call of the module, in order."""
    from torchgraft.surgery.forward import plain

    home = run.calls_of(path)
    first, last = (home[-1].first_op, home[-1].last_op) if home else (0, len(run.ops))
    wanted = plain(operation)
    return [op.inputs for op in run.ops[first:last] if op.path == path and plain(op.name) == wanted]


def _arriving(run: Trace, edit: Rewire) -> list[Value]:
    """Give the tensor that arrives at the operand, from the trace; nothing where the pass never came there."""
    child = f"{edit.at}.{edit.operation}" if edit.at else edit.operation
    met = [call.given for call in run.calls_of(child)] or _ops(run, edit.at, edit.operation)
    if edit.number == len(met) and run.mismatch is not None and run.mismatch.path == edit.at:
        met = [*met, run.mismatch.inputs]
    if edit.number >= len(met) or edit.operand >= len(met[edit.number]):
        return []
    return [run.values[met[edit.number][edit.operand]]]


def _pass_through(node: Node, operand: Node, passed: Node, place: int) -> None:
    """Put `passed` in the place of one operand, counted over the tensors of the call."""
    from torch.fx.node import map_arg

    left = [operands(node)[: place + 1].count(operand)]

    def turn(one: Node) -> Node:
        if one is operand:
            left[0] -= 1
            return passed if left[0] == 0 else one
        return one

    node.args = map_arg(node.args, turn)
    node.kwargs = map_arg(node.kwargs, turn)
