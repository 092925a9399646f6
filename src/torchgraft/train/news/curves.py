"""From what a training tells to points of curves, the same for every place that draws them."""

from __future__ import annotations

import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

from torchgraft.errors import TorchgraftWarning, TrainError
from torchgraft.history import Epoch, History
from torchgraft.train.watch import Begin, Moment, Watch

__all__ = ["POINTS", "Curves", "Place"]

POINTS = 1000
"""A curve gets about so many points over the whole training: TensorBoard shows no more of one."""


class Place(ABC):
    """Where points are kept. What fails there is told once, and the training goes on without it.

    Attributes:
        name: as one calls it.
    """

    name: str

    @abstractmethod
    def open(self, begin: Begin, recipe: str) -> None:
        """Begin, or go on after `begin.done` optimizer steps; points of later steps come again and replace theirs.

        Args:
            begin: what is trained.
            recipe: as YAML.
        """

    @abstractmethod
    def put(self, step: int, values: Mapping[str, float]) -> None:
        """Keep points by the names of their curves, at a number of optimizer steps."""

    @abstractmethod
    def flush(self) -> None:
        """Let readers see what was put."""

    @abstractmethod
    def close(self, *, finished: bool) -> None:
        """End; `finished` where nobody stopped it before its time."""


class Curves:
    """Makes points of what a training tells: `loss/step` (the mean since the point before), `gradient/norm`,
    `rate/GROUP`, `speed/samples_per_second`; for each epoch `loss/train`, `loss/val` and its figures likewise.

    Points of steps stand where the number of the step can be divided by a fixed one, so that a resumed training
    puts its points where the first one would have.

    Args:
        places: that get the points.
        recipe: as YAML.
    """

    def __init__(self, places: Sequence[Place], recipe: str = "") -> None:
        self._places = list(places)
        self._recipe = recipe
        self._every = 1
        self._open = False
        self._rates: Callable[[], Mapping[str, float]] = dict
        self._number = self._last = 0
        self._loss, self._count, self._samples, self._since = 0.0, 0, 0, 0.0

    def watch(self) -> Watch:
        """Give what the training is to call."""
        return Watch(begin=self.begin, step=self.step, epoch=self.epoch, end=self.end)

    def begin(self, begin: Begin) -> None:
        """Open every place.

        Raises:
            TrainError: one can't be opened, which is told before anything is trained.
        """
        self._every = max(-(-begin.total // POINTS), 1) if begin.total else 10
        self._rates, self._number, self._last = begin.rates, begin.done, begin.done
        self._anew()
        self._open = True
        asked, self._places = self._places, []
        for place in asked:
            self._opened(place, begin)
            self._places.append(place)

    def _opened(self, place: Place, begin: Begin) -> None:
        try:
            place.open(begin, self._recipe)
        except Exception as error:  # of any kind: settings, network, disk
            raise TrainError(
                f"{place.name} can't be opened: {str(error).strip() or type(error).__name__}",
                where="train.log",
                hint=f"see the documentation of {place.name}, or leave it out of train.log",
            ) from error

    def step(self, moment: Moment) -> None:
        """Count a batch, and put a point now and then."""
        self._loss += moment.loss
        self._count += 1
        self._samples += moment.samples
        number = moment.number
        if number == self._last or number % self._every:
            self._number = number
            return
        self._number = self._last = number
        self._point(moment)

    def _point(self, moment: Moment) -> None:
        seconds = time.perf_counter() - self._since
        values = {"loss/step": self._loss / self._count}
        if moment.norm is not None:
            values["gradient/norm"] = moment.norm
        rates = self._rates() or {"largest": moment.lr}
        values |= {f"rate/{name}": rate for name, rate in rates.items()}
        if seconds > 0:
            values["speed/samples_per_second"] = self._samples / seconds
        self._anew()
        self._tell(lambda place: place.put(moment.number, values))

    def _anew(self) -> None:
        self._loss, self._count, self._samples, self._since = 0.0, 0, 0, time.perf_counter()

    def epoch(self, epoch: Epoch) -> None:
        """Put the figures of an epoch where its last step is."""
        values = {"epoch": float(epoch.number), "loss/train": epoch.train_loss, "loss/val": epoch.val_loss}
        values |= {f"{name}/train": value for name, value in epoch.train.items()}
        values |= {f"{name}/val": value for name, value in epoch.val.items()}
        self._tell(lambda place: place.put(self._number, values))
        self._tell(lambda place: place.flush())
        self._since = time.perf_counter()

    def end(self, history: History) -> None:
        """Close every place."""
        self.close(finished=history.ended != "interrupted")

    def close(self, *, finished: bool) -> None:
        """Close what is open; `finished` where nothing stopped the training before its time."""
        if self._open:
            self._open = False
            self._tell(lambda place: place.close(finished=finished))

    def _tell(self, call: Callable[[Place], object]) -> None:
        """Call every place; one that fails is left out from then on."""
        for place in list(self._places):
            try:
                call(place)
            except Exception as error:  # a full disk or a server that is gone stops no training
                self._places.remove(place)
                said = f"{place.name} gets no more figures: {error or type(error).__name__}\nTraining goes on."
                warnings.warn(said, TorchgraftWarning, stacklevel=2)
