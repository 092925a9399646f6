"""A script of the user's, run as `python script.py` would run it."""

from __future__ import annotations

import io
import sys
import traceback
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchgraft.errors import SourceError

__all__ = ["Ended", "is_script", "run_as_main"]


@dataclass(frozen=True)
class Ended:
    """How a script ended: in words, and its exit code."""

    words: str
    code: int


def is_script(target: str) -> bool:
    """Tell whether a name stands for a Python script."""
    return target.endswith(".py")


def compiled(path: str) -> types.CodeType:
    """Read a script.

    Raises:
        SourceError: it is not there, or is no Python.
    """
    try:
        with io.open_code(str(Path(path).resolve())) as file:
            return compile(file.read(), path, "exec", dont_inherit=True)
    except OSError as error:
        raise SourceError(
            f"the script can't be read: {error.strerror}", where=path, hint="check the path"
        ) from error
    except (SyntaxError, ValueError) as error:
        raise SourceError(f"the script is no Python: {error}", where=path, hint="mend it first") from error


def run_as_main(
    path: str, arguments: Sequence[str], around: Callable[[types.CodeType, dict[str, Any]], None]
) -> Ended:
    """Run a script as `__main__`: its own arguments, its folder first on the path, its exit code and exceptions.

    Args:
        path: of the script.
        arguments: that it gets.
        around: executes code in a module's names.

    Raises:
        SourceError: it can't be read.
    """
    code = compiled(path)
    module = types.ModuleType("__main__")
    module.__dict__.update(__file__=str(Path(path).absolute()), __builtins__=__builtins__, __spec__=None)
    kept = sys.modules["__main__"], sys.argv, list(sys.path)
    sys.modules["__main__"], sys.argv = module, [path, *arguments]
    sys.path[0:1] = [str(Path(path).resolve().parent)]
    try:
        around(code, module.__dict__)
        return Ended("finished", 0)
    except SystemExit as left:
        return _left(left.code)
    except KeyboardInterrupt:
        return Ended("stopped by Ctrl-C", 130)
    except BaseException as error:
        _show(error, path)
        return Ended(f"{type(error).__name__}: {error}".splitlines()[0], 1)
    finally:
        sys.stdout.flush()
        sys.modules["__main__"], sys.argv, sys.path[:] = kept


def _left(code: object) -> Ended:
    """Give the exit code of `sys.exit`, as Python does."""
    if code is None or code == 0:
        return Ended("finished", 0)
    if isinstance(code, int):
        return Ended(f"exit code {code}", code)
    print(code, file=sys.stderr)
    return Ended("exit code 1", 1)


def _show(error: BaseException, path: str) -> None:
    """Print a traceback from the script's own first line on."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename != path:
        frames = frames.tb_next
    sys.stdout.flush()
    traceback.print_exception(type(error), error, frames or error.__traceback__)
