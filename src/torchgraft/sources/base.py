"""What every source is: a text that names a base model, and a way to load it."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from torchgraft.errors import SourceError, TorchgraftWarning, nearest
from torchgraft.family import gather, kind_of
from torchgraft.preprocess import Preprocess
from torchgraft.schema import Schema
from torchgraft.sources.spelling import modern, stored

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Base", "Offer", "Source", "is_code", "online", "parse_source", "schemes"]


@dataclass(frozen=True)
class Base:
    """A loaded base model.

    Attributes:
        module: the plain module.
        text: the source that it came from.
        input: the shape of one input, without the batch.
        preprocess: how its images were prepared.
        example: an example with its batch, for a model that takes something else than one tensor.
        tokenizer: where the tokenizer of its texts lies: what `AutoTokenizer.from_pretrained` takes.
    """

    module: nn.Module
    text: str
    input: tuple[int, ...] | None = None
    preprocess: Preprocess | None = None
    example: Any = None
    tokenizer: str | None = None


@dataclass(frozen=True)
class Offer:
    """One model that a source has.

    Attributes:
        name: as it stands after the scheme.
        weights: which weights there are, the default first; empty where only random ones are.
        there: what of it lies on this machine already.
    """

    name: str
    weights: tuple[str, ...] = ()
    there: str = ""


class Source(Schema, ABC):
    """A base model by name: `scheme:rest`, the scheme being the class name in small letters."""

    registry: ClassVar[dict[str, type[Source]]] = {}
    form: ClassVar[str] = "NAME"
    """What is written after the scheme, for messages and lists."""

    rest: str

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Source.registry[kind_of(cls.__name__)] = cls

    def check(self, *, trust: bool = False) -> None:
        """Refuse a name that is not known, at no cost: nothing is built, read or downloaded.

        Raises:
            SourceError: there is no such model, or there are no such weights.
        """

    @abstractmethod
    def load(self, *, seed: int = 0, trust: bool = False) -> Base:
        """Build the model and load its weights; random weights are drawn from `seed`.

        Raises:
            SourceError: the model or its weights can't be had.
        """

    def skeleton(self, *, seed: int = 0, trust: bool = False) -> Base:
        """Build the model with its parameters on meta: without memory for them, and without weights.

        Buffers are real, since what is computed while a model is built is in no file of weights. A model that
        can't be built so is built the usual way first.

        Raises:
            SourceError: the model can't be had.
        """
        from dataclasses import replace

        from torchgraft.weights.skeleton import emptied, parameters_on_meta

        bare = self.bare
        try:
            with parameters_on_meta():
                base = bare.load(seed=seed, trust=trust)
        except (RuntimeError, TypeError):
            base = bare.load(seed=seed, trust=trust)
        return replace(base, module=emptied(base.module), text=str(self))

    @property
    def bare(self) -> Source:
        """The same architecture with random weights."""
        return self.model_copy(update={"rest": f"{self.name}@none"})

    def modern(self) -> Self:
        """Give the source as it is written today, where it was written in an older way; the warning says how."""
        return self

    @classmethod
    def offers(cls) -> Sequence[Offer]:
        """List what the source has, as far as it knows without a network; empty where it can't know."""
        return ()

    @property
    def name(self) -> str:
        """The part before `@`."""
        return self.rest.partition("@")[0]

    @property
    def tag(self) -> str:
        """The part after `@`: which weights, `none` for random ones."""
        return self.rest.partition("@")[2]

    def __str__(self) -> str:
        return f"{kind_of(type(self).__name__)}:{self.rest}"


def schemes() -> dict[str, type[Source]]:
    """Give every kind of source there is, by its scheme."""
    gather("torchgraft.sources")
    return dict(sorted(Source.registry.items()))


_WEIGHTS = "a file of weights", "name the model that they are for: file:{}@resnet18"
_RECIPE = "a recipe", "torchgraft.loading.replay(tg.Recipe.read('{}')) makes its model"
_FILES = {
    ".pt": _WEIGHTS,
    ".pth": _WEIGHTS,
    ".ckpt": _WEIGHTS,
    ".bin": _WEIGHTS,
    ".safetensors": _WEIGHTS,
    ".yaml": _RECIPE,
    ".yml": _RECIPE,
}


def is_code(text: str) -> bool:
    """Tell whether a name stands for a file of the user's own code: `net.py:factory`."""
    return text.partition(":")[0].endswith(".py")


def parse_source(text: str) -> Source:
    """Read a source; a bare name means torchvision, `runs@v3` a kept version.

    The way in which the libraries' own calls are written is understood too, and a warning says how it is written
    here.

    Raises:
        SourceError: the scheme is not known.
    """
    known = schemes()
    given, text = text, modern(text)
    if given != text:
        told = f"'{given}' is read as '{text}'"
        warnings.warn(f"{told}: write it so", TorchgraftWarning, stacklevel=2)
    if is_code(text):
        text = f"python:{text}"
    scheme, colon, rest = text.partition(":")
    if not colon and (other := _FILES.get(Path(text).suffix)):
        raise SourceError(f"'{text}' is {other[0]}, no model", where=text, hint=other[1].format(text))
    if not colon:
        scheme, rest = "version" if stored(text) else "torchvision", text
    if scheme not in known:
        raise SourceError(
            f"there is no source '{scheme}'",
            where=text,
            hint=nearest(scheme, known) or f"one of {', '.join(f'{one}:…' for one in known)}",
        )
    if not rest:
        raise SourceError(f"'{text}' names no model", where=text, hint=f"write {scheme}:{known[scheme].form}")
    return known[scheme](rest=rest).modern()


def online(load: Callable[[], nn.Module], text: str, *, direct: bool = True) -> nn.Module:
    """Load a model whose files may have to be downloaded.

    Args:
        load: builds the model and loads its weights.
        text: the source, for messages.
        direct: put the weights straight into their places; random ones must be drawn the usual way.

    Raises:
        SourceError: they can't be, because there is no network or the server does not have them.
    """
    from torchgraft.weights.skeleton import straight

    try:
        return straight(load) if direct else load()
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SourceError(
            f"the weights can't be loaded: {reason}",
            where=text,
            hint=f"connect to a network, name a file (file:weights.safetensors@{text}), "
            "or take random weights (…@none)",
        ) from error
