"""What a fix starts from and what it is before it was tried: a fault, and proposals of edits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from torchgraft.edits.base import Edit
from torchgraft.family import gather
from torchgraft.rules.finding import Finding

if TYPE_CHECKING:
    from torch import nn

    from torchgraft.trace import Mismatch, Op, Trace

__all__ = ["Cause", "Edits", "Fault", "Proposal", "causes"]

Edits = tuple[Edit, ...]

_LAST = frozenset(
    {"linear", "layer_norm", "rms_norm", "multi_head_attention_forward", "embedding", "lstm", "gru"}
    | {"rnn_tanh", "rnn_relu", "matmul", "__matmul__"}
)
"""Operations whose weights say that the last dimension holds the channels."""

_TURNS = frozenset({"transpose", "permute", "movedim", "moveaxis", "swapaxes"})


@dataclass(frozen=True)
class Proposal:
    """One way to mend a fault, not tried yet.

    Attributes:
        name: what `--fix=NAME` takes.
        ways: the same change at different places, the least intrusive first; the first one that works counts.
        says: what it does to what passes through, such as `stretches 32×32 images to 64×64`.
        harm: 0 where the model sees all that it was given, 1 where features are pooled, padded or stretched,
            2 where pixels are.
        scrambles: trained weights that stay in place but no longer meet what they were trained on.
        call: another call instead of another model: makes the example what the model takes.
    """

    name: str
    ways: tuple[Edits, ...] = ((),)
    says: str = ""
    harm: int = 0
    scrambles: int = 0
    call: Callable[[Any], Any] | None = None


@dataclass(frozen=True)
class Fault:
    """One finding, with the trace that shows it.

    Attributes:
        finding: what a rule found; None for what remains after a step of a fix.
        model: the model as it stands.
        run: the trace that shows the fault.
        example: the shapes of the inputs, batch included.
        steps: the edits that were made on the way to this fault, where it is what remains after them.
    """

    finding: Finding | None
    model: nn.Module
    run: Trace
    example: tuple[tuple[int, ...], ...]
    steps: Edits = ()

    @property
    def at(self) -> Mismatch | None:
        """Where the pass broke off, if it did."""
        return self.run.mismatch

    @property
    def path(self) -> str:
        """The place that the finding names, without the model's name."""
        return self.finding.where.partition(" / ")[2] if self.finding is not None else ""

    @cached_property
    def modules(self) -> dict[str, nn.Module]:
        """The modules by path."""
        return dict(self.model.named_modules())

    def shape(self, value: int) -> tuple[int, ...]:
        """Give the shape of a value."""
        return self.run.values[value].shape

    @property
    def arrived(self) -> tuple[int, ...]:
        """The shape of the first tensor that the failing operation was given."""
        return self.shape(self.at.inputs[0]) if self.at is not None and self.at.inputs else ()

    def held(self, name: str) -> int:
        """Give a size that the failing module declares, 0 where it has none of that name."""
        module = self.modules.get(self.at.path) if self.at is not None else None
        size = vars(module).get(name, 0) if module is not None else 0
        return size if isinstance(size, int) else 0

    def has_weights(self, value: int) -> bool:
        """Tell whether any weight took part in making a value."""
        op = self.run.maker(value)
        return op is not None and (bool(op.params) or any(one.params for one in self.run.upstream(value)))

    def channels_last(self, value: int) -> bool:
        """Tell whether a tensor holds its channels in the last dimension, as what a linear layer made does."""
        turned = False
        for op in self.run.upstream(value):
            if op.name.startswith("conv") and op.params:
                return turned
            if op.params or "pool" in op.name:
                ends = op.outputs and self.shape(op.outputs[0])[-1:] == self.shape(value)[-1:]
                return bool(op.params) and op.name in _LAST and bool(ends)
            turned = turned or op.name in _TURNS
        return False

    def through(self, value: int, names: frozenset[str]) -> Iterator[Op]:
        """Walk back over operations of these names and of one tensor, nearest first."""
        op = self.run.maker(value)
        while op is not None and op.name in names and op.inputs:
            yield op
            op = self.run.maker(op.inputs[0])


class Cause(ABC):
    """One kind of cause. What it proposes is tried on the model before anybody sees it."""

    registry: ClassVar[list[type[Cause]]] = []
    warnings: ClassVar[frozenset[str]] = frozenset()
    """Codes of findings that are no errors, and that this cause has a sure fix for."""
    gives_up: ClassVar[frozenset[str]] = frozenset()
    """Those of them whose fix is taken unasked although trained weights go."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        Cause.registry.append(cls)

    @abstractmethod
    def proposals(self, fault: Fault) -> Iterator[Proposal]:
        """Yield what may mend the fault, the likeliest first; nothing where the cause is another."""


def causes() -> list[type[Cause]]:
    """Give every cause there is."""
    gather("torchgraft.fixes")
    return list(Cause.registry)
