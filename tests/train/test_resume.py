from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from torchgraft.errors import StoreError, TrainError
from torchgraft.plan import prepared
from torchgraft.train.loop import fit
from torchgraft.train.saving import Saver

from .resuming import figures, same, trained
from .stripes import DATA, SETTINGS, graft

PLANS = {
    "plain": {},
    "momentum, average and augmentation": {
        "optimizer": {"sgd": {"lr": 0.1, "momentum": 0.9}}, "ema": 0.9, "augment": "light"},
    "accumulation and a plateau": {"accumulate": 2, "schedule": {"plateau": {"patience": 1}}},
    "steps": {"steps": 17, "keep": "last", "schedule": "one_cycle"},
    "unfreezing in bf16": {"unfreeze": [{"epoch": 2, "at": "stem", "lr": 1e-3}], "precision": "bf16"},
    "timm's optimizer and mixup": {"optimizer": {"lamb": {"lr": 0.01}}, "mixup": 0.2},
    "workers": {"workers": 1, "epochs": 2},
}  # fmt: skip


@cache
def whole(name):
    return trained(**PLANS[name])


@given(st.sampled_from(sorted(PLANS.keys() - {"workers"})), st.integers(1, 24), st.integers(1, 24))
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
def test_stopped_anywhere_and_resumed_it_ends_as_if_it_had_never_been_stopped(name, first, second):
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "state"
        g, history, _ = trained(folder, stop=first, **PLANS[name])
        for stop in (second, None):
            if history.ended == "interrupted":
                g, history, _ = trained(folder, stop=stop, resume=True, **PLANS[name])
    straight, told, _ = whole(name)
    assert same(g, straight)
    assert figures(history) == figures(told)


@pytest.mark.parametrize(("steps", "accumulate", "stop"), [(7, 1, 7), (12, 1, 12), (7, 2, 14)])
def test_stopped_at_the_last_step_its_epoch_is_still_judged(tmp_path, steps, accumulate, stop):
    plan = {"steps": steps, "accumulate": accumulate, "keep": "last"}
    straight, told, _ = trained(**plan)
    _, stopped, _ = trained(tmp_path / "s", stop=stop, **plan)
    assert stopped.ended == "interrupted"
    g, history, seen = trained(tmp_path / "s", resume=True, **plan)
    assert not seen
    assert same(g, straight)
    assert figures(history) == figures(told)


def test_stopped_where_it_ends_anyway_it_has_ended(tmp_path):
    for plan in ({"epochs": 2}, {"steps": 12}, {"early_stop": 1, "optimizer": {"sgd": {"lr": 0.0}}}):
        _, told, _ = trained(**plan)
        _, history, _ = trained(tmp_path / "s", stop=len(told.epochs), at="epoch", **plan)
        assert (history.ended, figures(history)) == (told.ended, figures(told))


def test_gone_on_with_after_the_epoch_that_was_one_too_many_it_stays_ended(tmp_path):
    plan = {"early_stop": 1, "optimizer": {"sgd": {"lr": 0.0}}}
    trained(tmp_path / "s", every=1e-9, **plan)
    _, history, seen = trained(tmp_path / "s", resume=True, **plan)
    assert (history.ended, len(history.epochs), seen) == ("early", 2, [])


def test_with_workers_it_is_as_exact():
    straight, told, _ = whole("workers")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "state"
        trained(folder, stop=4, **PLANS["workers"])
        g, history, _ = trained(folder, resume=True, **{**PLANS["workers"], "workers": 0})
    assert same(g, straight)
    assert figures(history) == figures(told)


def test_it_goes_on_where_it_stopped_and_says_so(tmp_path):
    _, _, seen = trained(tmp_path / "s", stop=8)
    _, _, rest = trained(tmp_path / "s", resume=True)
    _, _, all_of_them = whole("plain")
    assert [one.number for one in seen + rest] == [one.number for one in all_of_them]
    assert [one.loss for one in seen + rest] == [one.loss for one in all_of_them]


KILLED = """
import sys
from pathlib import Path
from tests.train.resuming import trained
g, history, _ = trained(Path(sys.argv[1]), resume=sys.argv[2] == "resume", every=0.001, epochs=40, ema=0.9)
import torch
torch.save(g.module.state_dict(), sys.argv[3])
"""


def test_killed_outright_it_goes_on_from_the_last_whole_state(tmp_path):
    def start(kind):
        words = [sys.executable, "-c", KILLED, str(tmp_path / "s"), kind, str(tmp_path / "end.pt")]
        return subprocess.Popen(words, cwd=Path(__file__).parents[2], env={**os.environ, "OMP_NUM_THREADS": "1"})

    process = start("begin")
    while not (tmp_path / "s" / "state.safetensors").exists() and process.poll() is None:
        pass
    process.send_signal(signal.SIGKILL)
    assert process.wait() in (-signal.SIGKILL, 0)
    if not (tmp_path / "end.pt").exists():
        assert start("resume").wait() == 0
    straight, _, _ = trained(epochs=40, ema=0.9)
    end = torch.load(tmp_path / "end.pt", weights_only=True)
    ours = straight.module.state_dict()
    assert all(torch.equal(end[name], ours[name]) for name in ours)


def test_nothing_to_go_on_from_is_told(tmp_path):
    with pytest.raises(TrainError, match=r"no unfinished training of this recipe(.|\n)*leave --resume out"):
        trained(tmp_path / "s", resume=True)


def test_other_data_are_refused(tmp_path):
    trained(tmp_path / "s", stop=3)
    fewer = type(DATA)(DATA.val, DATA.train, DATA.classes, DATA.channels, DATA.size, DATA.split)
    job = prepared(graft(), fewer, {**SETTINGS, "epochs": 4})
    with pytest.raises(TrainError, match=r"the data are not those(.|\n)*96 samples then, 48 samples now"):
        fit(job.graft, job.data, job.train, job.preprocess, saver=Saver(tmp_path / "s", 1e9), resume=True)


def test_other_frozen_weights_are_refused(tmp_path):
    settings = {"unfreeze": [{"epoch": 4, "at": "stem.1"}]}
    trained(tmp_path / "s", stop=3, **settings)
    g = graft().freeze(all_but="fc")
    g.module.stem[0].weight.data.add_(1e-3)
    job = prepared(g, DATA, {**SETTINGS, "epochs": 4, **settings})
    with pytest.raises(TrainError, match="the frozen weights are not those"):
        fit(job.graft, job.data, job.train, job.preprocess, saver=Saver(tmp_path / "s", 1e9), resume=True)


def test_a_damaged_state_is_told(tmp_path):
    trained(tmp_path / "s", stop=3)
    state = tmp_path / "s" / "state.safetensors"
    content = bytearray(state.read_bytes())
    content[-1] ^= 1
    state.write_bytes(content)
    with pytest.raises(StoreError, match="damaged"):
        trained(tmp_path / "s", resume=True)
