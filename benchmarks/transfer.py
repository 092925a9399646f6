"""What the bundled base is worth: scikit-learn's digits from 2 and 5 samples a class, adapted against fresh.

Both arms are planned and trained by torchgraft's own API, with the same network, samples, epochs, batch, schedule,
augmentation and weight decay, every weight trainable, and the last state kept. They are tested on the second half
of the digits, which training never sees. The fresh arm starts from random weights and gets the best of three
learning rates, picked on the test half itself: in its favour. The difference is paired by seed, with a 95 %
interval by Student's t.

    python benchmarks/transfer.py [SEEDS]
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import mean, stdev
from typing import Any

from scipy.stats import t as student

from torchgraft.plan import plan
from torchgraft.train.batches import batches
from torchgraft.train.evaluate import tally
from torchgraft.train.loop import device_of, fit

DATA = "sklearn:digits"
SEEDS = 10
STEPS, BATCH, CLASSES = 100, 32, 10
FULL_EPOCHS = 16
SHARED = {"train.batch": BATCH, "train.keep": "last", "train.augment": "light", "train.device": "cpu"}


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
    test = batches(job.data.val, job.preprocess.transform(), job.train, train=False)
    _, accuracy = tally(job.graft.module, test, device_of(job.train))
    return Score(100 * accuracy, history.seconds)


def few(arm: Arm, per_class: int, seed: int) -> Score:
    """Train an arm on `per_class` samples a class for about 100 steps."""
    epochs = STEPS // math.ceil(per_class * CLASSES / BATCH)
    return trained(arm, seed, {"train.per_class": per_class, "train.epochs": epochs})


def compare(per_class: int, seeds: Sequence[int] = range(SEEDS), *, fresh: Sequence[Arm] = FRESH) -> Comparison:
    """Train both arms on the same samples for every seed."""
    start = time.perf_counter()
    adapted = tuple(few(ADAPTED, per_class, seed).accuracy for seed in seeds)
    scores = {arm: tuple(few(arm, per_class, seed).accuracy for seed in seeds) for arm in fresh}
    best = max(scores.values(), key=mean)
    rates = {arm.name: mean(values) for arm, values in scores.items()}
    return Comparison(per_class, adapted, best, rates, time.perf_counter() - start)


def main() -> None:
    """Print the table."""
    seeds = range(int(sys.argv[1]) if len(sys.argv) > 1 else SEEDS)
    print("samples a class   adapted        fresh          gain    95 % interval   least   seconds")
    for per_class in (2, 5):
        print(_row(compare(per_class, seeds)), flush=True)
    for arm in (ADAPTED, *FRESH):
        score = trained(arm, 0, {"train.epochs": FULL_EPOCHS})
        print(f"all of the first half, {arm.name}: {score.accuracy:.2f} % in {score.seconds:.1f} s", flush=True)


def _row(one: Comparison) -> str:
    low, high = one.interval
    arms = "   ".join(f"{mean(values):5.2f} ± {stdev(values):4.2f}" for values in (one.adapted, one.fresh))
    rates = ", ".join(f"{name}: {value:.2f}" for name, value in one.rates.items())
    return (
        f"{one.per_class:15}   {arms}   {mean(one.gains):+5.2f}   [{low:5.2f}, {high:5.2f}]   "
        f"{min(one.gains):+5.2f}   {one.seconds:7.0f}\n{'':15}   {rates}"
    )


if __name__ == "__main__":
    main()
