"""Family S, further: a layer that says what it is not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from torchgraft.rules.finding import Finding, Severity
from torchgraft.rules.rule import Evidence, Rule

__all__: list[str] = []


class Declared(Rule):
    """A layer's attributes say other sizes than its weights have: printing shows what is not so.

    Setting `fc.out_features = 10` changes what `print(model)` shows, and nothing else.
    """

    code = "S011"
    severity: ClassVar[Severity] = "error"
    title = "a layer says other sizes than its weights have"
    case = "model.fc.out_features = 10"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Compare attributes with the shapes of the weights."""
        from torch import nn

        for path, module in evidence.modules.items():
            weight: Any = getattr(module, "weight", None)
            if weight is None or not isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
                continue
            if isinstance(module, nn.Linear):
                said, takes = module.out_features, module.in_features
            else:
                said, takes = module.out_channels, module.in_channels // module.groups
            if tuple(weight.shape[:2]) != (said, takes):
                yield self.found(
                    evidence.place(path),
                    f"{path} says {said} × {takes}, its weight is {' × '.join(map(str, weight.shape[:2]))}",
                    hint="replace the layer: head(classes) for an output layer, resize(…) for another",
                )
