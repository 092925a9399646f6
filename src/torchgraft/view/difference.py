"""What differs between two models, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from torchgraft.view.distance import Distance

__all__ = ["Difference", "Figures", "ModuleChange", "RecipeChange", "TensorChange", "Way"]

Way = Literal["added", "removed", "changed", "moved", "inside"]
"""What became of a module; `inside`: only what it holds, is given or gives changed."""


@dataclass(frozen=True)
class Figures:
    """The sums of one side; `macs` are for one sample, None where the pass is not known."""

    title: str
    modules: int
    tensors: int
    parameters: int
    trainable: int
    macs: int | None


@dataclass(frozen=True)
class ModuleChange:
    """A module that is not the same on both sides; pairs are (before, after).

    Attributes:
        before: its path before; None where it was not there.
        after: its path after; None where it is gone.
        kind: its class; "" where it is not there.
        settings: those that differ: name, before, after; None where one side has none.
        forward: its forward pass says something else, though the class has the same name.
        order: its children stand in another order.
        training: its training flag.
        given: shapes that it is given, in its first call.
        gave: shapes that it gives.
        parameters: numbers in its parameters, those inside included.
        trainable: how many of them training changes.
        macs: multiply-accumulates for one sample.
        edit: the number of the edit that put it in.
        modules: how many modules it is with all inside.
        implied: what holds it was added, removed or moved, and it with it.
    """

    before: str | None
    after: str | None
    kind: tuple[str, str]
    settings: tuple[tuple[str, Any, Any], ...] = ()
    forward: bool = False
    order: bool = False
    training: tuple[bool, bool] = (False, False)
    given: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    gave: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    parameters: tuple[int, int] = (0, 0)
    trainable: tuple[int, int] = (0, 0)
    macs: tuple[int, int] = (0, 0)
    edit: int | None = None
    modules: int = 1
    implied: bool = False

    @property
    def path(self) -> str:
        """Where it is, or was."""
        return (self.before if self.after is None else self.after) or ""

    @property
    def way(self) -> Way:
        """What became of it."""
        if self.before is None:
            return "added"
        if self.after is None:
            return "removed"
        flag = self.training[0] != self.training[1]
        if self.kind[0] != self.kind[1] or self.settings or self.forward or self.order or flag:
            return "changed"
        return "moved" if self.before != self.after and not self.implied else "inside"

    def mirrored(self) -> ModuleChange:
        """Give the same change the other way round."""
        return replace(
            self,
            before=self.after,
            after=self.before,
            settings=tuple((name, new, old) for name, old, new in self.settings),
            edit=None,
            **{
                name: getattr(self, name)[::-1]
                for name in ("kind", "training", "given", "gave", "parameters", "trainable", "macs")
            },
        )


@dataclass(frozen=True)
class TensorChange:
    """A parameter or buffer that is not the same on both sides; pairs are (before, after).

    Attributes:
        before: its name before; None where it was not there.
        after: its name after; None where it is gone.
        shape: its sizes.
        dtype: of its numbers.
        buffer: it is no parameter.
        trainable: whether training changes it.
        tied: the first name of the same tensor, where it has one.
        distance: how far the numbers are apart; of a reshaped one, in the part that both share. None where they
            were not compared.
        unknown: one side has no values (meta), so nobody can tell.
        statistics: a running statistic of a norm whose own parameters training changes on neither side, or after
            its own base.
    """

    before: str | None
    after: str | None
    shape: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    dtype: tuple[str, str] = ("", "")
    buffer: bool = False
    trainable: tuple[bool, bool] = (False, False)
    tied: tuple[str, str] = ("", "")
    distance: Distance | None = None
    unknown: bool = False
    statistics: bool = False

    @property
    def name(self) -> str:
        """What it is called, or was."""
        return (self.before if self.after is None else self.after) or ""

    @property
    def way(self) -> str:
        """What became of it, such as added, reshaped, retyped (another dtype), changed (its numbers) or tied."""
        if self.before is None or self.after is None:
            return "added" if self.before is None else "removed"
        known = (
            ("reshaped", self.shape[0] != self.shape[1]),
            ("retyped", self.dtype[0] != self.dtype[1]),
            ("changed", self.distance is not None and bool(self.distance.changed)),
            ("tied", self.tied[0] != self.tied[1]),
            ("frozen", self.trainable[0] and not self.trainable[1]),
            ("unfrozen", self.trainable[1] and not self.trainable[0]),
            ("unknown", self.unknown),
        )
        return next((word for word, is_so in known if is_so), "moved")

    @property
    def counts(self) -> bool:
        """Whether it is a counter, such as `num_batches_tracked`: how far two are apart is no distance."""
        return self.buffer and self.shape[1] == () and all("int" in one for one in self.dtype)

    @property
    def size(self) -> int:
        """How many numbers it holds, or held."""
        count = 1
        for one in self.shape[self.after is not None]:
            count *= one
        return count


@dataclass(frozen=True)
class RecipeChange:
    """A line of the recipe that differs; None where one side has none.

    Attributes:
        line: where it stands, such as `base`, `edits` or `train.epochs`.
        before: what it says before.
        after: what it says after.
    """

    line: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class Difference:
    """What differs between two models; true where anything does.

    Attributes:
        before: the sums of the first.
        after: the sums of the second.
        modules: those that are not the same, in the order of the second, what is gone where it stood.
        tensors: those that are not the same.
        recipe: lines of the recipes that differ.
        same_tensors: how many tensors are the same, bit for bit, at the same name or moved.
        same_numbers: how many numbers those hold.
        by_digest: how many of them were known to be the same without being read.
        compared: whether numbers were compared, not names and shapes alone.
        notes: what else a reader should know.
    """

    before: Figures
    after: Figures
    modules: tuple[ModuleChange, ...] = ()
    tensors: tuple[TensorChange, ...] = ()
    recipe: tuple[RecipeChange, ...] = ()
    same_tensors: int = 0
    same_numbers: int = 0
    by_digest: int = 0
    compared: bool = True
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.modules or self.recipe or any(one.way != "unknown" for one in self.tensors))

    def counted(self) -> Mapping[str, int]:
        """Count the modules by what became of them; those that came or went with another are not counted."""
        found = dict.fromkeys(("added", "removed", "changed", "moved"), 0)
        for one in self.modules:
            if one.way == "changed" or (one.way != "inside" and not one.implied):
                found[one.way] += 1
        return found

    def as_data(self) -> dict[str, Any]:
        """Give all as plain data."""
        data = asdict(self)
        for entry, module in zip(data["modules"], self.modules, strict=True):
            entry["way"] = module.way
        for entry, tensor in zip(data["tensors"], self.tensors, strict=True):
            entry["way"] = tensor.way
        return {"different": bool(self), **data}

    def __str__(self) -> str:
        from torchgraft.view.difftext import text

        return "\n".join(line for _, line in text(self))
