"""MLflow for real, in a folder."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.train.stripes import DATA, graft
from tests.train.told import BEGIN, run

from torchgraft.errors import TrainError
from torchgraft.train.news import news_of

pytest.importorskip("mlflow")


def test_the_figures_of_a_stopped_and_resumed_training_are_one_run_without_a_double_point(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    for how in ({"last": 7, "ended": "interrupted"}, {"first": 6, "begin": replace(BEGIN, epoch=2)}):
        with news_of(("mlflow",), tmp_path, "run", "base: bundled:glyphs\n") as watch:
            run(watch, **how)
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name("torchgraft")
    (one,) = client.search_runs([experiment.experiment_id])
    assert (one.info.status, one.info.run_name) == ("FINISHED", "run")
    assert "bundled:glyphs" in one.data.tags["mlflow.note.content"]
    losses = client.get_metric_history(one.info.run_id, "loss/step")
    assert [(point.step, point.value) for point in losses] == [(n, pytest.approx(1 / n)) for n in range(1, 13)]
    assert [point.step for point in client.get_metric_history(one.info.run_id, "mae/val")] == [4, 8, 12]


def test_a_store_that_can_not_be_had_is_told_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    with (
        news_of(("mlflow",), tmp_path, "run", "") as watch,
        pytest.raises(TrainError, match="mlflow can't be opened") as refused,
    ):
        watch.begin(BEGIN)
    assert refused.value.where == "train.log"


def test_g_train_writes_down_where_the_plan_names_a_place(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.chdir(tmp_path)
    history = graft().train(DATA, epochs=2, batch=32, log=["mlflow"])
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    (one,) = client.search_runs([client.get_experiment_by_name("torchgraft").experiment_id])
    told = [point.value for point in client.get_metric_history(one.info.run_id, "accuracy/val")]
    assert told == [epoch.val_accuracy for epoch in history.epochs]
    assert len(list((tmp_path / "runs" / "tensorboard").glob("*/events.out.tfevents.*"))) == 1
