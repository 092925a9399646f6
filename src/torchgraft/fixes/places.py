"""Where a module can be put so that one tensor passes through it on its way to one operation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from torchgraft.edits.insert import Insert
from torchgraft.edits.rewire import Rewire, number_of
from torchgraft.modulespec import ModuleSpec
from torchgraft.surgery.forward import plain
from torchgraft.surgery.standing import is_sequence

if TYPE_CHECKING:
    from torchgraft.edits.base import Edit
    from torchgraft.fixes.cause import Edits, Fault
    from torchgraft.trace import Call, Op

__all__ = ["before_break", "before_call", "before_module", "before_op", "before_operands", "module_of"]


def before_break(fault: Fault, operand: int, spec: object) -> tuple[Edits, ...]:
    """Put a module on one operand of the operation that the pass broke off in."""
    at = fault.at
    assert at is not None
    number = number_of(fault.run, at.path, at.op)
    return _ways(fault, at.inputs[operand], None, (at.path, at.op, number, operand), spec)


def before_module(fault: Fault, spec: object) -> tuple[Edits, ...]:
    """Put a module before the module that the pass broke off in, or around it as far as the same tensor comes."""
    at = fault.at
    assert at is not None
    given = fault.run.calls_of(at.path)[-1].given
    return _ways(fault, given[0], None, (at.path, "forward", 0, 0), spec)


def before_operands(fault: Fault, specs: dict[int, object]) -> tuple[Edits, ...]:
    """Put a module on each of these tensors of the failing module's call, in the forward of its parent."""
    assert fault.at is not None
    parent, _, child = fault.at.path.rpartition(".")
    edits = [
        Rewire(at=parent, operation=child, operand=place, module=ModuleSpec.model_validate(spec))
        for place, spec in specs.items()
    ]
    return (tuple(edits),) if child else ()


def before_call(fault: Fault, value: int, spec: object) -> tuple[Edits, ...]:
    """Put a module before the modules that were given a tensor when the pass broke off, the innermost first."""
    module = ModuleSpec.model_validate(spec)
    calls = [call for call in _consumers(fault, value, None) if call.given[0] == value]
    return tuple((Insert(module=module, before=call.path),) for call in reversed(calls))


def before_op(fault: Fault, op: Op, operand: int, spec: object) -> tuple[Edits, ...]:
    """Put a module on one operand of an operation that was passed."""
    number = _number(fault, op)
    return _ways(fault, op.inputs[operand], op, (op.path, op.name, number, operand), spec)


def _number(fault: Fault, op: Op) -> int:
    """Count the operations of the same name before this one in its module's own forward."""
    calls = [call for call in fault.run.calls_of(op.path) if call.first_op <= op.index < call.last_op]
    first = calls[-1].first_op if calls else 0
    same = [one for one in fault.run.ops[first : op.index] if one.path == op.path]
    return sum(plain(one.name) == plain(op.name) for one in same)


def module_of(fault: Fault, op: Op) -> str | None:
    """Give the path of the module that is nothing but this operation, such as an nn.Flatten."""
    calls = [call for call in fault.run.calls_of(op.path) if call.first_op <= op.index < call.last_op]
    alone = op.path and calls and calls[-1].last_op - calls[-1].first_op == 1
    return op.path if alone else None


def _ways(
    fault: Fault, value: int, op: Op | None, home: tuple[str, str, int, int], spec: object
) -> tuple[Edits, ...]:
    """List the places: those that move no key first, then a rewritten forward, then a wrapper around a layer."""
    module = ModuleSpec.model_validate(spec)
    made = list(_neighbours(fault, value, op, home, module))
    light = [edit for edit in made if _light(fault, edit)]
    heavy = [edit for edit in made if edit not in light]
    return tuple((edit,) for edit in (*light, *_rewired(fault, value, op, home, module), *heavy))


def _neighbours(
    fault: Fault, value: int, op: Op | None, place: tuple[str, str, int, int], module: ModuleSpec
) -> Iterator[Insert]:
    """Insert before a module that takes the tensor, the outermost first, or after one that gave it."""
    path, name, _, _ = place
    home = f"{path}." if name == "forward" else "/"  # what a module does with its own tensor is its own affair
    readers = [one for one in fault.run.ops if value in one.inputs and one is not op]
    alone = all(f"{one.path}.".startswith(home) for one in readers)
    for call in _consumers(fault, value, op) if alone else ():
        if call.given[0] == value and path and (call.path == path or path.startswith(f"{call.path}.")):
            yield Insert(module=module, before=call.path)
    for call in fault.run.calls:
        inside = all(call.first_op <= one.index < call.last_op for one in readers)
        if call.path and call.gave == (value,) and value not in call.given and inside:
            yield Insert(module=module, after=call.path)


def _consumers(fault: Fault, value: int, op: Op | None) -> Iterator[Call]:
    for call in fault.run.calls:
        broke = not call.gave and op is None
        around = op is not None and call.first_op <= op.index < call.last_op
        if call.path and call.given and (broke or around):
            yield call


def _light(fault: Fault, edit: Insert) -> bool:
    """Tell whether an insert moves no key: into a Sequential, or around a module without tensors."""
    home, _, _ = edit.at.rpartition(".")
    parent, neighbour = fault.modules.get(home), fault.modules.get(edit.at)
    if parent is None or neighbour is None:
        return False
    return is_sequence(parent) or is_sequence(neighbour) or not neighbour.state_dict()


def _rewired(
    fault: Fault, value: int, op: Op | None, home: tuple[str, str, int, int], module: ModuleSpec
) -> Iterator[Edit]:
    """Put the module on the operand of a functional call, or of the call of a child."""
    path, name, number, operand = home
    if name != "forward" and not _is_layer(fault, path, op):
        yield Rewire(at=path, operation=plain(name), number=number, operand=operand, module=module)
    for call in _consumers(fault, value, op):
        parent, _, child = call.path.rpartition(".")
        within = path == call.path or path.startswith(f"{call.path}.")
        if within and call.given[0] == value and fault.modules.get(call.path) is not None:
            yield Rewire(at=parent, operation=child, module=module)


def _is_layer(fault: Fault, path: str, op: Op | None) -> bool:
    """Tell whether the operation is all that a layer does."""
    module = fault.modules.get(path)
    return module is not None and type(module).__module__.startswith("torch.nn")
