"""Family S, further: what runs and is wrong all the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from torchgraft.rules.finding import Finding, Severity
from torchgraft.rules.rule import Evidence, Rule

if TYPE_CHECKING:
    from torchgraft.trace import Op, Trace

__all__: list[str] = []


class BatchLost(Rule):
    """The batch does not come through: the output has another number of rows than the input has samples.

    A `view(-1, k)` with the wrong k folds places of the map into the batch, a `cat` without `dim` joins along it.
    Nothing complains before the loss, or at all.
    """

    code = "S010"
    severity: ClassVar[Severity] = "warning"
    title = "the batch does not come through"
    case = "x.view(-1, 16 * 5 * 5) where the map is 10×10; torch.cat([a, b]) of two branches"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look at the rows of each output, and find the operation that changed their number."""
        for run in evidence.runs:
            for output in run.outputs:
                shape = run.values[output].shape
                if run.batch < 2 or len(shape) < 2 or shape[0] == run.batch or shape[0] % run.batch:
                    continue
                op = _changed(run, output)
                if op is not None:
                    before = " and ".join(str(list(run.values[n].shape)) for n in op.inputs[:2])
                    yield self.found(
                        evidence.place(op.path),
                        f"{op.name} makes {list(run.values[op.outputs[0]].shape)} of {before}",
                        f"{run.batch} samples go in, {shape[0]} rows come out",
                        hint="flatten(1) keeps the batch; cat(…, dim=1) joins features",
                    )


def _changed(run: Trace, output: int) -> Op | None:
    """Find the nearest operation before an output that took the batch and gave another number of rows."""
    for op in run.upstream(output):
        takes = [run.values[number].shape for number in op.inputs]
        gives = run.values[op.outputs[0]].shape if op.outputs else ()
        if gives and gives[0] != run.batch and any(shape and shape[0] == run.batch for shape in takes):
            return op
    return None


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
