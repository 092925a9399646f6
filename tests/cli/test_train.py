"""`torchgraft train` from outside: stopped by signals, gone on with, and read by a program."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from torchgraft.cli import main

RECIPE = """\
base: bundled:glyphs
edits:
- head: {classes: 2}
train: {data: folder:./strokes, epochs: 2, batch: 4, optimizer: {adamw: {lr: 0.001}}, keep: last}
"""


def command(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "torchgraft", "train", "recipe.yaml", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def stopped(folder: Path, number: signal.Signals, *, after: int) -> tuple[int, list[dict[str, object]], str]:
    """Run until an event of a step, send a signal, and give the exit code, the events and standard error."""
    running = command(folder, "--json", "--every-step")
    events = []
    for line in running.stdout:
        events.append(json.loads(line))
        if events[-1]["event"] == "step" and events[-1]["number"] == after:
            running.send_signal(number)
    return running.wait(), events, running.stderr.read()


def begun(folder: Path) -> Path:
    """Put a recipe and its data into a folder: 50 strokes across and down, with noise; 40 of them train."""
    rng = np.random.default_rng(0)
    for kind in ("across", "down"):
        home = folder / "strokes" / kind
        home.mkdir(parents=True)
        for number in range(25):
            image = rng.integers(0, 90, (16, 16)).astype(np.uint8)
            place = (slice(6, 9), slice(None)) if kind == "across" else (slice(None), slice(6, 9))
            image[place] = 255
            Image.fromarray(image).save(home / f"{number}.png")
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return begun(tmp_path / "here")


def weights(folder: Path, version: int) -> dict[str, bytes]:
    from torchgraft.keep import open_version

    model = open_version(f"{folder / 'runs'}@v{version}")
    return {name: one.numpy().tobytes() for name, one in model.module.state_dict().items()}


def points(folder: Path) -> list[tuple[int, float]]:
    (home,) = (folder / "runs" / "tensorboard").iterdir()
    seen = EventAccumulator(str(home), size_guidance={"scalars": 0})
    seen.Reload()
    return [(one.step, one.value) for one in seen.Scalars("loss/step")]


def run_here(folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as left:
        main(["train", "recipe.yaml", *arguments])
    assert left.value.code == 0


def test_sigterm_saves_and_the_command_that_is_told_goes_on_to_the_same_end(folder, tmp_path, monkeypatch, capsys):
    code, events, errors = stopped(folder, signal.SIGTERM, after=13)
    assert code == 130, errors
    assert errors == ""
    names = [one["event"] for one in events]
    assert names[-1] == "result"
    assert "saved" in names
    last = max(one["number"] for one in events if one["event"] == "step")
    assert 13 <= last < 20
    told = events[-1]
    assert told["ended"] == "interrupted"
    assert told["resume"] == "torchgraft train recipe.yaml --resume"
    run_here(folder, monkeypatch, "--resume")
    out = capsys.readouterr().out
    assert f"resumed  at step {last} of 20" in out
    assert "epoch 1/2" not in out
    whole = begun(tmp_path / "whole")
    run_here(whole, monkeypatch)
    assert points(folder) == points(whole)
    assert weights(folder, 2) == weights(whole, 1)


@pytest.mark.slow
def test_a_second_ctrl_c_ends_it_at_once(folder):
    running = command(folder, "--json", "--every-step")
    for line in running.stdout:
        if json.loads(line)["event"] == "step":
            running.send_signal(signal.SIGINT)
            running.send_signal(signal.SIGINT)
            break
    running.stdout.read()
    assert running.wait() == 130


def test_json_is_all_there_is_on_standard_output(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as left:
        main(["train", "recipe.yaml", "--json"])
    done = capsys.readouterr()
    assert left.value.code == 0
    events = [json.loads(line) for line in done.out.splitlines()]
    names = [one["event"] for one in events]
    assert names[0] == "told"
    assert [name for name in names if name in ("begin", "epoch", "end", "result")] == [
        "begin", "epoch", "epoch", "end", "result",
    ]  # fmt: skip
    begin = next(one for one in events if one["event"] == "begin")
    assert (begin["total"], begin["batch"], begin["samples"], begin["metric"]) == (20, 4, 40, "accuracy")
    assert 1 <= names.count("step") <= 20
    assert events[-1]["version"] == "v1"
    assert Path(events[-1]["report"]).exists()


def test_an_error_is_an_event_too_and_standard_error_has_it_in_words(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text("base: bundled:glyphs\ntrain: {data: sklearn:nothing}\n")
    with pytest.raises(SystemExit) as left:
        main(["train", "recipe.yaml", "--json"])
    done = capsys.readouterr()
    assert left.value.code == 2
    (event,) = (json.loads(line) for line in done.out.splitlines())
    assert event["event"] == "error"
    assert event["what"] in done.err


@pytest.mark.parametrize(
    ("arguments", "what", "where"),
    [
        (["--every-step"], "--every-step is about events", "--every-step"),
        (["--resume"], "no unfinished training of this recipe is kept here", "states"),
    ],
)
def test_what_makes_no_sense_is_told(arguments, what, where, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as left:
        main(["train", "recipe.yaml", *arguments])
    told = capsys.readouterr().err
    assert left.value.code == 2
    assert what in told
    assert where in told


@pytest.mark.parametrize(
    ("log", "what", "do"),
    [("wandbb", "there is no place 'wandbb' for figures", "did you mean wandb?")],
)
def test_a_place_for_figures_that_is_none_is_told_before_the_base_is_loaded(
    log, what, do, folder, monkeypatch, capsys
):
    monkeypatch.chdir(folder)
    Path("recipe.yaml").write_text(RECIPE.replace("epochs: 2", f"log: {log}"))
    with pytest.raises(SystemExit):
        main(["train", "recipe.yaml"])
    done = capsys.readouterr()
    assert what in done.err
    assert do in done.err
    assert "load" not in done.out
