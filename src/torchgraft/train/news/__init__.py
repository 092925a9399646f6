"""Where the figures of a training go: TensorBoard's event files always, W&B and MLflow where they are asked for,
lines of JSON for programs."""

from __future__ import annotations

from torchgraft.train.news.curves import Curves, Place
from torchgraft.train.news.lines import Lines
from torchgraft.train.news.places import check_places, news_of

__all__ = ["Curves", "Lines", "Place", "check_places", "news_of"]
