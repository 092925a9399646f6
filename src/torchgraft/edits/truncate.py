"""Truncate: keep a model up to some of its layers, as a backbone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, Field, model_validator

from torchgraft.edits.base import Edit
from torchgraft.surgery.cutting import cut, ways_to

if TYPE_CHECKING:
    from torchgraft.surgery.journal import Surgery

__all__ = ["Truncate"]


def _by_name(value: Any) -> Any:
    """Read a list of layers as features that are named by their paths."""
    return (
        value
        if isinstance(value, Mapping) or not isinstance(value, (list, tuple))
        else {one: one for one in value}
    )


class Truncate(Edit):
    """Keep the model up to a layer, whose output it then gives, or up to several, whose outputs it gives by name.

    What is not needed for them is gone; what stays keeps its keys. Each value is as its layer gives it: NHWC where
    the layer works so, a tuple where it gives one.

    Attributes:
        after: the layer whose output is given.
        features: or several, by name: the model gives a dict of them in this order.
    """

    needs_fit: ClassVar[bool] = True
    after: str | None = None
    features: Annotated[dict[str, str], BeforeValidator(_by_name)] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.after is None) == (not self.features):
            raise ValueError("a truncate names either the layer after which it ends, or features by name")
        return self

    def apply(self, surgery: Surgery) -> Truncate:
        """End every forward on the way early, and drop what is not needed any more.

        Raises:
            EditError: a layer is not called once, or a forward on the way can't be rewritten.
        """
        names = list(self.features)
        ways = ways_to(self.features or {"": self.after or ""}, surgery)
        width = self._width(surgery)
        cut(
            surgery,
            "",
            ways,
            through=False,
            output=None if self.after else lambda values: dict(zip(names, values, strict=True)),
        )
        for name, value in (("num_classes", 0), ("num_features", width)):
            if type(vars(surgery.model).get(name)) is int and value is not None:
                surgery.set(surgery.model, name, value)
        return self

    def _width(self, surgery: Surgery) -> int | None:
        """Give the channels of the last layer that is kept."""
        from torchgraft.trace.layout import side

        run = surgery.look(False)
        gave = run.gave(self.after or list(self.features.values())[-1])
        if not gave or len(gave[0].shape) < 2:
            return None
        return gave[0].shape[1 if side(run, gave[0]) == "first" else -1]

    def sentence(self) -> str:
        """Say what the model gives."""
        if self.after is not None:
            return f"the model ends after {self.after}"
        return f"the model gives {', '.join(f'{path} as {name}' for name, path in self.features.items())}"
