"""`file:PATH@BASE`: the architecture of another source with the weights of a file."""

from __future__ import annotations

import warnings
from pathlib import Path

from torchgraft.errors import SourceError, TorchgraftWarning
from torchgraft.sources.base import Base, Source, parse_source
from torchgraft.weights.fit import Fit, fit
from torchgraft.weights.reading import check_there, note

__all__ = ["File"]


class File(Source):
    """Weights from a safetensors file, or an older `.pt` file of tensors alone; `@` names the architecture.

    A training checkpoint is unwrapped, and prefixes such as `module.` are taken off; a warning says so.
    """

    def check(self, *, trust: bool = False) -> None:
        """See that the file is there, and that the architecture is known."""
        check_there(Path(self.name).expanduser())
        if self.tag:
            parse_source(_without_weights(self.tag)).check(trust=trust)

    def load(self, *, seed: int = 0, trust: bool = False) -> Base:
        """Build the architecture with random weights, then load the file's in their place, all of them."""
        self.check(trust=trust)
        path = Path(self.name).expanduser()
        architecture = self.tag or note(path, "base")
        if not architecture:
            raise SourceError(
                "the file does not say which model its weights are for",
                where=str(self),
                hint=f"name it: file:{self.name}@torchvision:resnet18",
            )
        base = parse_source(_without_weights(architecture)).load(seed=seed, trust=trust)
        found = fit(base.module, path)
        _say(found)
        _refuse_unfit(found)
        state = {own: found.found.state[given] for own, given in found.plan.taken.items()}
        base.module.load_state_dict(state, strict=False)
        return Base(base.module, str(self), base.input, base.preprocess)


def _without_weights(text: str) -> str:
    return text if text.startswith("python:") else f"{text.partition('@')[0]}@none"


def _say(found: Fit) -> None:
    said = found.changes()
    if found.misnamed:
        promised, real = found.misnamed
        said.append(f"its name promises the sha256 {promised}…, it is {real}…: a damaged or another file")
    if said:
        warnings.warn(f"{found.origin}: {'; '.join(said)}", TorchgraftWarning, stacklevel=3)


def _refuse_unfit(found: Fit) -> None:
    if not found.plan.complete:
        raise SourceError(
            f"the weights are not for this model: {', '.join(found.plan.sentences())}",
            where=found.origin,
            hint="name the architecture that they were saved from after the @, or load them into your model with "
            "g.load_weights(path, resize=True), which fits other sizes and says what it left out",
        )
