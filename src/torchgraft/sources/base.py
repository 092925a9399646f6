"""What every source is: a text that names a base model, and a way to load it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torchgraft.errors import SourceError, nearest
from torchgraft.family import gather, kind_of
from torchgraft.preprocess import Preprocess
from torchgraft.schema import Schema

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Base", "Source", "online", "parse_source", "seeded"]


@dataclass(frozen=True)
class Base:
    """A loaded base model.

    Attributes:
        module: the plain module.
        text: the source that it came from.
        input: the shape of one input, without the batch.
        preprocess: how its images were prepared.
        example: an example with its batch, for a model that takes something else than one tensor.
    """

    module: nn.Module
    text: str
    input: tuple[int, ...] | None = None
    preprocess: Preprocess | None = None
    example: Any = None


class Source(Schema, ABC):
    """A base model by name: `scheme:rest`, the scheme being the class name in small letters."""

    registry: ClassVar[dict[str, type[Source]]] = {}
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


def parse_source(text: str) -> Source:
    """Read a source; a bare name means torchvision.

    Raises:
        SourceError: the scheme is not known.
    """
    gather("torchgraft.sources")
    if text.partition(":")[0].endswith(".py"):
        text = f"python:{text}"
    scheme, colon, rest = text.partition(":")
    if not colon:
        scheme, rest = "torchvision", text
    if scheme not in Source.registry:
        known = sorted(Source.registry)
        raise SourceError(
            f"there is no source '{scheme}'",
            where=text,
            hint=nearest(scheme, known) or f"one of {', '.join(f'{one}:…' for one in known)}",
        )
    if not rest:
        raise SourceError(f"'{text}' names no model", where=text, hint=f"write {scheme}:NAME")
    return Source.registry[scheme](rest=rest)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw random weights from a seed, and leave torch's own generator as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def online(load: Callable[[], nn.Module], text: str) -> nn.Module:
    """Load a model whose weights may have to be downloaded.

    Raises:
        SourceError: they can't be, because there is no network or the server does not have them.
    """
    try:
        return load()
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SourceError(
            f"the weights can't be loaded: {reason}",
            where=text,
            hint=f"connect to a network, name a file (file:weights.safetensors@{text}), "
            "or take random weights (…@none)",
        ) from error
