"""W&B for real, offline: what it wrote is read back by its own reader."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.train.told import BEGIN, run

from torchgraft.train.news import news_of

pytest.importorskip("wandb")


@pytest.fixture(autouse=True)
def _offline(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "own"))


def records(file: Path) -> Iterator[bytes]:
    """Read what W&B wrote: a log in blocks of 32 KiB, each piece with its checksum, length and kind before it."""
    held, place, whole = file.read_bytes(), 7, b""
    while place + 7 <= len(held):
        if (rest := 32768 - place % 32768) < 7:
            place += rest
            continue
        _, size, kind = struct.unpack_from("<IHB", held, place)
        whole += held[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last piece
            yield whole
            whole = b""


def written(file: Path) -> list[Any]:
    """Read a run to its end; W&B's own process may still be writing it."""
    from wandb.proto.wandb_internal_pb2 import Record

    for _ in range(200):
        found = [Record.FromString(one) for one in records(file)]
        if found and found[-1].WhichOneof("record_type") == "exit":
            return found
        time.sleep(0.05)
    raise AssertionError(f"{file} has no end")


def rows(out: Path) -> list[dict[int, dict[str, float]]]:
    """Give what each offline run holds, in order: values by name, by step."""
    found = []
    for file in sorted(out.glob("tensorboard/run/wandb/offline-run-*/*.wandb"), key=lambda one: str(one)):
        held: dict[int, dict[str, float]] = {}
        for record in written(file):
            if record.WhichOneof("record_type") == "history":
                items = {
                    one.key or ".".join(one.nested_key): json.loads(one.value_json) for one in record.history.item
                }
                held.setdefault(int(items.pop("_step", record.history.step.num)), {}).update(items)
        found.append(held)
    return found


def test_the_figures_of_a_stopped_and_resumed_training_are_those_of_one_run(tmp_path):
    for how in ({"last": 7, "ended": "interrupted"}, {"first": 6, "begin": replace(BEGIN, epoch=2)}):
        with news_of(("wandb",), tmp_path, "run", "base: bundled:glyphs\nseed: 3\n") as watch:
            run(watch, **how)
    first, second = rows(tmp_path)
    assert [step for step in first if "loss/step" in first[step]] == [1, 2, 3, 4, 5, 6, 7]
    assert first[4]["loss/val"] == 2.0
    assert first[4]["loss/step"] == 0.25
    assert second[12]["accuracy/val"] == pytest.approx(0.6)
    assert min(second) == 6
    names = {file.stem for file in tmp_path.glob("tensorboard/run/wandb/offline-run-*/*.wandb")}
    assert len(names) == 1  # both are parts of one run
