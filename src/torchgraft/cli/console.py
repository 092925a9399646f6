"""What the commands print, and how: words on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchgraft.errors import StoreError, TorchgraftError, TorchgraftWarning

if TYPE_CHECKING:
    from rich.console import Console

    from torchgraft.graft import Graft

__all__ = ["complain", "console", "count", "opened", "recipe_path", "say", "shape_of", "warn"]


def console(*, stderr: bool = False) -> Console:
    """Give a console that prints text as it is; where it is no terminal, lines may be as long as they are."""
    from rich.console import Console

    seen = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(
        stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True, width=None if seen else 200
    )


def complain(error: TorchgraftError) -> None:
    """Print what is wrong, where, and what to do, on standard error; of several processes one says it."""
    if os.environ.get("WORLD_SIZE", "1") != "1":
        from torchgraft.train.many.speaking import is_first, recorded

        recorded(error)
        if not is_first(str(error)):
            return
    from rich.text import Text

    out = console(stderr=True)
    out.print(Text("error: ", style="bold red") + Text(error.what))
    if error.where:
        out.print(Text("where: ", style="bold") + Text(error.where))
    if error.hint:
        out.print(Text("do:    ", style="bold") + Text(error.hint))
    for finding in getattr(error, "findings", ()):
        out.print(Text(f"\n{finding}"))


def warn(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """Print a warning of ours in its own words, and any other as Python does."""
    if not issubclass(category, TorchgraftWarning):
        sys.stderr.write(warnings.formatwarning(message, category, *where[:2]))
        return
    from rich.text import Text

    console(stderr=True).print(Text("warning: ", style="bold yellow") + Text(str(message)))


def say(word: str, sentence: str) -> None:
    """Print one step of a job: a word at the edge, and what happened."""
    from rich.text import Text

    console().print(Text(f"{word:<9}", style="bold") + Text(sentence.replace("\n", f"\n{'':9}")))


def count(done: int, total: int) -> None:
    """Show how far long reading is, on a terminal."""
    if sys.stderr.isatty() and (done == total or done % 100 == 0):
        end = "\r\033[K" if done == total else ""
        print(f"\rreading {done}/{total}{end}", end="", file=sys.stderr, flush=True)


def shape_of(text: str | None) -> Any:
    """Read what `--input` says; None where it says nothing.

    Raises:
        RecipeError: it is no shape.
    """
    from torchgraft.recipe import Recipe
    from torchgraft.settings import check_settings

    shape = Recipe.value(text) if text else None
    check_settings({"input": shape}, where="--input")
    return shape


def opened(model: str, input_: str | None, *, trust: bool) -> Graft:
    """Open what a command was given: a recipe, a source, or a kept version.

    Raises:
        TorchgraftError: it can't be had, or `--input` is no shape.
    """
    from torchgraft.keep import open_named

    return open_named(model, input=shape_of(input_), trust=trust)


def recipe_path(model: str, to: str | None, *, other: str) -> Path:
    """Give where a command writes a recipe: to `to`, over the one that it was given, or to recipe.yaml.

    Raises:
        StoreError: another file is there already; `other` is a name to choose.
    """
    from torchgraft.recipe import is_recipe

    path = Path(to or (model if is_recipe(model) else "recipe.yaml"))
    if path.exists() and str(path) != model:
        raise StoreError(f"there is a {path} already", where=str(path), hint=f"name another file: --to {other}")
    return path
