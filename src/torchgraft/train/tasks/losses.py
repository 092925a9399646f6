"""A loss in the place of the task's own: one of torch.nn by name, the user's by name, or an object of Python's."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from torchgraft.errors import TrainError, nearest
from torchgraft.recipe import TrainPlan
from torchgraft.sources.python import from_here
from torchgraft.train.tasks.single import Given

__all__ = ["OBJECT", "PYTHON", "Loss", "given_loss", "handed_over", "loss_named", "loss_names", "trusted"]

Loss = Callable[[Any, Any], Tensor]

OBJECT = "object:"
"""What begins the name of a loss that was handed over from Python."""

PYTHON = "python:"
"""What begins the name of a loss of the user's own."""

_OF_PAIRS = {"L1Loss", "MSELoss", "SmoothL1Loss", "HuberLoss", "BCELoss", "BCEWithLogitsLoss", "SoftMarginLoss"}
"""Losses that compare number by number: targets of another shape would be spread out without a word."""

_OTHERWISE = {
    "AdaptiveLogSoftmaxWithLoss": "it has weights of its own",
    "CTCLoss": "it takes lengths as well",
    "CosineEmbeddingLoss": "it takes pairs of inputs",
    "GaussianNLLLoss": "it takes a variance as well",
    "MarginRankingLoss": "it takes pairs of inputs",
    "NLLLoss2d": "it is NLLLoss",
    "TripletMarginLoss": "it takes three inputs",
    "TripletMarginWithDistanceLoss": "it takes three inputs",
}
"""Losses of torch.nn that don't take outputs and targets, and why."""


def loss_names() -> list[str]:
    """List the losses of torch.nn that take outputs and targets."""
    found = (name for name, one in vars(nn).items() if isinstance(one, type) and name.endswith("Loss"))
    return sorted(name for name in found if name not in _OTHERWISE)


def loss_named(text: str, *, trust: bool = False) -> Callable[[Any, Any], Tensor]:
    """Give the loss of this name: `SmoothL1Loss`, `HuberLoss(delta=0.5)` or `python:package.module:function`.

    Raises:
        TrainError: there is none, it does not take its settings, or code of the user's is not trusted.
    """
    if text.startswith(PYTHON):
        return _own(text, trust=trust)
    name, settings = _spelled(text)
    if name in _OTHERWISE:
        raise TrainError(
            f"torchgraft can't train by {name}: {_OTHERWISE[name]}",
            where="train.loss",
            hint="write a function of outputs and targets: loss: python:package.module:function",
        )
    if name not in loss_names():
        hint = (
            nearest(name, loss_names()) or f"one of {', '.join(loss_names())}, or python:package.module:function"
        )
        raise TrainError(f"torch.nn has no loss '{name}'", where="train.loss", hint=hint)
    try:
        made: nn.Module = getattr(nn, name)(**settings)
    except Exception as error:  # what torch makes of a wrong setting is of any kind
        raise TrainError(
            f"{name} does not take these settings: {error}", where="train.loss", hint="see its page in torch.nn"
        ) from error
    return made


def given_loss(loss: Callable[[Any, Any], Tensor]) -> Given:
    """Give a loss what it takes, and tell its mistakes as the user's.

    Targets get the shape of the outputs where a loss compares number by number, class numbers become rows of zeros
    and a one.
    """
    name = getattr(loss, "__name__", type(loss).__name__)
    pairs = isinstance(loss, nn.Module) and name in _OF_PAIRS

    def judged(scores: Tensor, targets: Any) -> Tensor:
        try:
            value = _paired(loss, scores, targets) if pairs else loss(scores, targets)
        except Exception as error:  # a loss of the user's raises what it likes
            got = f"{list(scores.shape)} with targets {_shown(targets)}"
            reason = (str(error).strip() or repr(error)).splitlines()[0]
            raise TrainError(
                f"the loss {name} can't take outputs {got}: {reason}",
                where="train.loss",
                hint="take a loss that fits the head and the targets, or leave it out",
            ) from error
        if not isinstance(value, Tensor) or value.dim():
            what = f"a tensor {list(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise TrainError(
                f"the loss {name} gives {what}", where="train.loss", hint="give one number, such as its mean"
            )
        return value

    return judged


def handed_over(settings: Mapping[str, Any]) -> tuple[dict[str, Any], Loss | None]:
    """Take a loss that is no name out of settings of a plan; gives the settings that name it, and the loss."""
    loss = settings.get("loss")
    if loss is None or isinstance(loss, str):
        return dict(settings), None
    if isinstance(loss, type):
        raise TrainError(
            f"{loss.__name__} is a class", where="train.loss", hint=f"give what it makes: {loss.__name__}()"
        )
    if not callable(loss):
        raise TrainError(
            f"a {type(loss).__name__} is no loss",
            where="train.loss",
            hint="give a function of outputs and targets",
        )
    return {**settings, "loss": f"{OBJECT}{getattr(loss, '__name__', type(loss).__name__)}"}, loss


def trusted(plan: TrainPlan, *, trust: bool) -> Loss | None:
    """Give the loss of the user's own code that a plan names; None where it names none.

    Raises:
        TrainError: there is no such loss, or it is not trusted.
    """
    if plan.loss is None or plan.loss.startswith(OBJECT):
        return None
    found = loss_named(plan.loss, trust=trust)
    return found if plan.loss.startswith(PYTHON) else None


def _paired(loss: Callable[[Any, Any], Tensor], scores: Tensor, targets: Tensor) -> Tensor:
    wanted = targets
    if not targets.is_floating_point() and targets.shape == (scores.shape[0], *scores.shape[2:]):
        spread = functional.one_hot(targets, scores.shape[1])
        wanted = spread.movedim(-1, 1)
    elif targets.numel() == scores.numel():
        wanted = targets.reshape(scores.shape)
    if wanted.shape != scores.shape:
        raise RuntimeError("they have other shapes")
    return loss(scores.float(), wanted.float())


def _shown(targets: Any) -> str:
    if isinstance(targets, Mapping):
        return f"{{{', '.join(f'{name}: {_shown(one)}' for name, one in targets.items())}}}"
    return str(list(targets.shape)) if isinstance(targets, Tensor) else f"of {type(targets).__name__}"


def _spelled(text: str) -> tuple[str, dict[str, Any]]:
    """Read `HuberLoss(delta=0.5)`; nothing but plain values stands in the brackets."""
    try:
        read = ast.parse(text.strip(), mode="eval").body
        if isinstance(read, ast.Name):
            return read.id, {}
        if isinstance(read, ast.Call) and isinstance(read.func, ast.Name) and not read.args:
            return read.func.id, {str(one.arg): ast.literal_eval(one.value) for one in read.keywords}
    except (SyntaxError, ValueError):
        pass
    raise TrainError(
        f"'{text}' names no loss",
        where="train.loss",
        hint="write SmoothL1Loss, HuberLoss(delta=0.5) or python:package.module:function",
    )


def _own(text: str, *, trust: bool) -> Callable[[Any, Any], Tensor]:
    if not trust:
        raise TrainError(
            f"'{text}' runs code of your own", where="train.loss", hint="allow it with --trust, or trust=True"
        )
    home, colon, name = text.removeprefix(PYTHON).partition(":")
    from_here()
    try:
        module = importlib.import_module(home)
    except (Exception, SystemExit) as error:  # the file is the user's: it may raise anything
        reason = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
        raise TrainError(
            f"'{home}' can't be imported: {reason}", where="train.loss", hint="import it by hand from this folder"
        ) from error
    found = getattr(module, name, None)
    if not colon or found is None:
        raise TrainError(
            f"'{home}' has no '{name}'" if colon else f"'{text}' names no function",
            where="train.loss",
            hint=nearest(name, vars(module)) or "write python:package.module:function",
        )
    return _called(found, text)


def _called(found: Any, text: str) -> Callable[[Any, Any], Tensor]:
    """Take a class for what it builds."""
    if isinstance(found, type):
        found = found()
    if not callable(found):
        raise TrainError(
            f"'{text}' is a {type(found).__name__}, no function", where="train.loss", hint="name a function"
        )
    return found  # type: ignore[no-any-return]
