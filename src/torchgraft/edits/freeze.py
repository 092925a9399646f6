"""Freeze: parameters that training leaves as they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from torchgraft.edits.base import Edit
from torchgraft.errors import EditError, SelectionError
from torchgraft.schema import Count, Flag, Names
from torchgraft.select import modules, selected
from torchgraft.select.cover import covering

if TYPE_CHECKING:
    from torch import nn

    from torchgraft.surgery.journal import Surgery
    from torchgraft.trace import Trace

__all__ = ["Freeze"]


class Freeze(Edit):
    """Freeze parameters: `at`, all but `all_but`, or the first part of the model in the order of its pass.

    A part of the model whose parameters are all frozen is really still in torchgraft's training: its
    BatchNorm statistics do not move and its dropout is off. In a loop of your own, `still` makes it so.

    Attributes:
        at: selectors of what is frozen.
        all_but: selectors of what is not; it can be trained afterwards, whatever it was.
        depth: the share of the layers that is frozen, in the order of the pass: 0.5 is the first half.
        stages: how many stages are frozen, with the stem before them.
        before: a module; all that runs before it is frozen.
        still: put norms that do not move (`FrozenBatchNorm2d`) and no dropout into the frozen parts, so that
            `model.train()` can't wake them in any loop. The default keeps the modules and their keys.
    """

    at: Names = ()
    all_but: Names = ()
    depth: Annotated[float, Field(strict=True, gt=0, le=1)] | None = None
    stages: Count | None = None
    before: str | None = None
    still: Flag = False

    structural: ClassVar[Any] = property(lambda self: self.still)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        ways = (
            bool(self.at),
            bool(self.all_but),
            *(one is not None for one in (self.depth, self.stages, self.before)),
        )
        if sum(ways) != 1:
            raise ValueError(
                "a freeze names either what it freezes (at, depth, stages or before) or what it spares (all_but)"
            )
        return self

    def apply(self, surgery: Surgery) -> Freeze:
        """Set the flags; `all_but` also makes sure that what is spared can be trained."""
        done = self._written_out(surgery)
        named = selected(surgery.model, done.at or done.all_but, roles=surgery.roles)
        every = list(_parameters(surgery.model))
        frozen = [one for one in every if (id(one) in named) == bool(done.at)]
        surgery.set_grad(frozen, False)
        if done.all_but:
            surgery.set_grad((one for one in named.values() if one.is_floating_point()), True)
        if self.still:
            _hold_still(surgery, {id(one) for one in frozen}, _bare(surgery, done.at))
        return done

    def _written_out(self, surgery: Surgery) -> Freeze:
        """Say by path what depth, stages or before means in this model."""
        if self.at or self.all_but:
            return self
        run = surgery.look(False)
        if run.mismatch is not None:
            raise EditError(
                "the model does not run on its input, so its layers have no order",
                where="freeze",
                hint="mend the model first, or say what is frozen: freeze(at=…)",
            )
        names = self._ahead(run, surgery) if self.before is not None else self._first(run, surgery)
        return Freeze(at=covering(surgery.model, names), still=self.still)

    def _first(self, run: Trace, surgery: Surgery) -> set[str]:
        """Give the parameters of the first layers."""
        from torchgraft.trace.order import order

        layers = order(run, surgery.model).layers
        if self.depth is not None:
            count = max(int(self.depth * len(layers) + 1e-9), 1)
            return {name for layer in layers[:count] for name in layer.names}
        known = max(layer.stage for layer in layers)
        wanted = self.stages or 0
        if wanted > known:
            raise EditError(
                f"the model has {known} stages, not {wanted}",
                where="freeze.stages",
                hint="depth: 0.5 freezes the first half of its layers",
            )
        last = max(number for number, layer in enumerate(layers) if layer.stage == wanted)
        return {name for layer in layers[: last + 1] for name in layer.names}

    def _ahead(self, run: Trace, surgery: Surgery) -> set[str]:
        """Give the parameters that are used before a module is."""
        homes = modules(surgery.model, str(self.before), roles=surgery.roles)
        first: dict[str, int] = {}
        for op in run.ops:
            for name in op.params:
                first.setdefault(name, op.index)
        starts = [call.first_op for home in homes for call in run.calls_of(home)]
        if not starts:
            raise EditError(
                f"the pass does not call {self.before}", where="freeze.before", hint="name a module that runs"
            )
        known = [name for name, _ in surgery.model.named_parameters()]
        found = {name for name in known if first.get(name, min(starts)) < min(starts)}
        if not found:
            raise EditError(f"no parameters run before {self.before}", where="freeze.before")
        return found

    def sentence(self) -> str:
        """Say what is frozen."""
        still = ", and stays so in any training loop" if self.still else ""
        if self.all_but:
            return f"everything but {', '.join(self.all_but)} is frozen{still}"
        if self.at:
            return f"{', '.join(self.at)} frozen{still}"
        if self.depth is not None:
            return f"the first {self.depth:.0%} of the layers frozen{still}"
        what = f"the stem and {self.stages} stages" if self.stages else f"all that runs before {self.before}"
        return f"{what} frozen{still}"


def _parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    from torchgraft.surgery.journal import every

    yield from (one for module in every(model) for one in module._parameters.values() if one is not None)


def _bare(surgery: Surgery, at: tuple[str, ...]) -> set[str]:
    """Give the modules that are named and hold no parameter, such as a norm without scale and shift."""
    try:
        named = modules(surgery.model, at, roles=surgery.roles) if at else ()
    except SelectionError:  # parameters are meant
        return set()
    return {path for path in named if not any(True for _ in surgery.module(path).parameters())}


def _hold_still(surgery: Surgery, frozen: set[int], bare: set[str]) -> None:
    """Put still norms and no dropout into the parts that are frozen as a whole, and into what goes with them."""
    from torchgraft.edits.eval_mode import stilled
    from torchgraft.surgery.stillness import still_parts

    homes = [path for path, _ in still_parts(surgery.model, lambda one: id(one) in frozen)]
    if homes == [""]:
        homes = [name for name, _ in surgery.model.named_children()]
    stilled(surgery, dict.fromkeys((*homes, *bare)))
