"""Family M: training that does not fit into memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from torchgraft.probes.fit import Fit
from torchgraft.rules.finding import Finding, Severity
from torchgraft.rules.rule import Evidence, Rule

__all__ = ["CLOSE"]

CLOSE = 0.95
"""The share of the room above which a prediction is too close to call."""


class TooLarge(Rule):
    """Training takes more memory than there is: it breaks off with "out of memory" at the first or second step.

    The peak is predicted on fake tensors, forward, backward and optimizer. A smaller batch, whose gradients are
    gathered over several (`train.accumulate`), takes less and trains the same but for BatchNorm; so do bf16,
    checkpointing, another optimizer, a frozen base and smaller images, each at its own price.
    """

    code = "M001"
    severity: ClassVar[Severity] = "error"
    title = "training does not fit into memory"
    case = "a ViT-L fine-tuned with AdamW and batch 64 on a card of 24 GB: out of memory in the first step"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Compare what is needed with what there is."""
        fit = evidence.memory
        if fit is not None and not fit.fits and fit.most:
            yield self.found(evidence.place(""), *_facts(fit), f"the largest batch that fits is {fit.most}")


class NoSampleFits(Rule):
    """Not even one sample fits: weights, gradients and the state of the optimizer alone may be more than there is.

    AdamW holds two numbers beside every trained weight, SGD with momentum one, a frozen weight none. So no batch
    helps here; what helps is to train fewer weights, or another optimizer.
    """

    code = "M002"
    severity: ClassVar[Severity] = "error"
    title = "not even one sample fits into memory"
    case = (
        "all of a 7B decoder trained with AdamW in fp32 on a card of 80 GB: 108 GB of weights, gradients and state"
    )

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """See whether a batch of one is too much."""
        fit = evidence.memory
        if fit is None or fit.fits or fit.most:
            return
        alone = fit.standing + fit.allowance > fit.room
        held = _size(fit.standing)
        yield self.found(
            evidence.place(""),
            *_facts(fit),
            f"weights, gradients and optimizer alone take {held}" + (", more than there is" if alone else ""),
        )


class CloseCall(Rule):
    """Training fits by a hair: what the prediction does not see may decide.

    That is workspaces of cuDNN and cuBLAS, fragmentation of the allocator, other programs on the card, and images
    or texts that are longer than the example.
    """

    code = "M003"
    severity: ClassVar[Severity] = "warning"
    title = "training fits into memory by a hair"
    case = "the largest batch that fits, on a card that also draws the desktop"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """See how much is left."""
        fit = evidence.memory
        if fit is None or not fit.fits:
            return
        share = (fit.need + fit.allowance) / fit.room
        if share > CLOSE:
            yield self.found(
                evidence.place(""), *_facts(fit), hint="leave room: a smaller batch, or one of the remedies"
            )


def _facts(fit: Fit) -> tuple[str, ...]:
    return (
        f"batch {fit.batch} needs {_size(fit.need + fit.allowance)}, there is {fit.place}",
        f"{_size(fit.need)} of tensors at the peak, {fit.moment}, and {_size(fit.allowance)} set aside",
        f"held by  {fit.holders}",
    )


def _size(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
