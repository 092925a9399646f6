"""MLflow: one run of its experiment `torchgraft`, where MLFLOW_TRACKING_URI says, or in its own default place."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torchgraft.train.news.curves import Place
from torchgraft.train.watch import Begin

__all__ = ["MLflow"]

EXPERIMENT = "torchgraft"


class MLflow(Place):
    """One run, found again after a stop by the name that was written down.

    Args:
        folder: where the name of the run is written down.
        name: of the run, as it is shown.
    """

    name = "mlflow"

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.title = folder, name
        self._client: Any = None
        self._run = ""
        self._waiting: list[tuple[str, float, int, int]] = []
        self._last: dict[str, int] = {}

    def open(self, begin: Begin, recipe: str) -> None:
        """Open a run, or the one before; MLflow forgets no point, so those that it has are passed over."""
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient()
        self.folder.mkdir(parents=True, exist_ok=True)
        note = self.folder / "mlflow.txt"
        self._last = {}
        if begin.done and note.exists():
            self._run = note.read_text().strip()
            self._client.update_run(self._run, status="RUNNING")
            known = self._client.get_run(self._run).data.metrics
            histories = {name: self._client.get_metric_history(self._run, name) for name in known}
            self._last = {name: max(point.step for point in points) for name, points in histories.items()}
            return
        self._run = self._client.create_run(self._experiment(), run_name=self.title).info.run_id
        note.write_text(f"{self._run}\n")
        self._client.set_tag(self._run, "mlflow.note.content", f"```yaml\n{recipe}```")

    def _experiment(self) -> str:
        known = self._client.get_experiment_by_name(EXPERIMENT)
        return str(known.experiment_id if known else self._client.create_experiment(EXPERIMENT))

    def put(self, step: int, values: Mapping[str, float]) -> None:
        """Keep points until there are enough for one request."""
        now = time.time_ns() // 1_000_000
        new = [(name, value, now, step) for name, value in values.items() if step > self._last.get(name, -1)]
        self._waiting += new
        if len(self._waiting) >= 500:
            self.flush()

    def flush(self) -> None:
        """Send what waits; MLflow takes 1000 points a request."""
        from mlflow.entities import Metric

        while self._waiting:
            batch, self._waiting = self._waiting[:1000], self._waiting[1000:]
            self._client.log_batch(self._run, metrics=[Metric(*point) for point in batch])

    def close(self, *, finished: bool) -> None:
        """Finish the run."""
        self.flush()
        self._client.set_terminated(self._run, "FINISHED" if finished else "KILLED")
