"""Swap: all modules of a kind for another kind, each made for its own place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, field_validator

from torchgraft.edits.base import Edit
from torchgraft.errors import EditError, SelectionError
from torchgraft.modulespec import ModuleSpec, as_arguments, foreign_class
from torchgraft.paths import homes
from torchgraft.rng import drawn_from
from torchgraft.schema import Names, Places
from torchgraft.select import Selector, modules
from torchgraft.surgery.build import build
from torchgraft.surgery.separable import low_rank, separable
from torchgraft.surgery.standing import look_like
from torchgraft.surgery.successor import Gone, groups_for, refuse_axis, settings, taken_over, width

if TYPE_CHECKING:
    from torch import nn

    from torchgraft.surgery.journal import Surgery

__all__ = ["Swap"]

_WORDS: dict[str, frozenset[str]] = {
    "separable": frozenset({"multiplier"}),
    "low_rank": frozenset({"rank"}),
    "FrozenBatchNorm2d": frozenset({"eps"}),
    "LayerNorm2d": frozenset({"eps"}),
}
"""Kinds beside those of torch.nn, and what each may be told."""


def _spelled(value: Any) -> Any:
    """Read the words of ours; everything else is a module as in `replace`."""
    body = {value: {}} if isinstance(value, str) else value
    if not isinstance(body, Mapping) or len(body) != 1:
        return value
    ((of, args),) = body.items()
    if of not in _WORDS:
        return value
    args = dict(args or {})
    odd = sorted(args.keys() - _WORDS[of])
    if odd:
        raise ValueError(f"{of} has no setting '{odd[0]}'; it takes {', '.join(_WORDS[of])}")
    for name in ("multiplier", "rank"):
        if name in args and (type(args[name]) is not int or args[name] < 1):
            raise ValueError(f"{of}: {name} is a whole number from 1")
    if of == "low_rank" and "rank" not in args:
        raise ValueError("low_rank needs a rank: {low_rank: {rank: 32}}")
    return ModuleSpec.model_construct(of=of, args=args, items=())


class Swap(Edit):
    """Put a module of another kind in the place of every one that `at` selects, each made for its own place.

    Sizes, geometry, rates and flags come from the old modules, and the tensors that mean the same are taken over
    in new ones: scale and shift of norms, the kernel of a convolution. A module that is called from several places
    is swapped once and stays one.

    Attributes:
        at: the modules, such as `**:BatchNorm2d`; of nested ones the outermost.
        to: what they become: a class as in `replace`, with its sizes left open; or `FrozenBatchNorm2d` or
            `LayerNorm2d` of torchvision; `separable` makes convolutions depthwise and pointwise (`multiplier`
            kernels a channel), `low_rank` makes two linear layers of one, by their best approximations.
        count: how many were swapped; written when the edit is applied.
        left: how many were left alone since nothing would be gained.
        groups: the groups that a GroupNorm got instead, by the channels that those asked for do not divide.
        kept: the share of the weights' squared norm that an approximation keeps.
        moved: which keys moved.
    """

    written: ClassVar[frozenset[str]] = frozenset({"count", "left", "groups", "kept", "moved"})
    at: Places
    to: Annotated[ModuleSpec, BeforeValidator(_spelled)]
    count: int = 0
    left: int = 0
    groups: dict[int, int] = Field(default_factory=dict)
    kept: float | None = None
    moved: dict[str, str] = Field(default_factory=dict)

    @field_validator("to")
    @classmethod
    def _buildable(cls, to: ModuleSpec) -> ModuleSpec:
        if not to.replays:
            raise ValueError(
                f"every place needs a {to} of its own, and one object was handed over; describe it instead, "
                "such as 'nn.GELU' or 'package.module:Class'"
            )
        return to

    def apply(self, surgery: Surgery) -> Swap:
        """Make a new module for each old one, and move all references at once.

        Raises:
            SelectionError: nothing is selected.
            EditError: a module can't become what is asked, or none of them gains by it.
        """
        import torch

        places = self._places(surgery)
        work = _Work(self.to, surgery)
        pairs: dict[nn.Module, nn.Module] = {}
        with drawn_from(surgery.seed), torch.no_grad():
            for old, paths in places.items():
                made = work.made(old, paths)
                if made is not None:
                    pairs[old] = made
        if not pairs:
            raise EditError(
                f"none of the {len(places)} selected modules gains by {self.to}",
                where=", ".join(self.at),
                hint="pointwise and depthwise convolutions, and layers of fewer weights than two factors, stay",
            )
        surgery.trade(pairs)
        surgery.added += [paths[0] for old, paths in places.items() if old in work.drawn]
        said = {"count": len(pairs), "left": len(places) - len(pairs), "groups": work.groups, "moved": work.moved}
        return self.model_copy(update={**said, "kept": work.share})

    def _places(self, surgery: Surgery) -> dict[nn.Module, list[str]]:
        """Give the outermost modules that are selected, each with all its paths."""
        try:
            chosen = modules(surgery.model, self.at, roles=surgery.roles)
        except SelectionError as error:
            raise _functional(error, self.at, surgery) from None
        paths = set(chosen)
        found: dict[nn.Module, list[str]] = {}
        for path in chosen:
            if paths.isdisjoint(homes(path)):
                found.setdefault(surgery.module(path), []).append(path)
        return found

    def sentence(self) -> str:
        """Say what became what."""
        many = f", {self.count} modules," if self.count > 1 else ""
        told = [f"{', '.join(self.at)}{many} becomes {self.to}"]
        if self.groups:
            pairs = ", ".join(f"{groups} for {channels} channels" for channels, groups in self.groups.items())
            told.append(f"the nearest number of groups that divides is taken: {pairs}")
        if self.kept is not None:
            told.append(f"{self.kept:.1%} of the weights' squared norm is kept")
        if self.left:
            told.append(f"{self.left} stay since nothing would be gained")
        return "; ".join(told)


class _Work:
    """What is made for one swap, and what is to be said of it."""

    def __init__(self, to: ModuleSpec, surgery: Surgery) -> None:
        self.to = to
        self.surgery = surgery
        self.groups: dict[int, int] = {}
        self.moved: dict[str, str] = {}
        self.drawn: set[nn.Module] = set()
        """Old modules whose successors hold numbers that were drawn, where nothing could be taken over."""

        self._gone: Gone = {}
        self._number = 0
        self._shares: list[tuple[float, float]] = []

    @property
    def share(self) -> float | None:
        """The share of the squared norm of all approximated weights that is kept."""
        whole = sum(weight for _, weight in self._shares)
        return round(sum(kept * weight for kept, weight in self._shares) / whole, 4) if whole else None

    def made(self, old: nn.Module, paths: list[str]) -> nn.Module | None:
        """Make the module that is to stand in the place of an old one; None where that stays."""
        if self.to.of in ("separable", "low_rank"):
            return self._factored(old, paths)
        plain = self._plain(old, paths[0])
        if _has_activation(old) and plain is not None:
            return self._activated(old, plain, paths)
        return plain

    def _factored(self, old: Any, paths: list[str]) -> nn.Module | None:
        from torch import nn

        kinds: Any = (nn.Conv1d, nn.Conv2d, nn.Conv3d) if self.to.of == "separable" else (nn.Linear,)
        if type(old) not in kinds:
            if isinstance(old, kinds):  # its weight is read or computed in a way of its own
                return None
            raise EditError(
                f"a {type(old).__name__} can't be made {self.to.of}",
                where=paths[0],
                hint=f"select {', '.join(f'**:{kind.__name__}' for kind in kinds)}",
            )
        pair = (
            separable(old, self.to.args.get("multiplier", 1))
            if self.to.of == "separable"
            else low_rank(old, self.to.args["rank"])
        )
        if pair is None:
            return None
        made, kept = pair
        self._shares.append((kept, float(old.weight.double().square().sum()) if not old.weight.is_meta else 1.0))
        if old.bias is not None:
            last = "pointwise" if self.to.of == "separable" else "up"
            self.moved.update({f"{path}.{last}.bias": f"{path}.bias" for path in paths})
        look_like(made, old)
        return made

    def _plain(self, old: nn.Module, path: str) -> nn.Module | None:
        refuse_axis(old, self.to.of, path)
        cls = self._cls(old, path)
        args = None if cls is None else settings(old, cls, as_arguments(self.to.args))
        if cls is None or args is None:
            self.drawn.add(old)
            return self._read_off(path)
        if self.to.of == "nn.GroupNorm":
            args = self._grouped(old, args)
        try:
            made = cls(**args)
        except (TypeError, ValueError, RuntimeError, AssertionError) as error:
            raise EditError(
                f"{self.to.of} can't be built in the place of a {type(old).__name__}: {error}",
                where=path,
                hint="give the arguments that it needs, or select fewer modules",
            ) from error
        if not taken_over(old, made, self._gone):
            self.drawn.add(old)
        return made

    def _read_off(self, path: str) -> nn.Module:
        """Build from what the trace says that the place is given; every place draws numbers of its own."""
        seed = self.surgery.seed
        self._number += 1
        try:
            self.surgery.seed = seed + self._number
            return build(self.to, self.surgery.look(False).given(path), self.surgery, path)[0]
        finally:
            self.surgery.seed = seed

    def _cls(self, old: nn.Module, path: str) -> type[nn.Module] | None:
        """Give the class that is asked for; None where its sizes are read off the trace."""
        from torch import nn
        from torchvision.models.convnext import LayerNorm2d
        from torchvision.ops import FrozenBatchNorm2d

        of = self.to.of
        if of == "FrozenBatchNorm2d" and not isinstance(old, (nn.BatchNorm2d, nn.SyncBatchNorm)):
            raise EditError(f"a {type(old).__name__} has no frozen form", where=path, hint="select **:BatchNorm2d")
        if self.to.foreign and self.surgery.trust and ":" in of:
            cls: type[nn.Module] | None = foreign_class(of)
            return cls
        ours: dict[str, type[nn.Module]] = {"FrozenBatchNorm2d": FrozenBatchNorm2d, "LayerNorm2d": LayerNorm2d}
        found = ours.get(of) or (getattr(nn, of.removeprefix("nn."), None) if of.startswith("nn.") else None)
        return found if isinstance(found, type) else None

    def _grouped(self, old: nn.Module, args: dict[str, Any]) -> dict[str, Any]:
        """Take 32 groups where none are named (Wu and He, 2018), or the nearest number that divides."""
        channels = args.get("num_channels") or width(old) or 1
        asked = args.get("num_groups", 32)
        groups = groups_for(channels, asked) if isinstance(asked, int) and asked > 0 else asked
        if groups != asked:
            self.groups[channels] = groups
        return {**args, "num_channels": channels, "num_groups": groups}

    def _activated(self, old: Any, plain: Any, paths: list[str]) -> nn.Module:
        """Keep the dropout and activation that timm's norms hold."""
        from torch import nn

        if isinstance(plain, nn.GroupNorm):
            return _with_act(old, plain, "GroupNormAct", num_groups=plain.num_groups, affine=plain.affine)
        if type(plain).__name__ == "LayerNorm2d":
            return _with_act(old, plain, "LayerNormAct2d")
        if type(plain).__name__ == "FrozenBatchNorm2d":
            return _with_act(old, plain, "FrozenBatchNormAct2d")
        made = nn.Sequential()
        for name, part in (("norm", plain), ("drop", old.drop), ("act", old.act)):
            made.add_module(name, part)
        self.moved.update({f"{path}.norm": path for path in paths})
        look_like(made, old)
        return made


def _has_activation(old: nn.Module) -> bool:
    """Tell whether a norm is one of timm's that hold an activation."""
    return {"act", "drop"} <= old._modules.keys() and bool(old._parameters or old._buffers)


def _with_act(old: Any, plain: Any, name: str, **more: Any) -> nn.Module:
    """Give timm's norm of that name with the tensors of a plain one, and the old dropout and activation."""
    from timm import layers

    made = getattr(layers, name)(old.num_features, eps=plain.eps, **more)
    made._parameters.update(plain._parameters)
    made._buffers.update(plain._buffers)
    made.drop, made.act = old.drop, old.act
    whole: nn.Module = made
    return whole


def _functional(error: SelectionError, at: Names, surgery: Surgery) -> SelectionError:
    """Say where a kind that no module has is called as a function."""
    run = surgery.look(False)
    for text in at:
        word = Selector(text).kind.lower()
        homes = sorted({op.path or "the model itself" for op in run.ops if word and op.name.strip("_") == word})
        if homes:
            shown = ", ".join(homes[:3]) + (f" and {len(homes) - 3} more" if homes[3:] else "")
            return SelectionError(
                f"'{text}' matches no module: the forward of {shown} calls {word} as a function",
                where=text,
                hint=f"rewire(at, '{word}', …) changes a call in a forward; a swap changes modules",
            )
    return error
