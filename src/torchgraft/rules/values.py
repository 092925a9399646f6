"""Family S, where values matter: dtypes, indices, flow that fake tensors can't follow, a mode that wants more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from torchgraft.rules.breaks import breaks
from torchgraft.rules.finding import Finding, Severity
from torchgraft.rules.rule import Evidence, Rule

__all__: list[str] = []


class ByValue(Rule):
    """The forward pass asks for a value (`if x.sum() > 0`, `.item()`, `nonzero`): fake tensors have none.

    What comes after that place was not checked. With `real=True` (`--real`) the pass is taken on small real
    tensors instead, on a copy that shares the parameters, and this says so.
    """

    code = "S009"
    severity: ClassVar[Severity] = "warning"
    title = "the flow depends on values"
    case = "a detection model, whose boxes are chosen by their scores; `if x.sum() > 0` in a forward"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Say where fake tensors end, or that real ones were taken."""
        for one in breaks(evidence, self.code):
            yield self.found(
                one.where,
                f"{one.at.op} in {one.consumer} needs the value of {one.arrivals() or 'a tensor'}",
                "nothing after it was checked",
                hint="allow a pass on small real tensors: tg.check(model, example, real=True), or --real",
            )


class Types(Rule):
    """Tensors of different dtypes meet in a product: a real pass refuses it, on some devices only."""

    code = "S012"
    severity: ClassVar[Severity] = "error"
    title = "dtypes do not agree"
    case = "a batch of uint8 images, or of NumPy's float64, and weights of float32; half of a model cast to fp16"
    _CURES: ClassVar[dict[str, str]] = {
        "uint8": "scale the images: x.float() / 255",
        "float64": "cast the input: x.float()",
        "embedding": "give the numbers of words or classes: x.long(); or a linear layer for values",
        "int64": "cast the input: x.float(); or look the numbers up in an embedding",
    }

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Read the traces."""
        for one in breaks(evidence, self.code):
            tensors = [(number, one.run.values[number].dtype) for number in one.at.inputs]
            met = " and ".join(f"{one.arrived(number)} of {dtype}" for number, dtype in tensors)
            looks_up = one.at.op == "embedding"
            held = f", its weights are {one.dtype()}" if one.dtype() and not looks_up else ""
            held = ", but looks up whole numbers" if looks_up else held
            first = "embedding" if looks_up else tensors[0][1] if tensors else ""
            yield self.found(
                one.where,
                f"{one.consumer} gets {met or 'tensors of different dtypes'}{held}",
                *one.makers(),
                hint=self._CURES.get(first, "cast one of the two: .to(dtype), or the whole model at once"),
            )


class Range(Rule):
    """An index is larger than the table it looks up, or a class number than the scores have columns.

    Read off the example's whole numbers and off `arange`, and followed through operations that only rearrange.
    On a GPU this ends in an assertion that says nothing.
    """

    code = "S013"
    severity: ClassVar[Severity] = "error"
    title = "an index is out of range"
    case = "a vocabulary of 30,522 words and a token 30,600; a text longer than the position table"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Read the traces."""
        for one in breaks(evidence, self.code):
            table = one.at.params[0] if one.at.params else "the scores"
            yield self.found(
                one.where,
                f"{one.consumer} looks up {table}: {one.at.message}",
                *one.makers(),
                hint="give a table with more rows, or correct the numbers"
                if one.at.params
                else "correct the labels",
            )


class WantsMore(Rule):
    """The model runs in evaluation mode, but refuses the same arguments in training mode: it may want targets."""

    code = "S021"
    severity: ClassVar[Severity] = "warning"
    title = "training mode wants other arguments"
    case = "a detection model, which takes images and targets while it trains"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Read the trace in training mode."""
        for one in breaks(evidence, self.code):
            yield self.found(
                one.where,
                f"it says  {one.at.message.splitlines()[0]}",
                hint="give all arguments as a tuple: tg.check(model, (images, targets))",
            )
