"""What timm and fastai do to a trained model, beside torchgraft: each judged by numbers, on the same models.

A peer works on a model when what it gives is right, whatever it looks like inside:

- head: with the old head's rows copied into the new one the old scores come out, and in training mode each output
  has the new number of classes; of fastai, which builds another head, what its head is given must be what the old
  head was given, averaged over the places.
- input: an image whose channels are all the same gives the output that it gave.
- features: what is given is what the layer of that name gives in the whole model.
- layer decay: the head has the full rate, the layer that reads the input the lowest, and there are more than two.
- freeze: after two steps of training in a plain loop, or in the peer's own, all that is frozen is bit for bit as
  it was, the head has moved, and the last frozen layer gives the same twice in training mode.
"""

from __future__ import annotations

import copy
import os
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from fastai.vision import learner as fastai
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn
from torchvision import models

import torchgraft as tg
from benchmarks.measure import table
from benchmarks.peer_freeze import WAYS, our_freeze, their_freeze
from benchmarks.peer_models import Model, chosen, head_input, loaded_equal, near, scores, tensors

TITLE = "Peers side by side: timm's and fastai's own functions, judged by numbers, on the same models"

CLASSES = 7


@dataclass(frozen=True)
class Task:
    """One thing that a peer does and torchgraft does too.

    Attributes:
        what: the column's words.
        peer: whose function, and its name.
        zoo: on which models.
        ours: gives what torchgraft made, and whether it is right.
        theirs: says how the peer did, given what torchgraft made: `equal`, `right`, or `wrong: …`.
    """

    what: str
    peer: str
    zoo: str
    ours: Callable[[Model], tuple[Any, bool]]
    theirs: Callable[[Model, Any], str]


# head


def _head_right(model: nn.Module, base: nn.Module, x: Tensor) -> str:
    old, wanted = base.state_dict(), scores(base, x)
    with torch.no_grad():
        for name, one in model.named_parameters():
            if name not in old or (one.shape != old[name].shape and one.shape[1:] != old[name].shape[1:]):
                return "wrong: other layers than the head changed"
            if one.shape != old[name].shape:
                one.copy_(old[name][:CLASSES])
    given = scores(model, x)
    if given.shape != (2, CLASSES):
        return "wrong: the output has another number of classes"
    if not near(given, wanted[:, :CLASSES]):
        return "wrong: old rows in the new head do not give the old scores"
    with torch.no_grad():
        widths = {one.shape[-1] for one in tensors(copy.deepcopy(model).train()(x))}
    return "right" if widths == {CLASSES} else "wrong: auxiliary heads keep the old classes"


def _our_head(one: Model) -> tuple[tg.Graft, bool]:
    graft = tg.load(one.build(), input=one.shape).head(CLASSES)
    return graft, _head_right(copy.deepcopy(graft.module), one.build(), one.images()) == "right"


def _their_head(one: Model, ours: tg.Graft) -> str:
    theirs = one.build()
    theirs.reset_classifier(CLASSES)  # type: ignore[operator]
    told = _head_right(theirs, one.build(), one.images())
    return "equal" if told == "right" and loaded_equal(theirs, ours.module, one.images()) else told


def _fastai_head(one: Model, ours: tg.Graft, made: Callable[[Model], nn.Sequential]) -> str:
    """Judge fastai's body by what its head is given."""
    base, x = one.build(), one.images()
    path = ours.recipe.edits[-1].at[0]
    wanted = head_input(base, path, x).flatten(1)
    net = made(one).eval()
    with torch.no_grad():
        features, given = net[0](x), net(x)
    if given.shape != (2, CLASSES):
        return "wrong: the output has another shape"
    pooled = features.mean((2, 3)) if features.dim() == 4 else features
    flat = features.flatten(1)
    if near(pooled, wanted) or near(flat, wanted):
        return "right"
    kept, held = (sum(p.numel() for p in part.parameters()) for part in (net[0], base))
    lost = held - sum(p.numel() for p in base.get_submodule(path).parameters()) - kept
    return "wrong: trained layers are dropped" if lost > 0 else "wrong: the head is given other features"


def _body(one: Model, channels: int = 3) -> nn.Module:
    meta = fastai.model_meta.get(getattr(models, one.name), fastai._default_meta)
    model = one.build()
    body: nn.Module = fastai.create_body(model, channels, True, meta["cut"])
    return body


def _fastai_net(one: Model) -> nn.Sequential:
    body = _body(one)
    width = fastai.num_features_model(nn.Sequential(*body.children()))
    net: nn.Sequential = fastai.add_head(body, width, CLASSES)
    return net


def _fastai_timm(one: Model) -> nn.Sequential:
    net, _ = fastai.create_timm_model(one.name, CLASSES, pretrained=False)
    state = one.build().state_dict()
    body = net[0].model
    body.load_state_dict({name: state[name] for name in body.state_dict()})
    made: nn.Sequential = net
    return made


# input


def _our_input(one: Model, channels: int) -> tuple[nn.Module, bool]:
    grey = one.images(1)
    ours = tg.load(one.build(), input=one.shape).input(channels=channels).module
    return ours, near(scores(ours, grey.expand(-1, channels, -1, -1)), _grey(one))


def _their_input(one: Model, ours: Any, channels: int, change: Callable[[Model, int], nn.Module]) -> str:
    theirs = change(one, channels)
    if not near(scores(theirs, one.images(1).expand(-1, channels, -1, -1)), _grey(one)):
        return "wrong: another response to a grey image"
    x = one.images(channels)
    return "equal" if ours is not None and near(scores(theirs, x), scores(ours, x)) else "right"


def _grey(one: Model) -> Tensor:
    return scores(one.build(), one.images(1).expand(-1, 3, -1, -1))


def _in_chans(one: Model, channels: int) -> nn.Module:
    """Let timm load the weights into a model of other channels, as it does with its own pretrained ones."""
    with tempfile.TemporaryDirectory() as home:
        path = Path(home) / "weights.pth"
        torch.save(one.build().state_dict(), path)
        overlay = {"file": str(path)}
        model = timm.create_model(one.name, pretrained=True, in_chans=channels, pretrained_cfg_overlay=overlay)
    made: nn.Module = model
    return made


def _first_layer(one: Model, channels: int) -> nn.Module:
    model = one.build()
    fastai._update_first_layer(model, channels, True)
    return model


# features


def _names(one: Model) -> list[str]:
    """Name the layers that timm takes features of."""
    return [info["module"] for info in timm.create_model(one.name, features_only=True).feature_info.get_dicts()]


def _all_names(one: Model) -> list[str]:
    """Name the layers whose features a model of timm can give."""
    return [info["module"] for info in one.build().feature_info]  # type: ignore[union-attr]


def _our_features(one: Model, named: Callable[[Model], list[str]]) -> tuple[None, bool]:
    names = named(one)
    wanted = _outputs(one.build(), names, one.images())
    ours = tg.load(one.build(), input=one.shape).truncate(features=names).module
    with torch.no_grad():
        given = ours.eval()(one.images())
    return None, list(given) == names and all(torch.equal(given[name], wanted[name]) for name in names)


def _features_only(one: Model, ours: None) -> str:
    """Compare `features_only` with what the layers of the same names give."""
    theirs = timm.create_model(one.name, features_only=True)
    state = _renamed(one.build().state_dict(), theirs.state_dict())
    if state is None:
        return "fails: the model's own weights do not load by name"
    theirs.load_state_dict(state)
    with torch.no_grad():
        return _compared(one, _names(one), theirs.eval()(one.images()))


def _intermediates(one: Model, ours: None) -> str:
    with torch.no_grad():
        maps = one.build().forward_intermediates(one.images(), intermediates_only=True)  # type: ignore[operator]
    return _compared(one, _all_names(one), maps)


def _compared(one: Model, names: list[str], maps: list[Tensor]) -> str:
    wanted = _outputs(one.build(), names, one.images())
    if len(maps) != len(names):
        return "wrong: another number of features than it declares"
    same = all(_alike(given, wanted[name]) for given, name in zip(maps, names, strict=True))
    return "equal" if same else "wrong: other values than the layer of that name gives"


def _renamed(state: Mapping[str, Tensor], held: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Fill a feature network, whose names have underscores where the model's have dots."""
    flat = {name.replace(".", "_"): tensor for name, tensor in state.items()}
    found = {
        name: flat.get(name.removeprefix("model.").replace(".", "_"), flat.get(name.replace(".", "_")))
        for name in held
    }
    return (
        None if any(one is None for one in found.values()) else {n: t for n, t in found.items() if t is not None}
    )


def _alike(a: Tensor, b: Any) -> bool:
    """Compare a feature with what its layer gives: channels last or first, tokens as a map or with prefixes."""
    if not isinstance(b, Tensor):
        return False
    if a.dim() == 4 and b.dim() == 3:
        b = b[:, -a.shape[2] * a.shape[3] :].transpose(1, 2).reshape(b.shape[0], -1, *a.shape[2:])
    turned = [b, b.permute(0, 3, 1, 2), b.permute(0, 2, 3, 1)] if b.dim() == 4 else [b]
    return any(a.shape == one.shape and near(a, one) for one in turned)


def _outputs(model: nn.Module, names: list[str], x: Tensor) -> dict[str, Tensor]:
    seen: dict[str, Tensor] = {}
    hooks = [
        model.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: seen.update({name: out}))
        for name in names
    ]
    with torch.no_grad():
        model.eval()(x)
    for hook in hooks:
        hook.remove()
    return seen


# layer decay


def _our_decay(one: Model) -> tuple[dict[str, tuple[float, float]], bool]:
    graft = tg.load(one.build(), input=one.shape)
    rates = {
        name: (group["lr"], group["weight_decay"])
        for group in graft.groups(lr=1.0, weight_decay=0.05, layer_decay=0.75)
        for name in group["names"]
    }
    return rates, _decay_right(rates, *_ends(one)) == "right"


def _ends(one: Model) -> tuple[tuple[str, ...], str]:
    """Name the head, and the first weight of the pass."""
    graft = tg.load(one.build(), input=one.shape)
    return tuple(graft.roles["head"]), next(op.params[0] for op in graft.trace().ops if op.params)


def _their_decay(one: Model, ours: Any) -> str:
    model = one.build()
    spared = getattr(model, "no_weight_decay", set)()
    names = {id(p): name for name, p in model.named_parameters()}
    rates = {
        names[id(p)]: (group["lr_scale"], group["weight_decay"])
        for group in param_groups_layer_decay(model, 0.05, spared, layer_decay=0.75)
        for p in group["params"]
    }
    told = _decay_right(rates, *_ends(one))
    same = ours is not None and rates.keys() == ours.keys() and all(
        abs(rates[n][0] - ours[n][0]) < 1e-9 and rates[n][1] == ours[n][1] for n in ours
    )  # fmt: skip
    return "equal" if same and told == "right" else told


def _decay_right(rates: Mapping[str, tuple[float, float]], head: tuple[str, ...], first: str) -> str:
    scales = {name: rate for name, (rate, _) in rates.items()}
    if len(set(scales.values())) <= 2:
        return "wrong: one rate for all"
    heads = [scale for name, scale in scales.items() if any(name.startswith(f"{path}.") for path in head)]
    if not heads or min(heads) < 1:
        return "wrong: the head's rate falls too"
    return "right" if scales[first] == min(scales.values()) else "wrong: the first layer has not the lowest rate"


# the table


def _input_tasks() -> list[Task]:
    ways = {"timm `in_chans=`": ("timm", _in_chans), "fastai `create_body(n_in=)`": ("torchvision", _first_layer)}
    return [
        Task(
            f"input 3→{channels}",
            peer,
            zoo,
            lambda one, channels=channels: _our_input(one, channels),  # type: ignore[misc]
            lambda one, ours, channels=channels, change=change: _their_input(one, ours, channels, change),  # type: ignore[misc]
        )
        for channels in (1, 2, 4, 6)
        for peer, (zoo, change) in ways.items()
    ]


def _freeze_tasks() -> list[Task]:
    return [
        Task(
            "all but the head frozen",
            peer,
            zoo,
            our_freeze,
            lambda one, ours, way=way: their_freeze(one, ours, way),  # type: ignore[misc]
        )
        for peer, (way, zoos) in WAYS.items()
        for zoo in zoos
    ]


TASKS = [
    Task("head of 7", "timm `reset_classifier`", "timm", _our_head, _their_head),
    Task(
        "head of 7", "fastai `create_vision_model`", "torchvision", _our_head,
        lambda one, ours: _fastai_head(one, ours, _fastai_net),
    ),
    Task(
        "head of 7", "fastai `create_timm_model`", "timm", _our_head,
        lambda one, ours: _fastai_head(one, ours, _fastai_timm),
    ),
    *_input_tasks(),
    Task(
        "named features", "timm `features_only`", "timm",
        lambda one: _our_features(one, _names), _features_only,
    ),
    Task(
        "all named features", "timm `forward_intermediates`", "timm",
        lambda one: _our_features(one, _all_names), _intermediates,
    ),
    Task("layer decay 0.75", "timm `param_groups_layer_decay`", "timm", _our_decay, _their_decay),
    Task("layer decay 0.75", "timm `param_groups_layer_decay`", "torchvision", _our_decay, _their_decay),
    *_freeze_tasks(),
]  # fmt: skip


def _all_done(one: Model, tasks: Sequence[Task]) -> list[tuple[str, bool]]:
    """Judge every peer on one model; what torchgraft made for one task serves the others like it."""
    made: dict[int, tuple[Any, bool]] = {}
    done = []
    for task in tasks:
        if id(task.ours) not in made:
            made[id(task.ours)] = _ours(task, one)
        ours, right = made[id(task.ours)]
        try:
            told = task.theirs(one, ours)
        except Exception as error:  # whatever the peer's code raises
            told = f"fails: {type(error).__name__}"
        done.append((told, right))
        if os.environ.get("TORCHGRAFT_BENCH_TALK") or not right:
            print(f"  {one.name}: {task.what}, {task.peer}: {told}; torchgraft: {right}", flush=True)
    return done


def _ours(task: Task, one: Model) -> tuple[Any, bool]:
    try:
        return task.ours(one)
    except Exception as error:
        print(f"  {one.name}: {task.what}: {type(error).__name__} {error}", flush=True)
        return None, False


def run() -> str:
    """Judge every peer on every model that its functions are for."""
    done: dict[int, list[tuple[str, bool]]] = {id(task): [] for task in TASKS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for zoo in ("torchvision", "timm"):
            tasks = [task for task in TASKS if task.zoo == zoo]
            for one in chosen(zoo):
                for task, result in zip(tasks, _all_done(one, tasks), strict=True):
                    done[id(task)].append(result)
    header = ["task", "peer", "models", "peer right", "of them as ours", "peer wrong", "peer raises", "ours right"]
    return table(header, [_row(task, done[id(task)]) for task in TASKS])


def _row(task: Task, done: Sequence[tuple[str, bool]]) -> Sequence[object]:
    told = Counter(words for words, _ in done)
    wrong = [
        f"{count}: {words.partition(': ')[2]}" for words, count in told.most_common() if words.startswith("wrong")
    ]
    right = told["equal"] + told["right"]
    fails = sum(count for words, count in told.items() if words.startswith("fails"))
    ours = sum(right for _, right in done)
    models = f"{len(done)} of {task.zoo}"
    return task.what, task.peer, models, right, told["equal"], "; ".join(wrong) or "0", fails, ours
