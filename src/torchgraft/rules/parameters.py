"""Family P: parameters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from torchgraft.rules.finding import Finding, Severity
from torchgraft.rules.rule import Evidence, Rule

__all__: list[str] = []


class NothingTrainable(Rule):
    """Every parameter is frozen, so the backward pass has nothing to do."""

    code = "P001"
    severity: ClassVar[Severity] = "warning"
    title = "nothing can be trained"
    case = "requires_grad = False on everything, and the head was never replaced"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look at the flags."""
        parameters = list(evidence.model.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            yield self.found(
                evidence.name,
                f"all {len(parameters)} parameters are frozen",
                hint="unfreeze('head'), or more",
            )


class NeverUsed(Rule):
    """A parameter can be trained, but the forward pass never uses it: it gets no gradient."""

    code = "P002"
    severity: ClassVar[Severity] = "warning"
    title = "trainable parameters that nothing uses"
    case = "a new module that is called for nothing but its buffers"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Compare the trainable parameters that edits put in with those that operations took."""
        if any(run.mismatch for run in evidence.runs):
            return
        used = {name for run in evidence.runs for op in run.ops for name in op.params}
        for name, parameter in evidence.model.named_parameters():
            if parameter.requires_grad and name not in used and evidence.author(name):
                yield self.found(evidence.place(name), f"{name}{evidence.author(name)} takes part in no operation")
