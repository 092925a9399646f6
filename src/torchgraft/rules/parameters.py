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
    """A parameter can be trained, but no forward pass uses it, in evaluation or training: it gets no gradient.

    Often a layer was assigned to a name that the model does not know: `model.fc` where the head is `classifier`.
    """

    code = "P002"
    severity: ClassVar[Severity] = "warning"
    title = "trainable parameters that nothing uses"
    case = "mobilenet.fc = nn.Linear(576, 10), where the head is classifier.3"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Compare the trainable parameters that edits put in with those that operations took."""
        if any(run.mismatch for run in evidence.runs):
            return
        used = {name for run in evidence.runs for op in run.ops for name in op.params}
        unused = [name for name, p in evidence.model.named_parameters() if p.requires_grad and name not in used]
        homes: dict[str, list[str]] = {}
        for name in unused:
            homes.setdefault(name.rpartition(".")[0], []).append(name.rpartition(".")[2])
        makers = {op.path for run in evidence.runs for output in run.outputs for op in [run.maker(output)] if op}
        for home, names in homes.items():
            yield self.found(
                evidence.place(home),
                f"{', '.join(names)} of {home or 'the model'}{evidence.author(home)} take part in no operation",
                hint=f"the output is made in {' and '.join(sorted(makers)) or 'the forward of the model'}: "
                "put it there, or take it out",
            )
