from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from tests.train.told import BEGIN, moment, run

from torchgraft.errors import TorchgraftWarning, TrainError
from torchgraft.train.news import Curves, Place, check_places
from torchgraft.train.watch import Begin


class Held(Place):
    """Keeps the points; breaks at a step where a test wants it."""

    name = "held"

    def __init__(self, breaks: int = 10**9) -> None:
        self.points: list[tuple[int, dict[str, float]]] = []
        self.calls: list[str] = []
        self.breaks = breaks

    def open(self, begin: Begin, recipe: str) -> None:
        self.calls.append(f"open {begin.done} {recipe}")

    def put(self, step: int, values: Mapping[str, float]) -> None:
        if step >= self.breaks:
            raise OSError(28, "No space left on device")
        self.points.append((step, dict(values)))

    def flush(self) -> None:
        self.calls.append("flush")

    def close(self, *, finished: bool) -> None:
        self.calls.append(f"close {finished}")


def test_a_short_training_puts_a_point_for_every_step_and_the_figures_of_every_epoch():
    held = Held()
    run(Curves([held], "base: x").watch())
    steps = [(step, values) for step, values in held.points if "loss/step" in values]
    assert [step for step, _ in steps] == list(range(1, 13))
    assert steps[3][1]["loss/step"] == pytest.approx(1 / 4)
    assert {"gradient/norm", "rate/fc", "rate/rest", "speed/samples_per_second"} <= steps[0][1].keys()
    assert [(step, values) for step, values in held.points if "loss/val" in values] == [
        (
            4 * number,
            {
                "epoch": number, "loss/train": 1 / number, "loss/val": 2 / number, "accuracy/train": 0.5,
                "accuracy/val": 0.2 * number, "mae/val": 3.25,
            },
        )
        for number in (1, 2, 3)
    ]  # fmt: skip
    assert held.calls == ["open 0 base: x", "flush", "flush", "flush", "close True"]


def test_a_long_training_puts_a_thousand_points_each_the_mean_since_the_one_before():
    held, steps = Held(), 5000
    curves = Curves([held])
    curves.begin(replace(BEGIN, total=steps))
    for number in range(1, steps + 1):
        curves.step(moment(number, loss=float(number)))
    assert len(held.points) == 1000
    assert [step for step, _ in held.points[:3]] == [5, 10, 15]
    assert held.points[1][1]["loss/step"] == pytest.approx(8.0)


def test_batches_that_close_no_step_are_counted_in_the_next_point():
    held = Held()
    curves = Curves([held])
    curves.begin(BEGIN)
    for loss, number in ((1.0, 0), (3.0, 1), (5.0, 1), (7.0, 2)):
        curves.step(replace(moment(1, loss=loss), number=number, norm=1.0 if number else None))
    assert [(step, values["loss/step"]) for step, values in held.points] == [(1, 2.0), (2, 6.0)]


def test_a_place_that_fails_is_told_once_and_stops_neither_the_training_nor_the_others():
    broken, whole = Held(breaks=3), Held()
    with pytest.warns(TorchgraftWarning, match=r"held gets no more figures: .*No space left") as said:
        run(Curves([broken, whole]).watch())
    assert len(said) == 1
    assert max(step for step, _ in broken.points) == 2
    assert max(step for step, _ in whole.points) == 12


def test_a_stopped_training_closes_its_places_as_stopped_and_once():
    held = Held()
    curves = Curves([held])
    run(curves.watch(), ended="interrupted")
    curves.close(finished=True)
    assert held.calls[-1] == "close False"


def test_an_unknown_place_is_refused_with_what_is_near():
    with pytest.raises(TrainError, match="no place 'wandbb'") as refused:
        check_places(["wandbb"])
    assert refused.value.hint == "did you mean wandb?"


def test_a_place_that_is_not_installed_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(TrainError, match="mlflow is not installed") as refused:
        check_places(["mlflow"])
    assert refused.value.hint == "pip install 'torchgraft[mlflow]'"
