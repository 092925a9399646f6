"""Adapt: restore the contract of the edited place, and touch no other parameter."""

from __future__ import annotations

from torchgraft.edits.base import Edit
from torchgraft.edits.insert import Insert
from torchgraft.edits.remove import Remove
from torchgraft.edits.replace import Replace
from torchgraft.edits.route import Route
from torchgraft.modulespec import ModuleSpec
from torchgraft.repair.bench import Bench, free_name, within
from torchgraft.repair.contract import contract, projection, side
from torchgraft.repair.elastic import Elastic
from torchgraft.repair.given import asked
from torchgraft.repair.inside import fit_inside
from torchgraft.surgery.standing import is_sequence
from torchgraft.trace import Trace, Value

__all__ = ["adapt", "fitted", "restore"]


def adapt(bench: Bench, edit: Edit, added: list[str], before: Trace) -> None:
    """Restore the contract of the edited place.

    Args:
        bench: the model, with the edit applied.
        edit: the edit that does not fit.
        added: the paths that it put in.
        before: the trace in evaluation mode from before the edit.
    """
    if isinstance(edit, Remove):
        _bridge(bench, edit, before)
        return
    wanted = contract(edit, before)
    if wanted is None or len(added) != 1:
        return
    restore(bench, fitted(bench, edit, added[0], before), wanted, before)


def fitted(bench: Bench, edit: Edit, place: str, before: Trace) -> str:
    """Fit a new module to all that its place is given, and say where it is then."""
    if isinstance(edit, Insert) and edit.start:
        place = f"{place}.block"
    if isinstance(edit, Replace):
        place = _route(bench, place, before)
    fit_inside(bench, place)
    at = bench.trace().mismatch
    if at is not None and within(at.path, place):
        # What arrives may be no activation, or several layers must change at once.
        elastic = Elastic(bench.module, before, place, inside=True)
        elastic.settle(train=False)
        for step in elastic.mould.resizes(bench.module, place):
            bench.do(step)
    return place


def _route(bench: Bench, place: str, before: Trace) -> str:
    """Where the place is given more than one tensor, or gives a pair, let the module stand there all the same."""
    pair = before.kinds.get(place) == "MultiheadAttention"
    run = bench.trace()
    given = asked(bench.module, place, run) if pair or _not_taken(run, place) else None
    if given is None or (len(given.names) == 1 and given.feed == 0 and not pair):
        return place
    return bench.do(Route(at=place, takes=given.names, feed=given.feed, dim=given.dim, pair=pair))[0]


def _not_taken(run: Trace, place: str) -> bool:
    """Tell whether the pass broke off because a module does not take what it is given, whatever the sizes."""
    at = run.mismatch
    if at is None or not within(at.path, place):
        return False
    return at.op == "forward" or at.error in ("TypeError", "AttributeError")


def restore(bench: Bench, place: str, wanted: Value, before: Trace) -> None:
    """Project what the new module gives back to what the place gave."""
    run = bench.trace()
    gave = run.gave(place)
    is_output = any(before.values[number] is wanted for number in before.outputs)
    if len(gave) != 1 or is_output or gave[0].shape == wanted.shape or gave[0].shape[:1] != wanted.shape[:1]:
        return
    there = side(before, wanted)
    here = there if len(gave[0].shape) == len(wanted.shape) else side(run, gave[0])
    spec = ModuleSpec.model_validate(projection(gave[0].shape, wanted.shape, there, here))
    bench.do(Insert(module=spec, after=place, name=free_name(bench.module, place)))


def _bridge(bench: Bench, edit: Remove, before: Trace) -> None:
    """Put a projection where a module was taken out."""
    given, gave = before.given(edit.at), before.gave(edit.at)
    if len(given) != 1 or len(gave) != 1 or given[0].shape == gave[0].shape:
        return
    shapes = given[0].shape, gave[0].shape
    spec = ModuleSpec.model_validate(projection(*shapes, side(before, gave[0]), side(before, given[0])))
    home, _, name = edit.at.rpartition(".")
    parent = dict(bench.module.named_modules())[home]
    if not is_sequence(parent):
        bench.do(Insert(module=spec, after=edit.at, name=free_name(bench.module, edit.at)))
        return
    prefix = f"{home}." if home else ""
    siblings = [
        path for path in before.kinds if path.startswith(prefix) and "." not in path[len(prefix) :] and path
    ]
    place = siblings.index(edit.at)
    if place:
        bench.do(Insert(module=spec, after=siblings[place - 1], name=f"{name}_fit"))
    elif len(siblings) > 1:
        bench.do(Insert(module=spec, before=siblings[1], name=f"{name}_fit"))
