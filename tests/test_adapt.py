from __future__ import annotations

import dataclasses
import signal

import pytest
from tests.train.resuming import figures, same
from tests.train.stripes import DATA, SETTINGS, graft, stripes

from torchgraft.errors import TrainError
from torchgraft.train.watch import Watch

PLAN = {**SETTINGS, "epochs": 2}


def stopped_after(count, act=lambda: signal.raise_signal(signal.SIGTERM)):
    seen = []

    def step(_):
        seen.append(1)
        if len(seen) == count:
            act()

    return Watch(step=step)


def test_from_python_a_training_is_stopped_and_gone_on_with(tmp_path):
    straight = graft()
    told = straight.train(DATA, **PLAN)
    assert graft().train(DATA, out=tmp_path, watch=stopped_after(8), **PLAN).ended == "interrupted"
    assert list(tmp_path.glob("states/*/state.safetensors"))
    g = graft()
    history = g.train(DATA, out=tmp_path, resume=True, **PLAN)
    assert same(g, straight)
    assert figures(history) == figures(told)
    assert not list((tmp_path / "states").iterdir())


def test_what_broke_off_by_an_error_of_the_users_is_gone_on_with(tmp_path):
    def fail():
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        graft().train(DATA, out=tmp_path, save_every=1e-9, watch=stopped_after(5, fail), **PLAN)
    assert graft().train(DATA, out=tmp_path, resume=True, **PLAN).ended == "finished"


def test_a_new_training_sets_the_unfinished_one_aside_and_says_so(tmp_path):
    graft().train(DATA, out=tmp_path, watch=stopped_after(3), **PLAN)
    notes = []
    graft().train(DATA, out=tmp_path, watch=Watch(note=notes.append), **PLAN)
    assert "unfinished training of this recipe lies in" in notes[0]


def test_going_on_needs_a_folder_and_something_that_lies_there(tmp_path):
    with pytest.raises(TrainError, match="there is no folder to go on from"):
        graft().train(DATA, resume=True, **PLAN)
    with pytest.raises(TrainError, match="no unfinished training of this recipe"):
        graft().train(DATA, out=tmp_path, resume=True, **PLAN)


def test_data_with_other_targets_are_told_as_such(tmp_path):
    graft().train(DATA, out=tmp_path, watch=stopped_after(3), **PLAN)
    other = dataclasses.replace(DATA, train=stripes(96, 7))
    with pytest.raises(TrainError, match="to train: 96 samples, with other targets"):
        graft().train(other, out=tmp_path, resume=True, **PLAN)


def test_one_recipe_is_trained_once_at_a_time_in_a_folder(tmp_path):
    refused = []

    def again():
        with pytest.raises(TrainError, match="another process trains this recipe in the same folder") as error:
            graft().train(DATA, out=tmp_path, **PLAN)
        refused.append(error)

    history = graft().train(DATA, out=tmp_path, watch=stopped_after(3, again), **PLAN)
    assert history.ended == "finished"
    assert refused
