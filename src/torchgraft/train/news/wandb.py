"""Weights & Biases: one run of its project `torchgraft`; with WANDB_MODE=offline it stays on this machine."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torchgraft.train.news.curves import Place
from torchgraft.train.watch import Begin

__all__ = ["WeightsAndBiases"]


class WeightsAndBiases(Place):
    """One run, found again after a stop by the name that was written down.

    Args:
        folder: where W&B keeps its own files, and the name of the run is written down.
        name: of the run, as it is shown.
    """

    name = "wandb"

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.title = folder, name
        self._run: Any = None
        self._last = -1

    def open(self, begin: Begin, recipe: str) -> None:
        """Open a run, or the one before, which passes over points that it has."""
        import wandb

        from torchgraft import yamlfile

        self.folder.mkdir(parents=True, exist_ok=True)
        note = self.folder / "wandb.txt"
        known = note.read_text().strip() if begin.done and note.exists() else ""
        number = known or uuid.uuid4().hex[:12]
        note.write_text(f"{number}\n")
        self._run = wandb.init(
            project="torchgraft",
            name=self.title,
            id=number,
            resume="allow",
            dir=str(self.folder),
            config=yamlfile.read(recipe, "recipe").data or {},
            settings=wandb.Settings(silent=True, console="off"),
        )
        self._last = int(self._run.step or 0) - 1

    def put(self, step: int, values: Mapping[str, float]) -> None:
        """Log points; W&B takes no step that it has seen, so an epoch's figures go with the step they stand at."""
        if step >= self._last:
            self._last = step
            self._run.log(dict(values), step=step, commit=False)

    def flush(self) -> None:
        """Nothing waits here: W&B sends by itself."""

    def close(self, *, finished: bool) -> None:
        """Finish the run."""
        self._run.finish(exit_code=0 if finished else 130)
