from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from tests.train.told import BEGIN, Clock, epoch, moment, run

from torchgraft.errors import EditError
from torchgraft.rules import Finding
from torchgraft.train.news import Lines


def events(*, every_step: bool = True, **how: object) -> list[dict[str, object]]:
    written: list[str] = []
    run(Lines(written.append, every_step=every_step).watch(), **how)
    return [json.loads(line) for line in written]


def test_every_event_is_one_line_of_json_with_its_name_and_time():
    told = events()
    names = [one["event"] for one in told]
    assert names == ["begin", *(["step"] * 4 + ["epoch"]) * 3, "end"]
    assert all(isinstance(one["time"], float) for one in told)
    assert told[0]["rates"] == {"fc": 0.01, "rest": 0.001}
    assert (told[1]["loss"], told[1]["number"], told[1]["samples"]) == (1.0, 1, 8)
    assert told[5]["val"] == {"accuracy": 0.2, "mae": 3.25}
    assert (told[-1]["ended"], told[-1]["epochs"]) == ("finished", 3)


def test_steps_are_told_once_a_second_where_not_each_is_asked_for():
    written: list[str] = []
    clock = Clock()
    lines = Lines(written.append, clock=clock)
    lines.begin(BEGIN)
    for number in range(1, 11):
        clock.now += 0.3
        lines.step(moment(number))
    assert [json.loads(line)["number"] for line in written[1:]] == [1, 5, 9]


def test_a_number_that_json_has_no_word_for_is_null():
    written: list[str] = []
    lines = Lines(written.append)
    lines.epoch(epoch(1).model_copy(update={"val_loss": float("nan"), "val": {"mae": float("inf")}}))
    told = json.loads(written[0], parse_constant=lambda word: f"no JSON: {word}")
    assert (told["val_loss"], told["val"]) == (None, {"mae": None})


def test_a_saved_state_a_finding_and_an_error_are_events_too():
    written: list[str] = []
    lines = Lines(written.append)
    finding = Finding("P001", "warning", "something", "fc", facts=("a", "b"))
    lines.saved(Path("runs/states/x"))
    lines.found(finding)
    lines.error(EditError("it does not fit", "fc", "another", findings=[replace(finding, severity="error")]))
    saved, found, error = map(json.loads, written)
    assert saved["path"] == "runs/states/x"
    assert (found["event"], found["code"], found["facts"]) == ("finding", "P001", ["a", "b"])
    assert (error["what"], error["where"], error["hint"]) == ("it does not fit", "fc", "another")
    assert error["findings"][0]["severity"] == "error"
