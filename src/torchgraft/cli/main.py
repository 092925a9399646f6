"""Entry point: run a command, and turn what a user can cause into three lines and exit code 2."""

from __future__ import annotations

import os
import re
import shlex
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

from cyclopts import App, CycloptsError

from torchgraft import __version__
from torchgraft.cli.console import complain, warn
from torchgraft.errors import TorchgraftError

__all__ = ["app", "main"]

app = App(
    name="torchgraft",
    version=__version__,
    help="Take a trained PyTorch model, change it for your task, know at once whether it still fits, train it, "
    "and keep every version.",
    help_epilogue="A first try, offline: torchgraft adapt bundled:glyphs --data sklearn:digits",
    help_format="plaintext",
    version_flags="--version",
)

# Commands are imported when they are called; the words of the overview stand here so that --help stays fast.
for _home, _words in {
    "adapt:adapt": "Fit a trained model to a data set, check it, train it, keep the result.",
    "train:train": "Make, check and train what a recipe describes.",
    "edit:edit": "Change a model or a recipe by edits, each checked as it is made.",
    "edit:edits": "List every edit there is, or explain one.",
    "check:check": "Say whether a model or a recipe fits, where it does not, and why.",
    "show:show": "Show a model as a tree: shapes, parameters, work, memory.",
    "draw:draw": "Draw a model as a graph of modules: SVG, PNG, interactive HTML, dot, JSON.",
    "diff:diff": "Say how two models, recipes or versions differ.",
    "features:features": "Draw what a model sees in images: feature maps, where it looks, filters, attention.",
    "profile:profile": "Say where a training step and a prediction spend time and memory.",
    "memory:memory": "Predict the memory that training takes, and the largest batch that fits.",
    "params:params": "List the parameters of a model: shape, trained or frozen, rate, decay, values.",
    "predict:predict": "Tell what images or texts are, by a kept version.",
    "log:log": "List the versions that are kept.",
    "sources:sources": "List where base models come from, and which there are.",
    "rules:rules": "List every rule that models and data are checked by.",
    "rules:rule": "Explain one rule.",
}.items():
    app.command(f"torchgraft.cli.{_home}", name=_home.partition(":")[2], help=_words)

_find = App(
    name="find",
    help="Find the learning rate or the size of a batch for a recipe, by trying.",
    help_format="plaintext",
)
for _name, _words in {
    "rate": "Raise the learning rate at every step; see where the loss falls and where it breaks.",
    "batch": "Find the largest batch that fits, and the smallest that is as fast as any.",
}.items():
    _find.command(f"torchgraft.cli.find:{_name}", name=_name, help=_words)
app.command(_find)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and leave with its exit code.

    0: done. 1: errors were found in a model. 2: the user's mistake. 130: Ctrl-C.
    """
    warnings.showwarning = warn
    try:
        given = sys.argv[1:] if arguments is None else list(arguments)
        result = app(_spelled(given), exit_on_error=False, print_error=False)
    except TorchgraftError as error:
        complain(error)
        sys.exit(2)
    except CycloptsError as error:
        hint = _joined(given) or "torchgraft --help, or torchgraft COMMAND --help"
        complain(TorchgraftError(str(error), where=f"torchgraft {shlex.join(given)}", hint=hint))
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(result if isinstance(result, int) else 0)


def _joined(arguments: list[str]) -> str:
    """Say how a size is written that was given in two words: `--device 8 GB`."""
    found = re.search(r"--device[ =](\d+(?:\.\d+)?) ([KMGT]?i?B?)(?: |$)", " ".join(arguments), re.IGNORECASE)
    return f"write --device {found[1]}{found[2]}, without a space" if found and found[2] else ""


def _spelled(arguments: list[str]) -> list[str]:
    """Read `--fix` without a value as `--fix=1`: the best."""
    if arguments[:1] == ["profile"]:  # what follows the name of a script is the script's own
        script = next((place for place, word in enumerate(arguments) if word.endswith(".py")), len(arguments)) + 1
        return [*arguments[:script], *(["--"] if script < len(arguments) else []), *arguments[script:]]
    spelled: list[str] = []
    for place, word in enumerate(arguments):
        after = arguments[place + 1] if place + 1 < len(arguments) else "-"
        alone = word == "--fix" and (after.startswith("-") or "." in after or ":" in after or "@" in after)
        spelled.append("--fix=1" if alone else word)
    return spelled
