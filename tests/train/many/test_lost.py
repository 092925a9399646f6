"""A process that is lost, stopped, or that errs: one clear error, and a good state on the disk."""

from __future__ import annotations

import json
import os
import random
import signal
import time

import pytest
from tests.train.many.launch import RUNS, apart, differing, ran, started, tensors
from tests.train.many.runs import run

from torchgraft.errors import StoreError
from torchgraft.train.world import ALONE

TIMEOUT = 5.0
PLAN = {"epochs": 16, "optimizer": {"adamw": {"lr": 3e-3}}}
FSDP = {**PLAN, "parallel": "fsdp"}


def job(name, plan, **rest):
    return {"name": name, "kind": "still", "plan": plan, **rest}


def waits_for(what, process):
    until = time.monotonic() + 120
    while not what():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.05)


def hit(folder, plan, number, *, processes=2):
    """Train slowly, and send a signal to the process of rank 1 at some moment after the first state is there."""
    said = folder / "jobs.json"
    said.write_text(json.dumps([job("hit", plan, states="states", every=0.3, slow=0.05)]))
    process = started(processes, RUNS, folder, said, PLAN=json.dumps({"timeout": TIMEOUT}))
    states = folder / "states"
    waits_for(lambda: any((states / name).exists() for name in ("state.json", "state.safetensors")), process)
    time.sleep(random.Random(number).uniform(0, 0.5))
    os.kill(int((folder / "pid-1").read_text()), number)
    return process


def told(output):
    """Give what we said, without what torchrun adds."""
    return [line for line in output.splitlines() if line.startswith("TOLD")]


def test_a_killed_process_ends_all_with_one_error_and_the_training_goes_on_from_the_last_state(tmp_path):
    process = hit(tmp_path, FSDP, signal.SIGKILL)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert told(output) == ["TOLD process 1 of 2: killed, or cut off"]
    assert f"where: process {(tmp_path / 'pid-1').read_text()} on " in output
    assert "again with --resume: it goes on from the last state that was saved" in output
    assert not (tmp_path / "hit.json").exists()
    run(job("resumed", PLAN, states="states", resume=True), tmp_path, ALONE)
    run(job("whole", PLAN), tmp_path, ALONE)
    assert apart(tensors(tmp_path, "whole"), tensors(tmp_path, "resumed")) < 1e-5


@pytest.mark.slow
def test_a_silent_process_is_given_up_after_the_timeout_and_named(tmp_path):
    process = hit(tmp_path, PLAN, signal.SIGSTOP)
    start, heard = time.monotonic(), []
    for line in process.stdout:
        heard.append(line)
        if line.startswith("TOLD"):
            break
    assert time.monotonic() - start < 3 * TIMEOUT + 5
    os.kill(int((tmp_path / "pid-1").read_text()), signal.SIGKILL)  # torchrun itself waits for it for 30 s more
    rest, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert told("".join(heard) + rest) == ["TOLD process 1 of 2: no answer for 5 s"]


@pytest.mark.slow
@pytest.mark.parametrize("plan", [PLAN, FSDP], ids=["ddp", "fsdp"])
def test_of_four_processes_one_is_killed_and_four_go_on_bit_for_bit(tmp_path, plan):
    process = hit(tmp_path, plan, signal.SIGKILL, processes=4)
    output, _ = process.communicate(timeout=120)
    assert told(output) == ["TOLD process 1 of 4: killed, or cut off"]
    ran(4, tmp_path, [job("resumed", plan, states="states", resume=True), job("whole", plan)])
    assert differing(tensors(tmp_path, "whole"), tensors(tmp_path, "resumed")) == []


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A stopped training of two processes that share the model out."""
    home = tmp_path_factory.mktemp("shared")
    ran(2, home, [job("stopped", FSDP, states="states", stop=[2, 2])])
    return home


def resume(home):
    run(job("again", PLAN, states="states", resume=True), home, ALONE)


@pytest.mark.slow
def test_a_part_that_was_damaged_or_lost_is_not_read(shared):
    known = json.loads((shared / "states" / "state.json").read_text())["state"]
    part = shared / "states" / known["folder"] / sorted(known["files"])[1]
    content = part.read_bytes()
    part.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(StoreError, match="damaged or missing: shard-00002"):
        resume(shared)
    part.unlink()
    with pytest.raises(StoreError, match="damaged or missing: shard-00002"):
        resume(shared)
    part.write_bytes(content)
    resume(shared)
