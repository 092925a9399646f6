"""`file:PATH[#sha256=HASH][@BASE]`: the architecture of another source with the weights of a file."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from torchgraft.errors import SourceError, TorchgraftWarning
from torchgraft.sources.base import Base, Source, parse_source
from torchgraft.weights.fit import Fit, fit
from torchgraft.weights.plan import tensors_of
from torchgraft.weights.reading import check_there, note
from torchgraft.weights.skeleton import draw, place

__all__ = ["File"]

_HASH = re.compile(r"#sha256=([^@#]*)")


class File(Source):
    """Weights from a safetensors file, or an older `.pt` file of tensors alone; `@` names the architecture.

    A training checkpoint is unwrapped, and prefixes such as `module.` are taken off; a warning says so. The file
    is mapped, and its tensors become the model's where type and order agree: memory is taken once, as it is read.
    Each keeps the type that the architecture has. What is trained never reaches the file; while the model lives,
    do not write into it (replacing it by another file is safe).
    """

    form: ClassVar[str] = "PATH[#sha256=HASH][@BASE]"

    def check(self, *, trust: bool = False) -> None:
        """See that the file is there, and that the architecture is known."""
        check_there(self.path)
        if architecture := self._architecture():
            parse_source(architecture).bare.check(trust=trust)

    def load(self, *, seed: int = 0, trust: bool = False) -> Base:
        """Build the architecture without weights, then put the file's in their place, all of them.

        Of a backbone alone the last layers are missing: they are drawn from `seed`, and a warning says so.
        """
        self.check(trust=trust)
        base = self.skeleton(seed=seed, trust=trust)
        found = fit(base.module, self.path, sha256=self.sha256)
        headless = _headless(found, list(tensors_of(base.module)))
        _say(found, headless)
        if not headless:
            _refuse_unfit(found)
        state = {own: found.found.state[given] for own, given in found.plan.taken.items()}
        place(base.module, state)
        draw(base.module, headless, seed=seed)
        return base

    def skeleton(self, *, seed: int = 0, trust: bool = False) -> Base:
        """Build the architecture that the file's weights are for."""
        architecture = self._architecture()
        if not architecture:
            raise SourceError(
                "the file does not say which model its weights are for",
                where=str(self),
                hint=f"name it: file:{self.name}@torchvision:resnet18",
            )
        base = parse_source(architecture).skeleton(seed=seed, trust=trust)
        return replace(base, text=str(self))

    @property
    def path(self) -> Path:
        """Where the file lies."""
        return Path(self.name).expanduser()

    @property
    def name(self) -> str:
        """The part before `@` and `#`."""
        return _HASH.sub("", self.rest).partition("@")[0]

    @property
    def tag(self) -> str:
        """The part after `@`: the source of the architecture."""
        return _HASH.sub("", self.rest).partition("@")[2]

    @property
    def sha256(self) -> str:
        """What the file must have."""
        found = _HASH.search(self.rest)
        return found[1] if found else ""

    @property
    def bare(self) -> Source:
        """The architecture with random weights."""
        architecture = self._architecture()
        return parse_source(architecture).bare if architecture else self

    def _architecture(self) -> str:
        return self.tag or note(self.path, "base")


def _headless(found: Fit, names: Sequence[str]) -> Sequence[str]:
    """Give what is missing of a backbone alone: the last tensors of the model, within one of its parts."""
    plan = found.plan
    if plan.misfits or plan.surplus or not plan.needed or plan.is_other:
        return ()
    last = names[-len(plan.needed) :]
    return last if set(last) == set(plan.needed) and len({name.partition(".")[0] for name in last}) == 1 else ()


def _say(found: Fit, headless: Sequence[str]) -> None:
    drawn = f"{', '.join(headless[:4])}{', …' * bool(headless[4:])} are not in it and are drawn anew: a backbone"
    said = [*found.changes(), *found.doubts(), *([drawn] if headless else ())]
    if said:
        warnings.warn(f"{found.origin}: {'; '.join(said)}", TorchgraftWarning, stacklevel=3)


def _refuse_unfit(found: Fit) -> None:
    if not found.plan.complete:
        what, hint = found.why_not(
            "name the architecture that they were saved from after the @; of another part than all but the last "
            "layers, load what there is: tg.load('…@none').load_weights(path), which says what it left out"
        )
        raise SourceError(f"the weights are not for this model: {what}", where=found.origin, hint=hint)
