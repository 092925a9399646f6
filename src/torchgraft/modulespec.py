"""A module to put into a model, as data.

    {nn.Conv2d: {out_channels: 256, kernel_size: 3, padding: 1}}    a class of torch.nn
    {block.SqueezeExcite: {reduction: 4}}                           a block of torchgraft
    {my.package:Class: {width: 8}}                                  the user's own; needs trust
    [{nn.Conv2d: …}, {nn.ReLU: {}}]                                 a Sequential of them
    {object: CustomBlock}                                           a module that was handed over in Python

Sizes that the place determines (`in_channels`, `in_features`, `num_features`, …) may be left out. Arguments may be
a list, by their order; a module as an argument is written in the same way; a class or function of torch is named:

    {nn.TransformerEncoder: {num_layers: 2, encoder_layer: {nn.TransformerEncoderLayer: {nhead: 4}}}}
    {nn.TransformerEncoderLayer: {nhead: 4, activation: torch.nn.functional.silu}}
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field, PrivateAttr, ValidationError, model_serializer, model_validator

from torchgraft.blocks.base import Block
from torchgraft.errors import RecipeError, nearest
from torchgraft.schema import Schema
from torchgraft.wording import needed

if TYPE_CHECKING:
    from torch import nn

__all__ = ["POSITIONAL", "ModuleSpec", "as_arguments", "foreign_class"]

POSITIONAL = "*"
"""The key of arguments that are given by their order."""


class ModuleSpec(Schema):
    """A module as data: `of` names what it is, `args` are its arguments, `items` those of a Sequential."""

    of: str
    args: dict[str, Any] = Field(default_factory=dict)
    items: tuple[ModuleSpec, ...] = ()
    _object: Any = PrivateAttr(default=None)

    @property
    def module(self) -> nn.Module | None:
        """The very module that was handed over in Python, if one was."""
        module: nn.Module | None = self._object
        return module

    @property
    def replays(self) -> bool:
        """Tell whether the module can be built again from this description alone."""
        return self.of != "object" and all(item.replays for item in self.nested)

    @property
    def foreign(self) -> bool:
        """Tell whether building it runs code that is neither torch's nor torchgraft's."""
        return ":" in self.of or any(item.foreign for item in self.nested)

    @property
    def nested(self) -> tuple[ModuleSpec, ...]:
        """The modules that this one is made of: those of a Sequential, and those among the arguments."""
        return (*self.items, *_within(self.args))

    @model_validator(mode="wrap")
    @classmethod
    def _read(cls, value: Any, handler: Any) -> ModuleSpec:
        made = _from_object(value)
        if made is not None:
            return made
        spec: ModuleSpec = handler(_normal(value))
        spec = spec.model_copy(update={"args": _parsed(spec)})
        _check_kind(spec)
        return spec

    @model_serializer
    def _write(self) -> Any:
        if self.of == "Sequential":
            return [item.model_dump() for item in self.items]
        parts = _parts(self.of)
        return {
            self.of: {
                key: [one.model_dump() for one in value] if key in parts else _dumped(value)
                for key, value in self.args.items()
            }
        }

    def __eq__(self, other: object) -> bool:
        """Two descriptions are equal when they say the same, whichever module was handed over."""
        return isinstance(other, ModuleSpec) and self.model_dump() == other.model_dump()

    __hash__ = None  # type: ignore[assignment]  # args may hold lists

    def __str__(self) -> str:
        if self.of == "object":
            return str(self.args.get("class"))
        if self.of == "Sequential":
            return f"{len(self.items)} modules ({', '.join(item.of for item in self.items)})"
        if self.of.startswith("block."):
            return str(Block.named(self.of.removeprefix("block.")).model_validate(self.args))
        named = [f"{key}={_shown(value)}" for key, value in self.args.items() if key != POSITIONAL]
        ordered = [_shown(value) for value in self.args.get(POSITIONAL, ())]
        return f"{self.of.removeprefix('nn.')}({', '.join(ordered + named)})"


def _shown(value: Any) -> str:
    return f"[{', '.join(map(_shown, value))}]" if isinstance(value, (list, tuple)) else str(value)


def _normal(value: Any) -> Any:
    """Turn the short forms of a recipe into the fields of ModuleSpec."""
    if isinstance(value, str):
        return {"of": value}
    if isinstance(value, Mapping) and len(value) == 1 and "of" not in value:
        ((of, args),) = value.items()
        if of == "object":
            return {"of": of, "args": {"class": args} if isinstance(args, str) else args}
        if of == "nn.Sequential" and isinstance(args, Sequence) and not isinstance(args, str):
            return {"of": "Sequential", "items": args}
        if isinstance(args, (int, float, list, tuple)):
            args = {POSITIONAL: list(args) if isinstance(args, (list, tuple)) else [args]}
        return {"of": of, "args": {} if args is None else args}
    if isinstance(value, Sequence):
        return {"of": "Sequential", "items": value}
    return value


def _parsed(spec: ModuleSpec) -> dict[str, Any]:
    """Read the descriptions of modules among the arguments."""
    if spec.of == "object":
        return spec.args
    parts = _parts(spec.of)
    return {
        key: _listed(key, value) if key in parts else _read_within(key, value) for key, value in spec.args.items()
    }


def _listed(key: str, value: Any) -> tuple[ModuleSpec, ...]:
    """Read a list of modules, each in any form."""
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{key} is a list of modules: write [{{nn.ReLU: {{}}}}, …]")
    return tuple(_nested(f"{key}[{number}]", one) for number, one in enumerate(value))


def _nested(key: str, value: Any) -> ModuleSpec:
    """Read a module within another; its faults are told in one sentence, since the fields around it are others."""
    try:
        return ModuleSpec.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join([key, *map(str, first["loc"][:-1])])
        if first["type"] == "extra_forbidden":
            raise ValueError(f"{where}: there is no setting '{first['loc'][-1]}'") from None
        raise ValueError(f"{'.'.join([key, *map(str, first['loc'])])}: {needed(first)[0]}") from None


def _parts(of: str) -> tuple[str, ...]:
    """Name the settings of a block that hold modules."""
    known = Block.registry.get(of.removeprefix("block."))
    return known.parts if known and of.startswith("block.") else ()


_SPEC = re.compile(r"nn\.\w+|block\.\w+|[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def _read_within(key: str, value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_read_within(f"{key}[{number}]", one) for number, one in enumerate(value)]
    keyed = isinstance(value, Mapping) and len(value) == 1 and _SPEC.fullmatch(str(next(iter(value))))
    is_module = isinstance(value, (ModuleSpec, Block)) or hasattr(value, "named_modules")
    return _nested(key, value) if keyed or (is_module and not isinstance(value, type)) else value


def _within(value: Any) -> Iterator[ModuleSpec]:
    """Give the modules among arguments, in order."""
    if isinstance(value, ModuleSpec):
        yield value
    elif isinstance(value, (Mapping, list, tuple)):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from _within(one)


def _dumped(value: Any) -> Any:
    if isinstance(value, ModuleSpec):  # among arguments a list would be a list of modules
        return {"nn.Sequential": value.model_dump()} if value.of == "Sequential" else value.model_dump()
    if isinstance(value, Mapping):
        return {key: _dumped(one) for key, one in value.items()}
    return [_dumped(one) for one in value] if isinstance(value, (list, tuple)) else value


def _check_kind(spec: ModuleSpec) -> None:
    of = spec.of
    if of.startswith("block."):
        try:
            block = Block.named(of.removeprefix("block."))
            if POSITIONAL in spec.args:
                raise ValueError(f"{of} takes its settings by name: {', '.join(block.model_fields)}")
            block.model_validate(spec.args)
        except RecipeError as error:
            raise ValueError(f"{error.what}; {error.hint}") from error
    elif not (of in ("Sequential", "object") or of.startswith("nn.") or ":" in of):
        raise ValueError(f"'{of}' is neither nn.<Class>, block.<Class> nor package.module:Class")


def _from_object(value: Any) -> ModuleSpec | None:
    """Describe a module or block that was handed over in Python."""
    if isinstance(value, ModuleSpec):
        return value
    if isinstance(value, Block):
        parts = {
            name: tuple(ModuleSpec.model_validate(one) for one in getattr(value, name)) for name in value.parts
        }
        plain = value.model_copy(update=dict.fromkeys(value.parts, ())).brief()
        return ModuleSpec.model_construct(of=f"block.{type(value).__name__}", args={**plain, **parts}, items=())
    if isinstance(value, type):
        from torch import nn

        known = getattr(nn, value.__name__, None) is value
        open_ = f"; or, with its sizes left open, {{'nn.{value.__name__}': {{…}}}}" if known else ""
        raise ValueError(f"hand over a module, not its class: {value.__name__}({_asked(value)}){open_}")
    if not hasattr(value, "named_modules"):
        return None
    spec = _described(value)
    spec._object = value
    return spec


def _asked(cls: type) -> str:
    """Name the arguments that a class must be given."""
    try:
        given = inspect.signature(cls).parameters.values()
    except (TypeError, ValueError):
        return "…"
    needed = [one.name for one in given if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD]
    return ", ".join(f"{name}=…" for name in needed) or "…"


def _described(module: nn.Module) -> ModuleSpec:
    from torch import nn

    if type(module) is nn.Sequential:
        items = tuple(_described(child) for child in module)
        numbered = [name for name, _ in module.named_children()] == [str(n) for n in range(len(items))]
        if numbered and all(item.replays for item in items):
            return ModuleSpec.model_construct(of="Sequential", args={}, items=items)
    args = _constructor_args(module)
    if args is None:
        return ModuleSpec.model_construct(of="object", args={"class": type(module).__name__}, items=())
    return ModuleSpec.model_construct(of=f"nn.{type(module).__name__}", args=args, items=())


def _constructor_args(module: nn.Module) -> dict[str, Any] | None:
    """Read the arguments of a torch.nn layer back off its attributes; None when that can't be sure."""
    from torch import nn

    cls = type(module)
    if _is_dressed(module):
        return None
    if cls is nn.Identity:  # it takes anything, and keeps nothing of it
        return {}
    if getattr(nn, cls.__name__, None) is not cls or any(True for _ in module.children()):
        return None
    args: dict[str, Any] = {}
    for name, parameter in inspect.signature(cls).parameters.items():
        if name in ("device", "dtype"):
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or not hasattr(module, name):
            return None
        value = getattr(module, name)
        if name == "bias" and not isinstance(value, bool):
            value = value is not None
        if value != parameter.default:
            args[name] = list(value) if isinstance(value, tuple) else value
    plain = all(isinstance(value, (int, float, str, bool, list, type(None))) for value in args.values())
    return args if plain and _same(cls, args, module) else None


def _is_dressed(module: nn.Module) -> bool:
    """Tell whether a layer has what its arguments do not say: hooks, or frozen parameters."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
    return any(hooks) or not all(parameter.requires_grad for parameter in module.parameters())


def _same(cls: type[nn.Module], args: dict[str, Any], module: nn.Module) -> bool:
    import torch

    try:
        with torch.device("meta"):
            again = cls(**as_arguments(args))
    except (TypeError, ValueError, RuntimeError):
        return False
    shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
    return repr(again) == repr(module) and {n: t.shape for n, t in again.state_dict().items()} == shapes


def as_arguments(args: Mapping[str, Any]) -> dict[str, Any]:
    """Give arguments as torch.nn takes them: what is a list in a recipe is a tuple there."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in args.items()}


def foreign_class(of: str) -> Any:
    """Import the class that `package.module:Class` names.

    Raises:
        RecipeError: there is no such module or class.
    """
    import importlib

    from torchgraft.sources.python import from_here

    home, _, name = of.partition(":")
    from_here()
    wanted = "name it as package.module:Class, importable from where torchgraft runs"
    try:
        module = importlib.import_module(home)
    except Exception as error:  # whatever the user's own code raises while it is imported
        raise RecipeError(f"'{of}' can't be imported: {error}", where=of, hint=wanted) from error
    if not hasattr(module, name):
        hint = nearest(name, vars(module)) or wanted
        raise RecipeError(f"'{of}' can't be imported: '{home}' has no '{name}'", where=of, hint=hint)
    return getattr(module, name)
