"""What timm and fastai do to a trained model, beside torchgraft: each judged by numbers, on the same models.

A peer works on a model when what it gives is right, whatever it looks like inside:

- head: with the old head's rows copied into the new one the old scores come out, and in training mode each output
  has the new number of classes; of fastai, which builds another head, what its head is given must be what the old
  head was given, averaged over the places.
- input: an image whose channels are all the same gives the output that it gave.
- features: what is given is what the layer of that name gives in the whole model.
- layer decay: the head has the full rate, the layer that reads the input the lowest, and there are more than two.
- freeze: after two steps of training in a plain loop, or in the peer's own, all that is frozen is bit for bit as it
  was, the head has moved, and two passes in training mode give the head the same features.
"""

from __future__ import annotations

import contextlib
import copy
import io
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
from fastai.callback.training import BnFreeze
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.optimizer import SGD
from fastai.vision import learner as fastai
from timm.optim import param_groups_layer_decay
from timm.utils import freeze as timm_freeze
from timm.utils import unfreeze as timm_unfreeze
from torch import Tensor, nn
from torchvision import models

import torchgraft as tg
from benchmarks.measure import table
from benchmarks.zoo import ALL, timm_models, torchvision

TITLE = "Peers side by side: timm's and fastai's own functions, judged by numbers, on the same models"

TORCHVISION = (
    "alexnet", "vgg11_bn", "resnet18", "resnext50_32x4d", "wide_resnet50_2", "densenet121", "squeezenet1_1",
    "googlenet", "inception_v3", "mobilenet_v2", "mobilenet_v3_small", "mnasnet0_5", "shufflenet_v2_x0_5",
    "efficientnet_b0", "efficientnet_v2_s", "regnet_y_400mf", "convnext_tiny", "swin_t", "vit_b_32", "maxvit_t",
)  # fmt: skip
TIMM = (
    "resnet18", "resnetv2_50", "convnext_atto", "convnextv2_atto", "mobilenetv3_small_050", "efficientnet_b0",
    "regnety_002", "densenet121", "vgg11", "inception_v3", "xception41", "dla34", "vit_tiny_patch16_224",
    "deit_tiny_distilled_patch16_224", "swin_tiny_patch4_window7_224", "mixer_s32_224", "levit_128s",
    "poolformer_s12", "edgenext_xx_small", "ghostnet_100", "repvgg_a0", "mobilevit_xxs",
)  # fmt: skip

CLASSES = 7


@dataclass(frozen=True)
class Model:
    """A model with weights that differ from each other, as trained ones do, and the image that it takes."""

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, int, int]

    def build(self) -> nn.Module:
        """Build it, always with the same weights."""
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = self.make()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name, one in [*model.named_parameters(), *model.named_buffers()]:
                if not one.is_floating_point() or one.numel() == 0:
                    continue
                noise = torch.rand(one.shape, generator=generator)
                if name.endswith("running_var"):
                    one.mul_(noise + 0.5)
                elif isinstance(one, nn.Parameter) or name.endswith("running_mean"):
                    one.add_((noise - 0.5) * 0.1)
        return model.eval()

    def images(self, channels: int = 3) -> Tensor:
        """Give two images."""
        return torch.randn(2, channels, *self.shape[1:], generator=torch.Generator().manual_seed(2))


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


def _models(source: str) -> list[Model]:
    if os.environ.get(ALL):
        return [_model(one.name, source) for one in (timm_models() if source == "timm" else torchvision())]
    return [_model(name, source) for name in (TIMM if source == "timm" else TORCHVISION)]


def _model(name: str, source: str) -> Model:
    if source == "timm":
        settings = timm.get_pretrained_cfg(name)
        shape = settings.input_size if settings is not None else (3, 224, 224)
        return Model(name, lambda: timm.create_model(name), tuple(shape))
    size = {"inception_v3": 299, "vit_b_32": 224, "maxvit_t": 224}.get(name, 128)
    extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return Model(name, lambda: models.get_model(name, **extra), (3, size, size))


# numbers


def _out(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return _tensors(model.eval()(x))[0]


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [one for part in value if part is not None for one in _tensors(part)]


def _near(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool((a - b).abs().max() <= 1e-3 * b.abs().max().clamp(min=1e-6))


def _loaded_equal(theirs: nn.Module, ours: nn.Module, x: Tensor) -> bool:
    """Tell whether two models have the same tensors by name, and give the same with the same values."""
    a, b = theirs.state_dict(), ours.state_dict()
    if {name: one.shape for name, one in a.items()} != {name: one.shape for name, one in b.items()}:
        return False
    theirs.load_state_dict(b)
    return _near(_out(theirs, x), _out(ours, x))


def _head_input(model: nn.Module, path: str, x: Tensor, *, train: bool = False) -> Tensor:
    seen: list[Tensor] = []
    hook = model.get_submodule(path).register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    with torch.no_grad():
        model.train(train)(x)
    hook.remove()
    return seen[0]


# head


def _head_right(model: nn.Module, base: nn.Module, x: Tensor) -> str:
    old, scores = base.state_dict(), _out(base, x)
    with torch.no_grad():
        for name, one in model.named_parameters():
            if name not in old or (one.shape != old[name].shape and one.shape[1:] != old[name].shape[1:]):
                return "wrong: other layers than the head changed"
            if one.shape != old[name].shape:
                one.copy_(old[name][:CLASSES])
    given = _out(model, x)
    if given.shape != (2, CLASSES):
        return "wrong: the output has another number of classes"
    if not _near(given, scores[:, :CLASSES]):
        return "wrong: old rows in the new head do not give the old scores"
    with torch.no_grad():
        widths = {one.shape[-1] for one in _tensors(copy.deepcopy(model).train()(x))}
    return "right" if widths == {CLASSES} else "wrong: auxiliary heads keep the old classes"


def _our_head(one: Model) -> tuple[tg.Graft, bool]:
    graft = tg.load(one.build(), input=one.shape).head(CLASSES)
    return graft, _head_right(copy.deepcopy(graft.module), one.build(), one.images()) == "right"


def _their_head(one: Model, ours: tg.Graft) -> str:
    theirs = one.build()
    theirs.reset_classifier(CLASSES)  # type: ignore[operator]
    told = _head_right(theirs, one.build(), one.images())
    return "equal" if told == "right" and _loaded_equal(theirs, ours.module, one.images()) else told


def _fastai_head(one: Model, ours: tg.Graft, made: Callable[[Model], nn.Sequential]) -> str:
    """Judge fastai's body by what its head is given."""
    base, x = one.build(), one.images()
    path = ours.recipe.edits[-1].at[0]
    wanted = _head_input(base, path, x).flatten(1)
    net = made(one).eval()
    with torch.no_grad():
        features, given = net[0](x), net(x)
    if given.shape != (2, CLASSES):
        return "wrong: the output has another shape"
    pooled = features.mean((2, 3)) if features.dim() == 4 else features
    flat = features.flatten(1)
    if _near(pooled, wanted) or _near(flat, wanted):
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
    return ours, _near(_out(ours, grey.expand(-1, channels, -1, -1)), _grey(one))


def _their_input(one: Model, ours: Any, channels: int, change: Callable[[Model, int], nn.Module]) -> str:
    theirs = change(one, channels)
    if not _near(_out(theirs, one.images(1).expand(-1, channels, -1, -1)), _grey(one)):
        return "wrong: another response to a grey image"
    x = one.images(channels)
    return "equal" if ours is not None and _near(_out(theirs, x), _out(ours, x)) else "right"


def _grey(one: Model) -> Tensor:
    return _out(one.build(), one.images(1).expand(-1, 3, -1, -1))


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


def _our_features(one: Model) -> tuple[dict[str, Tensor], bool]:
    names = _names(one)
    wanted = _outputs(one.build(), names, one.images())
    ours = tg.load(one.build(), input=one.shape).truncate(features=names).module
    with torch.no_grad():
        given = ours.eval()(one.images())
    return given, list(given) == names and all(torch.equal(given[name], wanted[name]) for name in names)


def _features_only(one: Model, ours: Any) -> str:
    """Compare `features_only` with what the layers of the same names give."""
    theirs = timm.create_model(one.name, features_only=True)
    wanted = _outputs(one.build(), names := _names(one), one.images())
    state = _renamed(one.build().state_dict(), theirs.state_dict())
    if state is None:
        return "fails: the model's own weights do not load by name"
    theirs.load_state_dict(state)
    with torch.no_grad():
        maps = theirs.eval()(one.images())
    same = all(_alike(given, wanted[name]) for given, name in zip(maps, names, strict=True))
    return "wrong: other values than the layer of that name gives" if not same else "equal" if ours else "right"


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
    return any(a.shape == one.shape and _near(a, one) for one in turned)


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


# freeze

_Train = Callable[[nn.Module, Tensor], None]
LABELS = torch.tensor([0, 1])


def _our_freeze(one: Model) -> tuple[None, bool]:
    graft = tg.load(one.build(), input=one.shape).head(CLASSES)
    graft.freeze(all_but=["head"], still=True)
    return None, _still(graft.module, graft.recipe.edits[0].at, one.images(), _steps) == "right"


def _their_freeze(one: Model, ours: None, freeze: Callable[[nn.Module, Sequence[str]], _Train]) -> str:
    graft = tg.load(one.build(), input=one.shape).head(CLASSES)
    paths = graft.recipe.edits[0].at
    return _still(graft.module, paths, one.images(), freeze(graft.module, paths))


def _still(model: nn.Module, paths: Sequence[str], x: Tensor, train: _Train) -> str:
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
        part.register_forward_hook(lambda _, __, out: seen.append(_tensors(out)[0].clone()))
        for path, part in model.named_modules()
        if path not in paths and part._parameters and not list(part.children())
    ]
    with torch.no_grad():
        model.train()(x)
    for hook in hooks:
        hook.remove()
    return seen[-1]


def _loss(given: Any, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(_tensors(given)[0], labels)


def _steps(model: nn.Module, x: Tensor) -> None:
    """Take two steps in a plain loop."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    model.train()
    for _ in range(2):
        optimizer.zero_grad()
        _loss(model(x), LABELS).backward()
        optimizer.step()


def _fastai_loop(model: nn.Module, paths: Sequence[str], *, train_bn: bool) -> _Train:
    """Freeze with fastai's own loop, which keeps BatchNorm trainable where it is not told otherwise."""
    heads = {id(p) for path in paths for p in model.get_submodule(path).parameters()}
    split = [[p for p in model.parameters() if (id(p) in heads) == head] for head in (False, True)]

    def train(model: nn.Module, x: Tensor) -> None:
        samples = [(x[number % 2], LABELS[number % 2]) for number in range(4)]
        with contextlib.redirect_stdout(io.StringIO()):
            learner = Learner(
                DataLoaders.from_dsets(samples, samples, bs=2, num_workers=0, device="cpu"), model, _loss,
                splitter=lambda _: split, train_bn=train_bn, lr=0.01, opt_func=SGD, cbs=[] if train_bn else [BnFreeze()],
            )  # fmt: skip
            learner.freeze()
            with learner.no_bar(), learner.no_logging():
                learner.fit(1)

    return train


def _plain(model: nn.Module, paths: Sequence[str]) -> _Train:
    """What tutorials do."""
    for parameter in model.parameters():
        parameter.requires_grad = False
    for path in paths:
        for parameter in model.get_submodule(path).parameters():
            parameter.requires_grad = True
    return _steps


def _timm_frozen(model: nn.Module, paths: Sequence[str]) -> _Train:
    """Freeze everything with timm's function, and take the head back."""
    timm_freeze(model)
    timm_unfreeze(model, list(paths))
    return _steps


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
    ways: dict[str, tuple[Callable[[nn.Module, Sequence[str]], _Train], tuple[str, ...]]] = {
        "`requires_grad = False`": (_plain, ("torchvision", "timm")),
        "timm `freeze`": (_timm_frozen, ("torchvision", "timm")),
        "fastai `freeze`": (lambda model, paths: _fastai_loop(model, paths, train_bn=True), ("torchvision",)),
        "fastai `freeze` + `BnFreeze`": (
            lambda model, paths: _fastai_loop(model, paths, train_bn=False),
            ("torchvision",),
        ),
    }
    return [
        Task(
            "all but the head frozen",
            peer,
            zoo,
            _our_freeze,
            lambda one, ours, way=way: _their_freeze(one, ours, way),
        )  # type: ignore[misc]
        for peer, (way, zoos) in ways.items()
        for zoo in zoos
    ]


TASKS = [
    Task("head of 7", "timm `reset_classifier`", "timm", _our_head, _their_head),
    Task(
        "head of 7", "fastai `create_vision_model`", "torchvision", _our_head,
        lambda one, ours: _fastai_head(one, ours, _fastai_net),
    ),
    Task("head of 7", "fastai `create_timm_model`", "timm", _our_head, lambda one, ours: _fastai_head(one, ours, _fastai_timm)),
    *_input_tasks(),
    Task("named features", "timm `features_only`", "timm", _our_features, _features_only),
    Task("layer decay 0.75", "timm `param_groups_layer_decay`", "timm", _our_decay, _their_decay),
    Task("layer decay 0.75", "timm `param_groups_layer_decay`", "torchvision", _our_decay, _their_decay),
    *_freeze_tasks(),
]  # fmt: skip


def _done(task: Task, one: Model) -> tuple[str, bool]:
    made, right = None, False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            made, right = task.ours(one)
        except Exception as error:
            print(f"  ours: {task.what}, {one.name}: {type(error).__name__} {error}", flush=True)
        try:
            told = task.theirs(one, made)
        except Exception as error:  # whatever the peer's code raises
            told = f"fails: {type(error).__name__}"
    if not right or os.environ.get("TORCHGRAFT_BENCH_TALK"):
        print(f"  {task.what}, {task.peer}, {one.name}: {told}, ours {'right' if right else 'NOT'}", flush=True)
    return told, right


def run() -> str:
    """Judge every peer on every model that its functions are for."""
    rows: list[Sequence[object]] = []
    for task in TASKS:
        zoo = _models(task.zoo)
        done = [_done(task, one) for one in zoo]
        told = Counter(words for words, _ in done)
        wrong = [
            f"{count}: {words.partition(': ')[2]}"
            for words, count in told.most_common()
            if words.startswith("wrong")
        ]
        works = told["equal"] + told["right"]
        fails = sum(count for words, count in told.items() if words.startswith("fails"))
        ours = sum(right for _, right in done)
        rows.append(
            (
                task.what,
                task.peer,
                f"{len(zoo)} {task.zoo}",
                works,
                told["equal"],
                "; ".join(wrong) or "0",
                fails,
                ours,
            )
        )
    header = [
        "task",
        "peer",
        "models",
        "peer right",
        "of them equal to ours",
        "peer wrong",
        "peer raises",
        "ours right",
    ]
    return table(header, rows)
