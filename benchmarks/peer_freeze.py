"""All but the head frozen, as torchgraft, timm, fastai and tutorials do it: what moves all the same."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence

import torch
from fastai.callback.training import BnFreeze
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.optimizer import SGD
from timm.utils import freeze as timm_freeze
from timm.utils import unfreeze as timm_unfreeze
from torch import Tensor, nn

import torchgraft as tg
from benchmarks.peer_models import Model, tensors

Train = Callable[[nn.Module, Tensor], None]
LABELS = torch.tensor([0, 1])


def our_freeze(one: Model) -> tuple[None, bool]:
    graft = tg.load(one.build(), input=one.shape).head(7)
    paths = graft.recipe.edits[0].at
    graft.freeze(all_but=paths, still=True)
    return None, _still(graft.module, paths, one.images(), _steps) == "right"


def their_freeze(one: Model, ours: None, freeze: Callable[[nn.Module, Sequence[str]], Train]) -> str:
    graft = tg.load(one.build(), input=one.shape).head(7)
    paths = graft.recipe.edits[0].at
    return _still(graft.module, paths, one.images(), freeze(graft.module, paths))


def _still(model: nn.Module, paths: Sequence[str], x: Tensor, train: Train) -> str:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    kinds = {name for name, _ in model.named_parameters()}
    train(model, x)
    moved = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])]
    body = [name for name in moved if not any(name.startswith(f"{path}.") for path in paths)]
    if [name for name in body if name not in kinds]:
        return "wrong: BatchNorm statistics move"
    if body:
        return "wrong: parameters of the body move"
    if not moved:
        return "wrong: the head does not learn"
    return "right" if torch.equal(*(_last_frozen(model, paths, x) for _ in range(2))) else "wrong: dropout goes on"


def _last_frozen(model: nn.Module, paths: Sequence[str], x: Tensor) -> Tensor:
    """Give what the last frozen layer gives in training mode."""
    seen: list[Tensor] = []
    hooks = [
        part.register_forward_hook(lambda _, __, out: seen.append(tensors(out)[0].clone()))
        for path, part in model.named_modules()
        if path not in paths and part._parameters and not list(part.children())
    ]
    with torch.no_grad():
        model.train()(x)
    for hook in hooks:
        hook.remove()
    return seen[-1]


def _loss(given: object, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(tensors(given)[0], labels)


def _steps(model: nn.Module, x: Tensor) -> None:
    """Take two steps in a plain loop."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    model.train()
    for _ in range(2):
        optimizer.zero_grad()
        _loss(model(x), LABELS).backward()
        optimizer.step()


def _fastai_loop(model: nn.Module, paths: Sequence[str], *, train_bn: bool) -> Train:
    """Freeze with fastai's own loop, which keeps BatchNorm trainable where it is not told otherwise."""
    heads = {id(p) for path in paths for p in model.get_submodule(path).parameters()}
    split = [[p for p in model.parameters() if (id(p) in heads) == head] for head in (False, True)]

    def train(model: nn.Module, x: Tensor) -> None:
        samples = [(x[number % 2], LABELS[number % 2]) for number in range(4)]
        still = [] if train_bn else [BnFreeze()]
        with contextlib.redirect_stdout(io.StringIO()):
            learner = Learner(
                DataLoaders.from_dsets(samples, samples, bs=2, num_workers=0, device="cpu"), model, _loss,
                splitter=lambda _: split, train_bn=train_bn, lr=0.01, opt_func=SGD, cbs=still,
            )  # fmt: skip
            learner.freeze()
            with learner.no_bar(), learner.no_logging():
                learner.fit(1)

    return train


def _plain(model: nn.Module, paths: Sequence[str]) -> Train:
    """What tutorials do."""
    for parameter in model.parameters():
        parameter.requires_grad = False
    for path in paths:
        for parameter in model.get_submodule(path).parameters():
            parameter.requires_grad = True
    return _steps


def _timm_frozen(model: nn.Module, paths: Sequence[str]) -> Train:
    """Freeze everything with timm's function, and take the head back."""
    timm_freeze(model)
    timm_unfreeze(model, list(paths))
    return _steps


WAYS: Mapping[str, tuple[Callable[[nn.Module, Sequence[str]], Train], tuple[str, ...]]] = {
    "`requires_grad = False`": (_plain, ("torchvision", "timm")),
    "timm `freeze`": (_timm_frozen, ("torchvision", "timm")),
    "fastai `freeze`": (lambda model, paths: _fastai_loop(model, paths, train_bn=True), ("torchvision",)),
    "fastai `freeze` + `BnFreeze`": (
        lambda model, paths: _fastai_loop(model, paths, train_bn=False),
        ("torchvision",),
    ),
}
"""Who freezes how, and on which models."""
