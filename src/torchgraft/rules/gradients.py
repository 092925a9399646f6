"""Family T, further: gradients of a real step, by layer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from torchgraft.rules.finding import Finding, Severity
from torchgraft.rules.rule import Evidence, Rule
from torchgraft.rules.wording import at, homes

if TYPE_CHECKING:
    from torchgraft.probes.records import Gradient
    from torchgraft.probes.step import Step

__all__: list[str] = []


def _ends(step: Step) -> tuple[Gradient, Gradient] | None:
    """Give the gradients of the first and of the last weight that are used, zero and missing ones left out.

    Of two or three samples BatchNorm makes gradients of any size: nothing is told of so few.
    """
    if step.samples < 4:
        return None
    by_name = {one.name: one for one in step.gradients if one.matrix and one.norm}
    used = [by_name[name] for name in step.order if name in by_name]
    return (used[0], used[-1]) if len(used) > 2 else None


VANISHED = 1e-6
"""Of the last layer's gradient. Glorot and Bengio (2010) show how gradients shrink layer by layer through
saturating activations; sound networks keep the ratio of first to last within a few powers of ten."""

EXPLODED = 1e4


class Vanishing(Rule):
    """The gradient of the first layers is a millionth of the last one's or less: they do not learn.

    Glorot and Bengio, 2010: saturating activations shrink it by a factor in every layer.
    """

    code = "T003"
    severity: ClassVar[Severity] = "warning"
    title = "gradients vanish"
    case = "twelve linear layers with a sigmoid after each"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Compare the norms of the first and the last weight."""
        ends = _ends(evidence.step) if evidence.step is not None else None
        if ends is None or not ends[0].norm or not ends[1].norm or not math.isfinite(ends[0].norm / ends[1].norm):
            return
        ratio = ends[0].norm / ends[1].norm
        if ratio < VANISHED:
            yield self.found(
                evidence.place(ends[0].name.rpartition(".")[0]),
                f"the gradient of {ends[0].name} has a norm of {ends[0].norm:.1e}, that of {ends[1].name} "
                f"{ends[1].norm:.1e}: a ratio of {ratio:.1e}",
                hint="ReLU or GELU instead of sigmoid and tanh, a norm layer, and shortcuts around the blocks",
            )


class Exploding(Rule):
    """The gradient of the first layers is ten thousand times the last one's or more: the first step ruins them.

    Pascanu, Mikolov and Bengio, 2013.
    """

    code = "T004"
    severity: ClassVar[Severity] = "warning"
    title = "gradients explode"
    case = "a deep stack of linear layers whose weights were drawn with a standard deviation of 1"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Compare the norms of the first and the last weight."""
        ends = _ends(evidence.step) if evidence.step is not None else None
        if ends is None or not ends[0].norm or not ends[1].norm:
            return
        ratio = ends[0].norm / ends[1].norm
        if EXPLODED < ratio < math.inf:
            yield self.found(
                evidence.place(ends[0].name.rpartition(".")[0]),
                f"the gradient of {ends[0].name} is {ratio:.1e} times that of {ends[1].name}",
                hint="init(conv='kaiming_normal', linear='xavier_uniform'), a norm layer, or clip the gradients",
            )


class CutOff(Rule):
    """Parameters that the forward pass uses get no gradient: something on the way to the loss cuts it off.

    A `detach()`, a `no_grad()` around a part, an `argmax` or a trip through numpy. A part that is meant to stay as
    it is should be frozen: then nothing is told.
    """

    code = "T007"
    severity: ClassVar[Severity] = "warning"
    title = "used, but without a gradient"
    case = "features = self.body(x).detach() in a model whose body is to be trained"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Compare what was used with what got a gradient."""
        step = evidence.step
        if step is None or not step.attached or step.refused:
            return
        used = set(step.order)
        lost = [one.name for one in step.gradients if one.norm is None and one.name in used]
        if lost:
            cut = step.cuts[0] if step.cuts else None
            yield self.found(
                evidence.place(cut.path if cut else lost[0].rpartition(".")[0]),
                f"no gradient reaches {len(lost)} parameters of {homes(lost)}",
                f"the graph ends at {at(cut)}" if cut else "",
                hint="take the cut out, or freeze what is meant to stay: freeze(…)",
            )


class Dead(Rule):
    """The gradient of weights is exactly zero in two steps, though all parameters moved between them: dead.

    A head of zeros lets no gradient through in its first step, and does in the second; two layers of zeros in a
    row, or ReLUs that are never positive, do not in any.
    """

    code = "T008"
    severity: ClassVar[Severity] = "warning"
    title = "dead: the gradient is exactly zero"
    case = "two layers in a row whose weights were set to zero; a bias of -100 before a ReLU"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look at both steps."""
        step = evidence.step
        dead = [one.name for one in step.gradients if one.norm == 0 and one.later == 0] if step is not None else []
        matrices = {one.name for one in step.gradients if one.matrix} if step is not None else set()
        weights = [name for name in dead if name in matrices]
        if weights and not _explained(evidence):
            yield self.found(
                evidence.place(weights[0].rpartition(".")[0]),
                f"{len(weights)} weights get a gradient of exactly zero, twice: {homes(weights)}",
                hint="draw the weights anew, init(…), or look for a ReLU that is never positive",
            )


def _explained(evidence: Evidence) -> bool:
    """Tell whether zeros come of the data, or of cross-entropy over one output."""
    inputs = evidence.arrival.inputs if evidence.arrival is not None else ()
    criteria = evidence.step.criteria if evidence.step is not None else ()
    one = bool(criteria) and criteria[-1].name == "cross_entropy" and criteria[-1].classes == 1
    return one or (bool(inputs) and all(seen.low == seen.high for seen in inputs))
