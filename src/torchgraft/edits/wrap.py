"""Wrap: put a module inside another, which calls it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from torchgraft.edits.base import Edit
from torchgraft.errors import EditError
from torchgraft.modulespec import ModuleSpec, foreign_class
from torchgraft.rng import drawn_from
from torchgraft.surgery.chain import skipped
from torchgraft.surgery.dressed import is_open
from torchgraft.surgery.standing import gate_like, look_like, moved_to

if TYPE_CHECKING:
    from torch import nn

    from torchgraft.surgery.journal import Surgery

__all__ = ["Wrap"]


def _read(value: Any) -> Any:
    """Describe a class or function that was handed over in Python, and refuse what can't hold a module."""
    from collections.abc import Mapping as Plain

    if callable(value) and (isinstance(value, type) or not hasattr(value, "named_modules")):
        spec = ModuleSpec.model_construct(
            of="object", args={"class": getattr(value, "__name__", "wrapper")}, items=()
        )
        spec._object = value
        return spec
    named = (
        value.of if isinstance(value, ModuleSpec) else next(iter(value), "") if isinstance(value, Plain) else value
    )
    if not isinstance(named, str) or not (named in ("residual", "gate", "object") or ":" in named):
        raise ValueError("a wrapper is 'residual', 'gate', package.module:Class, or in Python what takes a module")
    return value


class Wrap(Edit):
    """Put the module `at` inside another that calls it; its keys move, and `moved` says where.

    Attributes:
        at: the module f.
        with: `residual` gives x + f(x). `gate` gives x + g·f(x), with a learnt g from 0: f is switched off at
            first (Bachlechner et al., 2020, ReZero). A class `package.module:Class` takes f as its first argument;
            in Python, anything that takes a module and gives one that holds it.
        start: with `identity` the model starts as it was: `residual` is g·x + f(x) with g from 0, and `gate` is
            (1 - g)·x + g·f(x) with g from 1.
        moved: which keys moved; written when the edit is applied.
    """

    written: ClassVar[frozenset[str]] = frozenset({"moved"})
    at: str
    with_: Annotated[Literal["residual", "gate"] | ModuleSpec, BeforeValidator(_read)] = Field(alias="with")
    start: Literal["identity"] | None = None
    moved: dict[str, str] = Field(default_factory=dict)

    def apply(self, surgery: Surgery) -> Wrap:
        """Build the wrapper around the module, and hold it in the module's place.

        Raises:
            EditError: what the module takes and gives can't be added, or the wrapper does not hold it.
        """
        old = surgery.module(self.at)
        every = [one for one, held in surgery.model.named_modules(remove_duplicate=False) if held is old]
        if isinstance(self.with_, ModuleSpec):
            made, inner = _foreign(self.with_, old, surgery, self.at)
        else:
            _check_sum(surgery, self.at, old)
            made, inner = skipped(self.at, old, kind=self.with_, starts=self.start is not None), "base"
            gate_like(made, old, surgery.model)
        look_like(made, old)
        surgery.put(self.at, made)
        surgery.added[-1:] = [
            f"{self.at}.{name}"
            for name, part in made.named_children()
            if not any(one is old for one in part.modules())
        ]
        return self.model_copy(update={"moved": {f"{one}.{inner}": one for one in every}})

    def sentence(self) -> str:
        """Say what holds what."""
        if self.with_ == "residual":
            told = f"what {self.at} is given is added to what it gives"
            return f"{told}, from zero on" if self.start else told
        if self.with_ == "gate":
            told = f"{self.at} is gated beside what it is given"
            return f"{told}, and starts fully open" if self.start else f"{told}, and starts closed"
        return f"{self.at} is wrapped in {self.with_}"


def _check_sum(surgery: Surgery, path: str, old: nn.Module) -> None:
    run = surgery.look(False)
    given, gave = run.given(path), run.gave(path)
    if is_open(old) or len(gave) > 1:
        raise EditError(
            f"{path} takes any arguments, or gives several tensors",
            where=path,
            hint=f"insert(nn.Identity(), around='{path}') adds what it is given to the first of them",
        )
    if given and gave and given[0].shape != gave[0].shape:
        shapes = given[0].show(run.batch), gave[0].show(run.batch)
        raise EditError(
            f"{path} is given {shapes[0]} and gives {shapes[1]}, which can't be added",
            where=path,
            hint=f"insert(nn.Identity(), around='{path}', fix='adapt') adds a projection of what it is given",
        )


def _foreign(spec: ModuleSpec, old: nn.Module, surgery: Surgery, where: str) -> tuple[nn.Module, str]:
    """Call what the user wrote, and find the module in what it gives."""

    back = _remembered(old)
    with drawn_from(surgery.seed):
        try:
            given = {} if spec.of == "object" else dict(spec.args)
            made = _wrapper(spec, surgery, where)(old, *given.pop("*", ()), **given)
            inner = _inner(made, old, spec, where)
        except EditError:
            back()
            raise
        except Exception as error:  # whatever the user's own code raises
            back()
            raise EditError(
                f"{spec} can't be built: {error}", where=where, hint="correct its arguments"
            ) from error
    if back():
        raise EditError(
            f"{spec} changes the module that it is given",
            where=where,
            hint="hold it and call it, and leave its parameters, children and hooks as they are",
        )
    own = {id(tensor) for tensor in (*old.parameters(), *old.buffers())}
    like = next((one for one in surgery.model.parameters() if one.is_floating_point()), None)
    for tensor in (*made.parameters(), *made.buffers()):
        if id(tensor) not in own and like is not None:
            moved_to(tensor, like)
    return made, inner


def _wrapper(spec: ModuleSpec, surgery: Surgery, where: str) -> Callable[..., Any]:
    handed: Any = spec.module
    if handed is not None:
        found: Callable[..., Any] = handed
        return found
    if spec.of == "object":
        raise EditError(
            f"the wrapper {spec} was handed over in Python and can't be called again",
            where=where,
            hint="name it as package.module:Class, or hand it over again: tg.open(…, objects={…})",
        )
    if not surgery.trust:
        raise EditError(
            f"'{spec}' runs code of your own", where=where, hint="allow it with --trust, or trust=True in Python"
        )
    named: Callable[..., Any] = foreign_class(spec.of)
    return named


def _inner(made: Any, old: nn.Module, spec: ModuleSpec, where: str) -> str:
    """Find under which name the wrapper holds the module."""
    from torch import nn

    modules = made.named_modules() if isinstance(made, nn.Module) else ()
    names: list[str] = [name for name, one in modules if one is old]
    if not names or not names[0]:
        raise EditError(
            f"{spec} gives {'the module itself' if names else 'nothing that holds the module'}",
            where=where,
            hint="take the module as the first argument and keep it as it is: self.base = module",
        )
    return names[0]


def _remembered(module: nn.Module) -> Callable[[], bool]:
    """Remember all that a module holds; what is given back restores it, and tells whether it had changed."""
    tables = ("_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks")
    parts = [
        (part, type(part), dict(vars(part)), [dict(vars(part)[name]) for name in tables])
        for part in module.modules()
    ]

    def restore() -> bool:
        changed = False
        for part, cls, own, held in parts:
            now = vars(part)
            same = type(part) is cls and now.keys() == own.keys() and all(now[key] is own[key] for key in own)
            for name, table in zip(tables, held, strict=True):
                same = same and list(own[name].items()) == list(table.items())
            if not same:
                changed = True
                part.__class__ = cls
                now.clear()
                now.update(own)
                for name, table in zip(tables, held, strict=True):
                    own[name].clear()
                    own[name].update(table)
        return changed

    return restore
