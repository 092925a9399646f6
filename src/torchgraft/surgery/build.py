"""Build a module from its description, with the sizes that its place determines read off the trace."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torchgraft.blocks.base import Block
from torchgraft.blocks.layout import Laid, layout_of
from torchgraft.errors import EditError, RecipeError, nearest
from torchgraft.modulespec import ModuleSpec, as_arguments, foreign_class
from torchgraft.rng import drawn_from
from torchgraft.surgery.arguments import Place, arguments, resolved

if TYPE_CHECKING:
    from torch import nn

    from torchgraft.surgery.journal import Surgery
    from torchgraft.trace import Value

__all__ = ["build"]


def build(
    spec: ModuleSpec, arriving: Sequence[Value], surgery: Surgery, where: str
) -> tuple[nn.Module, ModuleSpec]:
    """Build a module for a place.

    Args:
        spec: what to build; a module handed over in Python is taken as it is.
        arriving: the tensors that the place is given, batch included.
        surgery: gives the seed, the trust, and the device and dtype of the model.
        where: the place, for messages.

    Returns:
        the module, and the description with every size written out.
    """
    from torchgraft.trace.layout import side

    if spec.foreign and not surgery.trust:
        raise EditError(
            f"'{spec}' runs code of your own",
            where=where,
            hint="allow it with --trust, or trust=True in Python",
        )
    if spec.module is not None:
        return spec.module, spec
    place = (
        Place(where, arriving[0].shape, side(surgery.look(False), arriving[0])) if arriving else Place(where, None)
    )
    with drawn_from(surgery.seed):
        module, done, _ = _built(spec, place)
    return _placed(module, surgery.model), done


def _placed(module: nn.Module, model: nn.Module) -> nn.Module:
    """Move a new module to where the model is."""
    first = next((p for p in model.parameters() if p.is_floating_point()), None)
    return module if first is None else module.to(device=first.device, dtype=first.dtype)


_Built = tuple["nn.Module", ModuleSpec, Callable[[], Place]]
"""The module, its description with every size written out, and what finds out what it gives."""


def _built(spec: ModuleSpec, place: Place) -> _Built:
    if spec.module is not None:
        return _with_shape(spec.module, spec, place)
    if spec.of == "Sequential":
        return _sequence(spec, place)
    if spec.of == "object":
        raise EditError(
            f"the module {spec.args.get('class', '')} was handed over in Python and can't be built again",
            where=place.where,
            hint="name its class as package.module:Class, or hand the module over again: tg.open(…, objects={…})",
        )
    return _block(spec, place) if spec.of.startswith("block.") else _instance(spec, place)


def _sequence(spec: ModuleSpec, place: Place) -> _Built:
    from torch import nn

    modules, items = [], []
    arrives: Callable[[], Place] = lambda: place  # noqa: E731
    for number, item in enumerate(spec.items):
        module, done, arrives = _built(item, replace(arrives(), where=f"{place.where}.{number}"))
        modules.append(module)
        items.append(done)
    return nn.Sequential(*modules), spec.model_copy(update={"items": tuple(items)}), arrives


def _block(spec: ModuleSpec, place: Place) -> _Built:
    from torchgraft.blocks.multi_path import MultiPath

    block = Block.named(spec.of.removeprefix("block.")).model_validate(spec.args)
    shape = place.known(spec.of)
    if isinstance(block, Laid) and block.layout is None:
        block = block.model_copy(update={"layout": layout_of(len(shape), last=place.side == "last")})
    parts: dict[str, tuple[ModuleSpec, ...]] = {}
    try:
        block = block.fitted(shape)
        if isinstance(block, MultiPath):
            paths = [_built(one, place.inside(f"paths.{number}")) for number, one in enumerate(block.paths)]
            module = block.joined([one for one, _, _ in paths], shape, [gives().shape for _, _, gives in paths])
            parts = {"paths": tuple(done for _, done, _ in paths)}
        else:
            module = block.build()
    except EditError as error:
        raise error if error.where.startswith(place.where) else _placed_error(error, place) from None
    except (RuntimeError, ValueError, AssertionError, TypeError) as error:
        raise EditError(
            f"{spec.of} can't be built: {error}", where=place.where, hint="correct its settings"
        ) from error
    plain = block.model_copy(update=dict.fromkeys(parts, ())).brief()
    return _with_shape(module, spec.model_copy(update={"args": {**plain, **parts}}), place)


def _placed_error(error: EditError, place: Place) -> EditError:
    return EditError(error.what, where=place.where, hint=error.hint)


def _instance(spec: ModuleSpec, place: Place) -> _Built:
    """Build a class of torch.nn, or of the user's own."""
    from torch.nn.modules.lazy import LazyModuleMixin

    own = ":" in spec.of
    cls: Any = foreign_class(spec.of) if own else _torch_class(spec.of, place.where)
    args = arguments(spec, cls, place)
    called, written = resolved(args, place, lambda one, there: _built(one, there)[:2])
    try:
        module = cls(**(called if own else as_arguments(called)))
    except Exception as error:  # whatever the class raises about what it is given
        if not own and not isinstance(error, (TypeError, ValueError, RuntimeError, AssertionError, KeyError)):
            raise
        hint = _correction(spec, cls, args)
        raise EditError(f"{spec.of} can't be built: {error}", where=place.where, hint=hint) from error
    if isinstance(module, LazyModuleMixin):
        raise EditError(
            f"{spec.of} finds its sizes when it is first run",
            where=place.where,
            hint=f"take nn.{kind_without_lazy(spec.of)} and leave its sizes open: they are read off the place",
        )
    if not hasattr(module, "named_modules"):
        raise EditError(
            f"{spec.of} gives a {type(module).__name__}, which is no module",
            where=place.where,
            hint="name a subclass of torch.nn.Module, or a function that gives one",
        )
    return _with_shape(module, spec.model_copy(update={"args": written}), place)


def _correction(spec: ModuleSpec, cls: Any, args: dict[str, Any]) -> str:
    """Say which arguments would do, where that is known: groups that divide the channels."""
    groups, channels = args.get("num_groups"), args.get("num_channels")
    if spec.of == "nn.GroupNorm" and isinstance(groups, int) and isinstance(channels, int):
        return f"num_groups={math.gcd(groups, channels)} divides {channels} channels and {groups} groups"
    try:
        taken = inspect.signature(cls).parameters.values()
    except (TypeError, ValueError):
        return "correct its arguments"
    plain = [str(one.replace(annotation=one.empty)) for one in taken if one.name not in ("device", "dtype")]
    return f"correct its arguments: {spec.of.removeprefix('nn.')}({', '.join(plain)})"


def _with_shape(module: nn.Module, spec: ModuleSpec, place: Place) -> _Built:
    """Let the shape that a module gives be found, on fake tensors, where something after it asks.

    A layer that was given a wrong size is tried on what it takes, so that those after it can still be built and
    the check says what does not fit. None where it does not run at all.
    """
    return module, spec, functools.cache(functools.partial(_given_by, module, place))


def _given_by(module: nn.Module, place: Place) -> Place:
    import torch

    from torchgraft.trace import trace
    from torchgraft.trace.layout import side

    for tried in (place.shape, _taken(module, place.shape)):
        if not tried:
            continue
        run = trace(module, torch.empty(tried, device="meta"))
        gave = [run.values[number] for number in run.outputs]
        if gave:
            there = place.side if gave[0].shape == tried else side(run, gave[0])
            return replace(place, shape=gave[0].shape, side=there)
    return replace(place, shape=None)


def _taken(module: nn.Module, shape: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """Give the shape as the layer would take it: with its own channels or features."""
    if shape is None or len(shape) < 2:
        return None
    held: dict[str, Any] = vars(module)
    if "in_features" in held:
        return (*shape[:-1], held["in_features"])
    channels = held.get("in_channels") or held.get("num_features")
    return (shape[0], channels, *shape[2:]) if channels else None


def kind_without_lazy(of: str) -> str:
    """Name the plain class of a lazy one: `nn.LazyLinear` -> `Linear`."""
    return of.rpartition(".")[2].removeprefix("Lazy")


def _torch_class(of: str, where: str) -> type[nn.Module]:
    from torch import nn

    name = of.removeprefix("nn.")
    cls = getattr(nn, name, None)
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        known = [key for key, one in vars(nn).items() if isinstance(one, type)]
        raise RecipeError(f"torch.nn has no class '{name}'", where=where, hint=nearest(name, known))
    made: type[nn.Module] = cls
    return made
