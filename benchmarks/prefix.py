"""Training with the frozen prefix computed once, beside the bare loop and beside the trainable rest alone."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models
from transformers import BertConfig, BertForSequenceClassification

from benchmarks.measure import Cost, alternate, table
from torchgraft.params.still import train_mode
from torchgraft.train.prefix import Cache, Set
from torchgraft.trainplan import TrainPlan

TITLE = "Frozen prefix computed once: one epoch, CPU / wall seconds, medians of 5 alternating runs"
SIZE = 64
PLAN = TrainPlan(data="made", cache="memory")


@dataclass(frozen=True)
class Case:
    """One model, what of it is trained, and how that is called alone.

    Attributes:
        name: of the row.
        make: builds the model.
        free: what the names of trained parameters begin with.
        inputs: of all samples.
        rest: runs what is trained on what comes before it.
        before: gives what comes before it.
    """

    name: str
    make: Callable[[], nn.Module]
    free: tuple[str, ...]
    inputs: Any
    rest: Callable[[Any, Tensor], Tensor]
    before: Callable[[Any, Any], Tensor]


def run() -> str:
    """Measure each case, and write a row for it."""
    epochs = ["bare loop", "ours, first epoch", "ours, later epochs", "rest alone"]
    header = ["", *epochs, "bare / ours", "ours / rest", "kept", "same bits"]
    return table(header, [_row(case) for case in _cases()])


def _cases() -> Iterator[Case]:
    images = torch.randn(256, 3, 64, 64)
    yield Case(
        "resnet18 64×64, head",
        lambda: models.resnet18(num_classes=10),
        ("fc",),
        images,
        lambda model, rows: model.fc(rows),
        lambda model, x: model.avgpool(_early(model, x, 4)).flatten(1),
    )
    yield Case(
        "resnet18 64×64, layer4 and head",
        lambda: models.resnet18(num_classes=10),
        ("fc", "layer4"),
        images,
        lambda model, rows: model.fc(model.avgpool(model.layer4(rows)).flatten(1)),
        lambda model, x: _early(model, x, 3),
    )
    yield Case(
        "ViT (4 layers of 192) 64×64, head",
        lambda: models.VisionTransformer(64, 8, 4, 3, 192, 384, num_classes=10),
        ("heads",),
        images,
        lambda model, rows: model.heads(rows),
        _caught("heads"),
    )
    config = BertConfig(
        vocab_size=500, hidden_size=128, num_hidden_layers=4, num_attention_heads=2, intermediate_size=512,
        num_labels=10,
    )  # fmt: skip
    mask = (torch.rand(256, 1) > torch.linspace(-1, 0.9, 64)).long()
    yield Case(
        "BERT (4 layers of 128), 64 tokens, head",
        lambda: BertForSequenceClassification(config),
        ("classifier",),
        {"input_ids": torch.randint(0, 500, (256, 64)), "attention_mask": mask},
        lambda model, rows: model.classifier(model.dropout(rows)),
        _caught("dropout"),
    )


def _early(model: Any, x: Tensor, stages: int) -> Tensor:
    x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
    for number in range(1, stages + 1):
        x = getattr(model, f"layer{number}")(x)
    return x


def _caught(path: str) -> Callable[[Any, Any], Tensor]:
    """Give what the module at a path is given."""

    def before(model: Any, inputs: Any) -> Tensor:
        seen: list[Tensor] = []
        hook = model.get_submodule(path).register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        with suppress(StopIteration):
            _whole(model, inputs)
        hook.remove()
        return seen[0]

    return before


def _picked(inputs: Any, places: Any) -> Any:
    return {name: one[places] for name, one in inputs.items()} if isinstance(inputs, dict) else inputs[places]


def _whole(model: Any, inputs: Any) -> Tensor:
    output = model(**inputs) if isinstance(inputs, dict) else model(inputs)
    return output if isinstance(output, Tensor) else output.logits


def _scores(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output.logits


class _Loop:
    """A bare loop over all samples, by a forward pass of any kind."""

    def __init__(self, case: Case, model: nn.Module, forward: Callable[[list[int]], Tensor]) -> None:
        self.model, self.forward, self.epoch = model, forward, 0
        count = len(next(iter(case.inputs.values())) if isinstance(case.inputs, dict) else case.inputs)
        self.targets = torch.arange(count) % 10
        trained = [one for one in model.parameters() if one.requires_grad]
        self.optimizer = torch.optim.SGD(trained, lr=0.01, momentum=0.9)

    def run(self) -> None:
        """Train for one epoch."""
        order = torch.randperm(len(self.targets), generator=torch.Generator().manual_seed(self.epoch)).tolist()
        self.epoch += 1
        for start in range(0, len(order), SIZE):
            places = order[start : start + SIZE]
            self.optimizer.zero_grad()
            nn.functional.cross_entropy(self.forward(places), self.targets[places]).backward()
            self.optimizer.step()


def _ours(case: Case, model: nn.Module) -> tuple[_Loop, Cache]:
    cache = Cache(PLAN, Set(256, sizes=[SIZE]), epochs=10)

    def forward(places: list[int]) -> Tensor:
        inputs = None if cache.holds(places) else _picked(case.inputs, places)
        return _scores(cache.output(model, model, inputs, places))

    return _Loop(case, model, forward), cache


def _row(case: Case) -> list[object]:
    torch.manual_seed(0)
    model = case.make()
    for name, one in model.named_parameters():
        one.requires_grad_(name.startswith(case.free))
    train_mode(model)
    bare, alone, own = model, copy.deepcopy(model), copy.deepcopy(model)
    loop = _Loop(case, bare, lambda places: _whole(bare, _picked(case.inputs, places)))
    ours, cache = _ours(case, own)
    with torch.no_grad():
        rows = case.before(alone, case.inputs)
    rest = _Loop(case, alone, lambda places: case.rest(alone, rows[places]))
    same = _same(loop, ours)
    began = time.process_time(), time.perf_counter()
    fresh, _ = _ours(case, copy.deepcopy(own))
    fresh.run()
    first = time.process_time() - began[0], time.perf_counter() - began[1]
    many = 1 if len(case.free) > 1 else 40  # an epoch of a head alone takes a millisecond
    bare_cost = alternate({"bare": loop.run}, runs=3)["bare"]
    costs = alternate({"ours": _times(ours.run, many), "rest": _times(rest.run, many)})
    ours_cost, rest_cost = (Cost(one.cpu / many, one.wall / many) for one in (costs["ours"], costs["rest"]))
    kept = cache.prefix.words if cache.prefix is not None else cache.why
    return [
        case.name,
        bare_cost,
        Cost(*first),
        f"{ours_cost.cpu:.4f} / {ours_cost.wall:.4f}",
        f"{rest_cost.cpu:.4f} / {rest_cost.wall:.4f}",
        f"{bare_cost.cpu / ours_cost.cpu:.2f}×",
        f"{ours_cost.cpu / rest_cost.cpu:.2f}×",
        kept,
        "yes" if same else "NO",
    ]


def _times(run: Callable[[], None], count: int) -> Callable[[], None]:
    def repeated() -> None:
        for _ in range(count):
            run()

    return repeated


def _same(loop: _Loop, ours: _Loop) -> bool:
    """Train both for three epochs from the same random numbers, and compare all that they hold bit for bit."""
    states = []
    for one in (loop, ours):
        torch.manual_seed(1)
        for _ in range(3):
            one.run()
        states.append(one.model.state_dict())
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])
