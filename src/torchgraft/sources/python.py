"""`python:package.module:factory`, or `file.py:factory`: a model that the user's own code builds."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import inspect
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torchgraft.errors import SourceError, nearest
from torchgraft.rng import drawn_from
from torchgraft.sources.base import Base, Source
from torchgraft.wording import named

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Python", "from_here"]

_FEW = 8
"""So many factories are named in a message."""


class Python(Source):
    """A function or class without required arguments that gives a module, or a module itself.

    It runs only where it is trusted.

    It may give the module and an example with its batch as well: `return model, (tokens, mask)`.
    """

    form: ClassVar[str] = "PACKAGE.MODULE:FACTORY"

    @property
    def bare(self) -> Source:
        """The same: what the factory gives is what there is."""
        return self

    def skeleton(self, *, seed: int = 0, trust: bool = False) -> Base:
        """Call the factory as ever, then let the values go: modules that it imports must not be left on meta."""
        from torchgraft.weights.skeleton import emptied

        base = self.load(seed=seed, trust=trust)
        return replace(base, module=emptied(base.module))

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
        with drawn_from(seed):
            factory = self._factory()
            if _is_model(factory):
                return _checked(copy.deepcopy(factory), self)  # edits must not reach the module that was imported
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
        from_here()
        try:
            module = _of_file(home) if home.endswith(".py") else importlib.import_module(home)
        except (Exception, SystemExit) as error:  # the file is the user's: it may raise anything
            raise SourceError(
                f"'{home}' can't be imported: {_reason(error)}",
                where=str(self),
                hint="name it as from this folder (python:package.module:FACTORY), and import it by hand",
            ) from error
        if not colon or not hasattr(module, name):
            what = f"'{home}' has no '{name}'" if colon else f"'{self}' names no factory"
            hint = (nearest(name, vars(module)) if colon else "") or _offered(home, module)
            raise SourceError(what, where=str(self), hint=hint)
        return getattr(module, name)


def _offered(home: str, module: Any) -> str:
    """Name what of a module can be called for a model without arguments, and the models in it."""
    start = home if home.endswith(".py") else f"python:{home}"
    found = [name for name, one in vars(module).items() if not name.startswith("_") and _makes(one, module)]
    named = ", ".join(f"{start}:{name}" for name in found[:_FEW])
    return f"name what gives the model: {named or f'{start}:FACTORY'}"


def _makes(one: Any, module: Any) -> bool:
    if _is_model(one):
        return True
    if not callable(one) or getattr(one, "__module__", "") != module.__name__:
        return False
    try:
        inspect.signature(one).bind()
    except (TypeError, ValueError):  # arguments are missing, or it does not say which it takes
        return False
    return True


def from_here() -> None:
    """Let modules of the current folder be imported, as `python` does and an installed command does not."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)


def _is_model(given: Any) -> bool:
    from torch import nn

    return isinstance(given, nn.Module)


def _of_file(path: str) -> Any:
    """Import a file by its path, under the name of the file."""
    name = f"_file_{Path(path).stem}"  # not the plain name: a model.py or torch.py must not hide another module
    spec = importlib.util.spec_from_file_location(name, Path(path).expanduser())
    if spec is None or spec.loader is None or not Path(path).expanduser().is_file():
        raise ImportError("there is no such file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # classes are looked up by the name of their module
    spec.loader.exec_module(module)
    return module


def _reason(error: BaseException) -> str:
    """Say why an import failed; what is not about the import itself is named by its kind."""
    return str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"


def _checked(module: Any, source: Source) -> Base:
    from torch import nn

    example = None
    if isinstance(module, tuple) and len(module) == 2 and isinstance(module[0], nn.Module):
        module, example = module
    if not isinstance(module, nn.Module):
        raise SourceError(
            f"the factory gave {named(module)}, not a torch.nn.Module",
            where=str(source),
            hint="return the model itself",
        )
    made: nn.Module = module
    return Base(made, str(source), getattr(module, "input_shape", None), example=example)
