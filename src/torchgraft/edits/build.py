"""Build a module from its description, with the sizes that its place determines read off the trace."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torchgraft.blocks.base import Block
from torchgraft.errors import EditError, RecipeError, nearest
from torchgraft.modulespec import ModuleSpec, as_arguments, foreign_class

if TYPE_CHECKING:
    from torch import nn

    from torchgraft.edits.surgery import Surgery
    from torchgraft.trace import Value

__all__ = ["build", "open_size"]

_FROM_CHANNELS = ("Conv", "BatchNorm", "InstanceNorm", "GroupNorm", "SyncBatchNorm")


def open_size(kind: str) -> str | None:
    """Name the argument of a torch.nn class that its place determines: `Conv2d` -> `in_channels`."""
    if kind.startswith("Conv"):
        return "in_channels"
    if kind.startswith(("BatchNorm", "InstanceNorm", "SyncBatchNorm")):
        return "num_features"
    return {
        "Linear": "in_features",
        "GroupNorm": "num_channels",
        "LayerNorm": "normalized_shape",
        "RMSNorm": "normalized_shape",
        "LSTM": "input_size",
        "GRU": "input_size",
        "RNN": "input_size",
        "MultiheadAttention": "embed_dim",
    }.get(kind)


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
    import torch

    if spec.foreign and not surgery.trust:
        raise EditError(
            f"'{spec}' runs code of your own",
            where=where,
            hint="allow it with --trust, or trust=True in Python",
        )
    if spec.module is not None:
        return spec.module, spec
    shape = arriving[0].shape if arriving else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(surgery.seed)
        module, done, _ = _built(spec, shape, where)
    return _placed(module, surgery.model), done


def _placed(module: nn.Module, model: nn.Module) -> nn.Module:
    """Move a new module to where the model is."""
    first = next((p for p in model.parameters() if p.is_floating_point()), None)
    return module if first is None else module.to(device=first.device, dtype=first.dtype)


_Shape = tuple[int, ...] | None


def _built(spec: ModuleSpec, shape: _Shape, where: str) -> tuple[nn.Module, ModuleSpec, _Shape]:
    from torch.nn.modules.lazy import LazyModuleMixin

    if spec.of == "Sequential":
        return _sequence(spec, shape, where)
    if spec.of == "object":
        raise EditError(
            f"the module {spec.args.get('class', '')} was handed over in Python and can't be built again",
            where=where,
            hint="name its class as package.module:Class, or hand the module over again: tg.open(…, objects={…})",
        )
    if spec.of.startswith("block."):
        block = Block.named(spec.of.removeprefix("block.")).model_validate(spec.args)
        block = block.fitted(_known(shape, where, spec))
        return _with_shape(block.build(), spec.model_copy(update={"args": block.brief()}), shape)
    cls = foreign_class(spec.of) if spec.foreign else _torch_class(spec.of, where)
    args = _sized(spec, shape, where)
    try:
        module = cls(**(args if spec.foreign else as_arguments(args)))
    except (TypeError, ValueError, RuntimeError, AssertionError, KeyError) as error:
        raise EditError(f"{spec.of} can't be built: {error}", where=where, hint=_correction(spec, args)) from error
    if isinstance(module, LazyModuleMixin):
        raise EditError(
            f"{spec.of} finds its sizes when it is first run",
            where=where,
            hint=f"take nn.{kind_without_lazy(spec.of)} and leave its sizes open: they are read off the place",
        )
    return _with_shape(module, spec.model_copy(update={"args": args}), shape)


def _correction(spec: ModuleSpec, args: dict[str, Any]) -> str:
    """Say which arguments would do, where that is known: groups that divide the channels."""
    groups, channels = args.get("num_groups"), args.get("num_channels")
    if spec.of == "nn.GroupNorm" and isinstance(groups, int) and isinstance(channels, int):
        return f"num_groups={math.gcd(groups, channels)} divides {channels} channels and {groups} groups"
    return "correct its arguments"


def _sequence(spec: ModuleSpec, shape: _Shape, where: str) -> tuple[nn.Module, ModuleSpec, _Shape]:
    from torch import nn

    modules, items = [], []
    for number, item in enumerate(spec.items):
        module, done, shape = _built(item, shape, f"{where}.{number}")
        modules.append(module)
        items.append(done)
    return nn.Sequential(*modules), spec.model_copy(update={"items": tuple(items)}), shape


def _with_shape(module: nn.Module, spec: ModuleSpec, shape: _Shape) -> tuple[nn.Module, ModuleSpec, _Shape]:
    """Find the shape that a module gives, on fake tensors.

    A layer that was given a wrong size is tried on what it takes, so that those after it can still be built and
    the check says what does not fit. None where it does not run at all.
    """
    import torch

    from torchgraft.trace import trace

    for tried in (shape, _taken(module, shape)):
        gave = trace(module, torch.empty(tried, device="meta")).output_shapes() if tried else []
        if gave:
            return module, spec, gave[0]
    return module, spec, None


def _taken(module: nn.Module, shape: _Shape) -> _Shape:
    """Give the shape as the layer would take it: with its own channels or features."""
    if shape is None or len(shape) < 2:
        return None
    held: dict[str, Any] = vars(module)
    if "in_features" in held:
        return (*shape[:-1], held["in_features"])
    channels = held.get("in_channels") or held.get("num_features")
    return (shape[0], channels, *shape[2:]) if channels else None


def _known(shape: _Shape, where: str, spec: ModuleSpec) -> tuple[int, ...]:
    if shape is None:
        raise EditError(
            f"the sizes of {spec.of} can't be read off its place, which is given no tensor that fits",
            where=where,
            hint="write the sizes out, or correct the module before it",
        )
    return shape


def _sized(spec: ModuleSpec, shape: _Shape, where: str) -> dict[str, Any]:
    kind = spec.of.removeprefix("nn.")
    name = open_size(kind)
    if spec.foreign or name is None or name in spec.args:
        return dict(spec.args)
    arrives = _known(shape, where, spec)
    size = arrives[1] if kind.startswith(_FROM_CHANNELS) and len(arrives) > 1 else arrives[-1]
    return {name: size, **spec.args}


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
