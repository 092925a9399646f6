"""Route: let a module of one input stand where several are given, or where a pair is expected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from torchgraft.edits.base import Edit
from torchgraft.errors import EditError
from torchgraft.schema import Flag, Name
from torchgraft.surgery.chain import routed

if TYPE_CHECKING:
    from torchgraft.surgery.journal import Surgery

__all__ = ["Route"]


class Route(Edit):
    """Bring the module `at`, which takes one tensor, into a place that is given more.

    Such places are the layers of a DenseNet, which are given a list, or an attention, which is given query, key
    and value and gives a pair. The module is held as `base` in a small graph of torch.fx.

    Attributes:
        at: the module.
        takes: names for the arguments that the place is given, in order.
        feed: which of them the module gets; left out, it gets the tensors of the first one, joined along `dim`.
        dim: where they are joined.
        pair: whether the place gives a pair: what the module gives, and None.
    """

    written: ClassVar[frozenset[str]] = frozenset({"moved"})
    at: str
    takes: tuple[Name, ...]
    feed: Annotated[int, Field(ge=0)] | None = None
    dim: int = 1
    pair: Flag = False
    moved: dict[str, str] = Field(default_factory=dict)

    def apply(self, surgery: Surgery) -> Route:
        """Wrap the module.

        Raises:
            EditError: `feed` names none of the arguments.
        """
        if not self.takes or (self.feed or 0) >= len(self.takes):
            raise EditError(
                f"the place takes {len(self.takes)} arguments, so there is no argument {self.feed or 0}",
                where=self.at,
                hint="arguments are counted from 0",
            )
        module = surgery.module(self.at)
        every = [one for one, held in surgery.model.named_modules(remove_duplicate=False) if held is module]
        surgery.put(self.at, routed(module, self.takes, feed=self.feed, dim=self.dim, pair=self.pair))
        surgery.added[-1] = f"{self.at}.base"
        return self.model_copy(update={"moved": {f"{one}.base": one for one in every}})

    def sentence(self) -> str:
        """Say what the module gets."""
        first = self.takes[self.feed or 0]
        fed = f"the tensors of '{first}', joined" if self.feed is None else f"'{first}' only"
        what = f"{self.at} gets {fed}"
        return f"{what}, and gives a pair" if self.pair else what
