from __future__ import annotations

import pytest
import torch

import torchgraft as tg
from torchgraft.errors import TorchgraftWarning
from torchgraft.recipe import Recipe, TrainPlan
from torchgraft.train.saving import Saver, key_of
from torchgraft.train.snapshot import Snapshot

SNAPSHOT = Snapshot({"model/a": torch.arange(3.0)}, {"best": 0, "at": [1, 2, 3]})


def recipe(**train):
    return Recipe(base="torchvision:resnet18@none", train=TrainPlan(data="x", **train))


def test_a_state_is_found_again_as_it_was(tmp_path):
    saver = Saver(tmp_path / "s", 60)
    saver.save(SNAPSHOT, {}, wait=True)
    snapshot, best = Saver(tmp_path / "s", 60).load()
    assert torch.equal(snapshot.tensors["model/a"], SNAPSHOT.tensors["model/a"])
    assert snapshot.notes["at"] == [1, 2, 3]
    assert best == {}


def test_what_is_saved_is_the_state_at_that_moment_though_training_goes_on(tmp_path):
    saver = Saver(tmp_path / "s", 60)
    live = torch.zeros(1000, 1000)
    saver.save(Snapshot({"model/a": live}, {"best": 0}), {})
    live.add_(1)
    saver.close()
    assert float(saver.load()[0].tensors["model/a"].sum()) == 0


def test_what_a_killed_process_left_half_written_goes_when_the_training_goes_on(tmp_path):
    saver = Saver(tmp_path / "s", 60)
    saver.save(SNAPSHOT, {}, wait=True)
    (tmp_path / "s" / ".state.safetensors.1234abcd.tmp").write_bytes(b"half")
    saver.load()
    assert [one.name for one in (tmp_path / "s").iterdir()] == ["state.safetensors"]


def test_of_the_best_states_the_one_that_the_state_names_is_kept(tmp_path):
    saver = Saver(tmp_path / "s", 60)
    for best in (1, 2, 2):
        notes = {"best": best}
        saver.save(Snapshot({"a": torch.ones(1)}, notes), {"a": torch.full((1,), float(best))}, wait=True)
    assert sorted(one.name for one in (tmp_path / "s").iterdir()) == ["best-2.safetensors", "state.safetensors"]
    assert float(saver.load()[1]["a"]) == 2


def test_it_is_due_after_its_time_and_at_the_end_of_an_epoch_earlier(tmp_path):
    assert Saver(tmp_path, 0.0).due()
    patient = Saver(tmp_path, 1000.0)
    assert not patient.due()
    assert patient.due(epoch=True)
    patient.took = 1000.0
    assert not patient.due(epoch=True)


def test_a_disk_that_takes_nothing_stops_no_training_but_is_said(tmp_path):
    (tmp_path / "s").write_text("a file stands where the folder should be")
    saver = Saver(tmp_path / "s", 60)
    saver.save(SNAPSHOT, {})
    with pytest.warns(TorchgraftWarning, match="Training goes on"):
        saver.close()


def test_an_unfinished_training_is_set_aside_and_never_lost(tmp_path):
    for number in (1, 2):
        saver = Saver(tmp_path / "s", 60)
        saver.save(SNAPSHOT, {}, wait=True)
        assert saver.set_aside() == tmp_path / f"s.{number}"
        assert (tmp_path / f"s.{number}" / "state.safetensors").exists()
    assert Saver(tmp_path / "s", 60).set_aside() is None


def test_of_those_that_were_set_aside_the_last_is_brought_back_where_a_new_one_has_no_state_yet(tmp_path):
    for number in (1.0, 2.0):
        saver = Saver(tmp_path / "s", 60)
        saver.save(Snapshot({"a": torch.full((1,), number)}, {"best": 0}), {}, wait=True)
        saver.set_aside()
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "recipe.yaml").write_text("of the new training, which was killed before its first state")
    snapshot, _ = Saver(tmp_path / "s", 60).load()
    assert float(snapshot.tensors["a"]) == 2.0
    assert sorted(one.name for one in tmp_path.iterdir()) == ["s", "s.1"]


def test_a_training_is_known_by_what_it_computes():
    same = [recipe(), recipe(workers=2), recipe(save_every=5.0), recipe(device="cpu"), recipe(log="wandb")]
    other = [recipe(epochs=3), recipe(batch=16), recipe(optimizer={"sgd": {"lr": 0.1}}), recipe(augment="light")]
    assert len({key_of(one) for one in same}) == 1
    assert len({key_of(one) for one in (recipe(), *other)}) == 1 + len(other)


def test_after_ctrl_c_the_job_says_how_to_go_on_and_a_finished_one_leaves_no_state(tmp_path):
    from torchgraft.adapt import carry_out
    from torchgraft.plan import planned

    text = "base: bundled:glyphs\nedits: [{head: {classes: 10}}]\ntrain: {data: 'sklearn:digits', epochs: 1, per_class: 2}"
    job = planned(tg.Recipe.from_yaml(text))
    carry_out(job, tmp_path)
    assert not list((tmp_path / "states").glob("*/state.safetensors"))
