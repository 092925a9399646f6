"""`python:package.module:factory`: a model that the user's own code builds."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

from torchgraft.errors import SourceError, nearest
from torchgraft.sources.base import Base, Source, seeded

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Python"]


class Python(Source):
    """A function or class without required arguments that gives a module; runs only where it is trusted."""

    def check(self, *, trust: bool = False) -> None:
        """Refuse code that is not trusted; whether it is there, importing it tells."""
        if not trust:
            raise SourceError(
                f"'{self}' runs code of your own",
                where=str(self),
                hint="allow it with --trust, or trust=True",
            )

    def load(self, *, seed: int = 0, trust: bool = False) -> Base:
        """Import the factory and call it."""
        self.check(trust=trust)
        factory = self._factory()
        with seeded(seed):
            try:
                module = factory()
            except (Exception, SystemExit) as error:
                raise SourceError(
                    f"the factory failed: {type(error).__name__}: {error}",
                    where=str(self),
                    hint="call it by hand; it must need no arguments",
                ) from error
        return _checked(module, self)

    def _factory(self) -> Any:
        home, colon, name = self.rest.partition(":")
        if not colon:
            raise SourceError(f"'{self}' names no factory", where=str(self), hint=f"python:{home}:FACTORY")
        here = os.getcwd()
        if here not in sys.path:
            sys.path.insert(0, here)
        try:
            module = importlib.import_module(home)
        except (Exception, SystemExit) as error:  # the file is the user's: it may raise anything
            raise SourceError(
                f"'{home}' can't be imported: {_reason(error)}",
                where=str(self),
                hint="name it as from this folder (python:package.module:FACTORY), and import it by hand",
            ) from error
        if not hasattr(module, name):
            hint = nearest(name, vars(module)) or f"python:{home}:FACTORY"
            raise SourceError(f"'{home}' has no '{name}'", where=str(self), hint=hint)
        return getattr(module, name)


def _reason(error: BaseException) -> str:
    """Say why an import failed; what is not about the import itself is named by its kind."""
    return str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"


def _checked(module: Any, source: Source) -> Base:
    from torch import nn

    if not isinstance(module, nn.Module):
        raise SourceError(
            f"the factory gave a {type(module).__name__}, not a torch.nn.Module",
            where=str(source),
            hint="return the model itself",
        )
    made: nn.Module = module
    return Base(made, str(source), getattr(module, "input_shape", None))
