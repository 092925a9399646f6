"""What the bundled base is worth: scikit-learn's digits from 2 and 5 samples a class, adapted against fresh.

Both arms are planned and trained by torchgraft's own API, with the same network, samples, epochs, batch, schedule,
augmentation and weight decay, every weight trainable, and the last state kept. They are tested on the second half
of the digits, which training never sees. The fresh arm starts from random weights and gets the best of three
learning rates, picked on the test half itself: in its favour. The difference is paired by seed, with a 95 %
interval by Student's t.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import mean, stdev
from typing import Any, Literal

import torch
from scipy.stats import t as student

from benchmarks.measure import table
from torchgraft.plan import plan
from torchgraft.train.evaluate import evaluate
from torchgraft.train.feeding import feed_for
from torchgraft.train.loop import fit
from torchgraft.train.tasks import task_for

TITLE = "Digits from few samples: the bundled base adapted, against the same network from random weights"

Augment = Literal["none", "light"]
DATA = "sklearn:digits"
SEEDS = 10
STEPS, BATCH, CLASSES = 100, 32, 10
FULL_EPOCHS = 16
AUGMENT: tuple[Augment, ...] = ("light", "none")
"""Light is what helps the fresh arm most, so it is the comparison that counts."""
SHARED = {"train.batch": BATCH, "train.keep": "last", "train.device": "cpu"}


@dataclass(frozen=True)
class Arm:
    """One way to get a model: a base and how it is trained."""

    name: str
    base: str
    settings: Mapping[str, Any] = field(hash=False)


def _adamw(rate: float) -> dict[str, Any]:
    return {"adamw": {"lr": rate, "weight_decay": 0.01}}


ADAPTED = Arm(
    "adapted",
    "bundled:glyphs",
    {"train.optimizer": _adamw(5e-4), "train.groups": [{"at": "head", "lr": 1e-2}]},
)
FRESH = tuple(
    Arm(f"fresh at {rate:g}", "bundled:glyphs@none", {"train.optimizer": _adamw(rate), "train.groups": []})
    for rate in (1e-3, 3e-3, 1e-2)
)


@dataclass(frozen=True)
class Score:
    """Test accuracy in percent and the seconds that training took."""

    accuracy: float
    seconds: float


@dataclass(frozen=True)
class Comparison:
    """The scores of both arms, seed by seed; `fresh` is the best of `rates` on average."""

    per_class: int
    augment: Augment
    adapted: tuple[float, ...]
    fresh: tuple[float, ...]
    rates: Mapping[str, float]
    seconds: float

    @property
    def gains(self) -> list[float]:
        """Percentage points gained, seed by seed."""
        return [one - other for one, other in zip(self.adapted, self.fresh, strict=True)]

    @property
    def interval(self) -> tuple[float, float]:
        """The paired 95 % interval of the mean gain."""
        count = len(self.gains)
        reach = float(student.ppf(0.975, count - 1)) * stdev(self.gains) / math.sqrt(count)
        return mean(self.gains) - reach, mean(self.gains) + reach


def trained(arm: Arm, seed: int, settings: Mapping[str, Any]) -> Score:
    """Train an arm and test it once, at the end."""
    job = plan(arm.base, DATA, settings={"seed": seed, **SHARED, **arm.settings, **settings})
    # Watched on its own training samples, so that the test half is not looked at before the end.
    history = fit(job.graft, replace(job.data, val=job.data.train), job.train, job.preprocess)
    test = feed_for(job.graft, job.data, job.train, job.preprocess, train=False)
    task = task_for(job.graft, job.data, job.train)
    evaluation = evaluate(job.graft.module, test, task, job.data.classes)
    return Score(100 * evaluation.accuracy, history.seconds)


def few(arm: Arm, per_class: int, seed: int, augment: Augment) -> float:
    """Train an arm on `per_class` samples a class for about 100 steps, and give its test accuracy."""
    epochs = STEPS // math.ceil(per_class * CLASSES / BATCH)
    settings = {"train.per_class": per_class, "train.epochs": epochs, "train.augment": augment}
    return trained(arm, seed, settings).accuracy


def compare(
    per_class: int,
    seeds: Sequence[int] = range(SEEDS),
    *,
    augment: Augment = "light",
    fresh: Sequence[Arm] = FRESH,
) -> Comparison:
    """Train both arms on the same samples for every seed."""
    torch.set_num_threads(1)  # batches this small gain nothing from more, and lose much on a busy machine
    start = time.perf_counter()
    scores = {arm.name: tuple(few(arm, per_class, seed, augment) for seed in seeds) for arm in (ADAPTED, *fresh)}
    adapted = scores.pop(ADAPTED.name)
    rates = {name: mean(values) for name, values in scores.items()}
    best = max(scores.values(), key=mean)
    return Comparison(per_class, augment, adapted, best, rates, time.perf_counter() - start)


def run() -> str:
    """Compare both arms at 2 and 5 samples a class, then train on all of the first half."""
    torch.set_num_threads(1)
    rows = [_row(compare(count, augment=augment)) for count, augment in itertools.product((2, 5), AUGMENT)]
    whole = [
        (arm, trained(arm, 0, {"train.epochs": FULL_EPOCHS, "train.augment": "light"}))
        for arm in (ADAPTED, *FRESH)
    ]
    return "\n\n".join(
        (
            table(COLUMNS, rows),
            f"{FULL_EPOCHS} epochs of all 898 samples of the first half, one seed:",
            table(
                ["arm", "right, %", "training, s"],
                [(arm.name, f"{one.accuracy:.2f}", f"{one.seconds:.1f}") for arm, one in whole],
            ),
        )
    )


COLUMNS = ["samples a class", "augment", "adapted, %", "fresh, %", "gain, points", "95 % interval", "least", "s",
           "fresh at each rate"]  # fmt: skip


def _row(one: Comparison) -> tuple[object, ...]:
    low, high = one.interval
    arms = [f"{mean(values):.2f} ± {stdev(values):.2f}" for values in (one.adapted, one.fresh)]
    rates = ", ".join(f"{name.removeprefix('fresh at ')}: {value:.2f}" for name, value in one.rates.items())
    gain = f"{mean(one.gains):+.2f}"
    interval = f"{low:.2f} … {high:.2f}"
    return (
        one.per_class, one.augment, *arms, gain, interval, f"{min(one.gains):+.2f}", f"{one.seconds:.0f}", rates,
    )  # fmt: skip
