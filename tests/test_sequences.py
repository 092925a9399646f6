"""A thousand random sequences of edits: undo, redo and replay are exact, and a refused edit changes nothing."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import torchgraft as tg
from torchgraft.edits import kinds
from torchgraft.errors import TorchgraftError
from torchgraft.loading import replay


class Branches(nn.Module):
    """Stages, a branch that is added, a shared activation, a hook, a frozen part, a norm left in evaluation."""

    size = (3, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.num_classes = 5
        self.act = nn.ReLU()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), self.act)
        self.body = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), self.act, nn.Conv2d(8, 8, 3, padding=1))
        self.short = nn.Conv2d(4, 8, 1)
        self.fc = nn.Linear(8, 5)
        self.stem[1].eval()
        self.short.requires_grad_(False)
        self.body[0].register_forward_hook(_nothing)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.fc(self.act(self.body(x) + self.short(x)).mean((2, 3)))


def _nothing(module: nn.Module, given: Any, gave: torch.Tensor) -> None:
    """A hook that only looks."""


class Block(nn.Module):
    """A block of a transformer with layer scale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.scale = nn.Parameter(torch.full((width,), 0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.scale * self.mlp(self.norm2(x))


class Tokens(nn.Module):
    """Patches, positions, an iterated ModuleList, a head; in double precision."""

    size = (3, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, stride=4)
        self.positions = nn.Parameter(torch.randn(1, 4, 8) * 0.1)
        self.blocks = nn.ModuleList(Block(8) for _ in range(3))
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 6)
        self.double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))


class Words(nn.Module):
    """An embedding whose weight is tied to the output layer."""

    size = (6,)

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(12, 8)
        self.layers = nn.Sequential(Block(8), Block(8))
        self.out = nn.Linear(8, 12, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.layers(self.embed(x)))


def example(model: nn.Module) -> Any:
    return torch.zeros(2, 6, dtype=torch.long) if isinstance(model, Words) else None


def loaded(model: nn.Module) -> tg.Graft:
    given = example(model)
    return tg.load(model, input=model.size if given is None else given)


torch.manual_seed(0)
MODELS = [Branches(), Tokens(), Words()]

NEW = [
    {"nn.Conv2d": {"out_channels": 8, "kernel_size": 1}},
    {"nn.BatchNorm2d": {}},
    {"nn.LayerNorm": {}},
    {"nn.Identity": {}},
    {"nn.Linear": {"out_features": 8}},
    {"block.SqueezeExcite": {"reduction": 2}},
    [{"nn.Linear": {"out_features": 4}}, {"nn.GELU": {}}, {"nn.Linear": {"out_features": 8}}],
]


SWAPS = [
    {"at": "**:BatchNorm2d", "to": {"nn.GroupNorm": {"num_groups": 2}}},
    {"at": "**:ReLU", "to": {"nn.GELU": {}}},
    {"at": "**:GELU", "to": {"nn.SiLU": {}}},
    {"at": "**:LayerNorm", "to": {"nn.RMSNorm": {}}},
    {"at": "**:Conv2d", "to": {"block.DepthwiseSeparable": {}}},
]


def place(draw: random.Random, g: tg.Graft, kind: type[nn.Module] = nn.Module) -> str:
    """A module of a kind, or any where there is none."""
    every = [(path, one) for path, one in g.module.named_modules() if path]
    return draw.choice([path for path, one in every if isinstance(one, kind)] or [path for path, _ in every])


def parameter(draw: random.Random, g: tg.Graft) -> str:
    return draw.choice([name for name, _ in g.module.named_parameters(remove_duplicate=False)])


def selector(draw: random.Random, g: tg.Graft) -> Any:
    names = ["head", "stem", "norms", "biases", "trainable", "**:Linear", "**", "blocks[1:]", "not biases"]
    some = [*names, place(draw, g), f"{place(draw, g)}.**", parameter(draw, g)]
    return draw.choice([draw.choice(some), [draw.choice(some), draw.choice(some)]])


def weighted(draw: random.Random, g: tg.Graft) -> str:
    return place(draw, g, draw.choice([nn.Linear, nn.Conv2d]))


def block(draw: random.Random, g: tg.Graft) -> str:
    lists = [one for one in (nn.ModuleList, nn.Sequential) if any(isinstance(m, one) for m in g.module.modules())]
    home = place(draw, g, draw.choice(lists or [nn.Module]))
    children = list(g.module.get_submodule(home)._modules)
    return f"{home}.{draw.choice(children)}" if children else home


def truncation(draw: random.Random, g: tg.Graft) -> Any:
    if draw.random() < 0.5:
        return {"after": block(draw, g)}
    return {"features": {"low": block(draw, g), "high": block(draw, g)}}


def head(draw: random.Random, g: tg.Graft) -> Any:
    if draw.random() < 0.2:
        return {"heads": {"colour": 3, "size": {"classes": 2, "hidden": [4]}}}
    more = [{}, {"hidden": [3], "dropout": 0.5}, {"hidden": [3, 4], "norm": "layer"}, {"kind": "cosine"}]
    more += [{"task": "labels"}, {"task": "regression"}, {"keep": [1, 0]}, {"keep": {0: 2}}]
    return {"classes": draw.randint(2, 9), **draw.choice(more)}


def initial(draw: random.Random, g: tg.Graft) -> Any:
    rules = [{"weight": "kaiming_normal", "bias": "zeros"}, {"linear": {"normal": {"std": 0.01}}}]
    rules += [{"weight": "orthogonal"}, {"norm": "ones"}, {"conv": "xavier_uniform", "bias": {"constant": 0.1}}]
    return {"at": selector(draw, g), **draw.choice(rules)}


Body = Callable[[random.Random, tg.Graft], Any]

BODIES: dict[str, Body] = {
    "adapter": lambda d, g: {
        "at": weighted(d, g),
        "rank": d.randint(1, 4),
        "kind": d.choice(["lora", "dora", "ia3"]),
    },
    "append": lambda d, g: {"at": place(d, g, nn.Sequential), "module": d.choice(NEW)},
    "eval_mode": lambda d, g: {"at": d.choice(["**:BatchNorm2d", place(d, g)])},
    "freeze": lambda d, g: d.choice(
        [{"depth": 0.5}, {"stages": 1}, {"at": selector(d, g)}, {"all_but": selector(d, g)}]
    ),
    "head": head,
    "init": initial,
    "input": lambda d, g: d.choice([{"channels": d.randint(1, 6)}, {"size": [16, 16]}]),
    "insert": lambda d, g: {
        d.choice(["after", "before", "around"]): place(d, g),
        "module": d.choice(NEW),
        **d.choice([{}, {"start": "identity"}]),
    },
    "merge": lambda d, g: {"at": "**"},
    "pad": lambda d, g: {"token": d.randint(0, 9)},
    "register": lambda d, g: {"at": place(d, g), "names": "layers"},
    "remove": lambda d, g: {"at": place(d, g)},
    "rename": lambda d, g: {"at": place(d, g), "to": d.choice(["other", "body", "part"])},
    "repeat": lambda d, g: {"at": block(d, g), "times": d.randint(1, 2), "start": d.choice(["copy", "identity"])},
    "replace": lambda d, g: {"at": place(d, g), "with": d.choice(NEW)},
    "reshape": lambda d, g: {"at": d.choice(["positions", parameter(d, g)]), "shape": [1, d.randint(1, 9), 8]},
    "resize": lambda d, g: {"at": weighted(d, g), d.choice(["inputs", "outputs"]): d.randint(1, 12)},
    "rewire": lambda d, g: {
        "at": place(d, g),
        "operation": d.choice(["flatten", "add", "relu"]),
        "becomes": "nothing",
    },
    "route": lambda d, g: {"at": place(d, g), "takes": ["x"], "feed": 0},
    "share": lambda d, g: {"at": block(d, g), "to": block(d, g)},
    "swap": lambda d, g: d.choice(SWAPS),
    "tie": lambda d, g: {"at": parameter(d, g), "to": parameter(d, g)},
    "truncate": truncation,
    "unfreeze": lambda d, g: {"at": selector(d, g)},
    "untie": lambda d, g: {"at": d.choice(["out.weight", parameter(d, g)])},
    "wrap": lambda d, g: {
        "at": place(d, g),
        "with": d.choice(["residual", "gate"]),
        **d.choice([{}, {"start": "identity"}]),
    },
}
"""How the settings of each edit are drawn."""

quick = settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
steps = st.lists(st.tuples(st.sampled_from(sorted(BODIES)), st.integers(0, 10**6)), min_size=1, max_size=5)
model = st.integers(0, len(MODELS) - 1)


def applied(g: tg.Graft, asked: list[tuple[str, int]], snapshot: Any) -> list[Any]:
    """Apply what fits; whatever is refused must leave the model bit for bit as it was."""
    states = [snapshot(g.module)]
    for kind, seed in asked:
        draw = random.Random(seed)
        fix = draw.choice([None, None, "adapt"])
        before = len(g.recipe.edits)
        try:
            g.apply(kinds()[kind].model_validate(BODIES[kind](draw, g)), fix=fix)
        except (TorchgraftError, ValueError):
            assert snapshot(g.module) == states[-1], kind
        else:
            states += [None] * (len(g.recipe.edits) - before - 1) + [snapshot(g.module)]
    return states


def test_every_edit_takes_part():
    assert BODIES.keys() == {kind for kind, cls in kinds().items() if cls.__module__.startswith("torchgraft.")}


@pytest.mark.filterwarnings(
    "ignore::torchgraft.errors.TorchgraftWarning"
)  # of trained weights that init draws anew
@quick
@given(number=model, asked=steps)
def test_undo_redo_and_replay_are_exact(snapshot, number, asked):
    all_exact(snapshot, number, asked)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::torchgraft.errors.TorchgraftWarning")
@settings(quick, max_examples=1000)
@given(number=model, asked=steps)
def test_a_thousand_sequences_are_exact(snapshot, number, asked):
    all_exact(snapshot, number, asked)


def all_exact(snapshot: Any, number: int, asked: list[tuple[str, int]]) -> None:
    base = MODELS[number]
    g = loaded(copy.deepcopy(base))
    states = applied(g, asked, snapshot)
    for state in reversed(states[:-1]):
        g.undo()
        assert state is None or snapshot(g.module) == state
    for state in states[1:]:
        g.redo()
        assert state is None or snapshot(g.module) == state
    again = replayed(g, base)
    ours, theirs = g.module.state_dict(), again.module.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert {n: p.requires_grad for n, p in g.module.named_parameters()} == {
        n: p.requires_grad for n, p in again.module.named_parameters()
    }


def replayed(g: tg.Graft, base: nn.Module) -> tg.Graft:
    recipe = tg.Recipe.from_yaml(g.recipe.to_yaml())
    again = copy.deepcopy(base)
    given = example(base)
    if given is None:
        return replay(recipe, objects={"": again})
    return tg.load(again, input=given, seed=recipe.seed).apply_all(recipe.edits)
