"""`g.find_rate(data, …)` and `g.find_batch(data, …)`, and the same for a recipe."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torchgraft.errors import TrainError
from torchgraft.memory import memory, room_of
from torchgraft.plan import Planned, prepared
from torchgraft.searching.batch import BatchSearch, Size, advised, ladder, proved
from torchgraft.searching.rate import RateSearch, judged, range_test, reference
from torchgraft.searching.sessions import tried

if TYPE_CHECKING:
    from torchgraft.data import DataSet
    from torchgraft.graft import Graft
    from torchgraft.memory import Room
    from torchgraft.searching.trials import Trials

__all__ = ["batch_of", "find_batch", "find_rate", "rate_of"]


def find_rate(
    graft: Graft,
    data: str | DataSet,
    *,
    low: float = 1e-7,
    high: float = 10.0,
    tries: int = 100,
    **settings: Any,
) -> RateSearch:
    """Find a learning rate by a range test: `print(g.find_rate("folder:./flowers", batch=64))`.

    The model, its gradients and modes, and every generator are afterwards as they were, bit for bit.

    Args:
        graft: what would be trained.
        data: a data source, or an opened data set.
        low: the first rate.
        high: the last rate.
        tries: how many rates, each for one optimizer step.
        settings: the fields of the training plan, as `g.train` takes them.

    Raises:
        DataError, RecipeError, EditError: as `g.train` does.
        TrainError: it can't be trained, or the loss falls at no rate.
    """
    before = graft.recipe
    try:
        return rate_of(prepared(graft, data, settings), low=low, high=high, tries=tries)
    finally:
        graft.recipe = before


def rate_of(job: Planned, *, low: float = 1e-7, high: float = 10.0, tries: int = 100) -> RateSearch:
    """Run a range test by the plan of a job; see `find_rate`."""
    if not 0 < low < high or tries < 20:
        raise TrainError(
            f"no range: {tries} rates from {low:g} to {high:g}",
            where="rate",
            hint="20 rates at least, from a small one to a large one: --low 1e-7 --high 10 --steps 100",
        )
    plan = job.train
    with tried(job, plan) as session:
        own = reference(session)
        rates, losses, broke = range_test(session, low=low, high=high, steps=tries)
    groups = tuple((", ".join(one.at), one.lr) for one in plan.groups if one.lr is not None)
    return judged(rates, losses, broke=broke, own=own, groups=groups)


def find_batch(
    graft: Graft, data: str | DataSet, device: str | None = None, *, seconds: float = 60.0, **settings: Any
) -> BatchSearch:
    """Find the largest batch that fits, and the smallest that is as fast as any.

    The memory is predicted, then proved by training two steps for real; the model is afterwards as it was.

    Args:
        graft: what would be trained.
        data: a data source, or an opened data set.
        device: what it has to fit into: `24GB`, `24GiB`, `cuda`, `cpu`; that of the plan when left out.
        seconds: about so long speeds are measured.
        settings: the fields of the training plan, as `g.train` takes them.

    Raises:
        DataError, RecipeError, EditError: as `g.train` does.
        TrainError: it can't be trained, or there is no such device.
    """
    before = graft.recipe
    try:
        return batch_of(prepared(graft, data, settings), device, seconds=seconds)
    finally:
        graft.recipe = before


def batch_of(job: Planned, device: str | None = None, *, seconds: float = 60.0) -> BatchSearch:
    """Find the batch for a job; see `find_batch`."""
    from torchgraft.searching.trials import Trials

    trials = Trials(job)
    room = room_of(device or ("cpu" if trials.device.type == "cpu" else str(trials.device)))
    samples = _count(job)
    most = memory(job.graft, room.asked).largest or 0
    sizes = _Sizes(job, room, trials, seconds)
    largest = sizes.search(min(most, samples or most))
    power = 2 ** (largest.bit_length() - 1) if largest else 0
    known = sizes.known()
    return BatchSearch(
        name=job.graft.name,
        place=room.words,
        largest=largest,
        power=power,
        fastest=advised(known, 0),
        advised=advised(known, job.train.batch) or power,
        proved=sizes.proves,
        samples=samples,
        own=job.train.batch,
        accumulate=job.train.accumulate,
        optimizer=job.train.optimizer.name.lower(),
        rate=job.train.optimizer.lr,
        sizes=known,
    )


def _count(job: Planned) -> int:
    """Count the training samples; 0 where nobody knows, as of a stream."""
    try:
        return len(job.data.train)
    except TypeError:
        return 0


class _Sizes:
    """What is known of each size."""

    def __init__(self, job: Planned, room: Room, trials: Trials, seconds: float) -> None:
        self.job, self.room, self.trials, self.seconds = job, room, trials, seconds
        self.here = room_of("cpu") if trials.device.type == "cpu" else None
        self.proves = True
        self._predictions: dict[int, int] = {}
        self._sizes: dict[int, Size] = {}
        self._speed = 0.0

    def known(self) -> tuple[Size, ...]:
        """Give the sizes that were tried, small ones first."""
        return tuple(self._sizes[batch] for batch in sorted(self._sizes))

    def search(self, guess: int) -> int:
        """Measure speeds up to a predicted size, then prove it; gives the largest that fits."""
        if not guess:
            return 0
        end = time.perf_counter() + self.seconds
        for batch in ladder(guess, self.job.train.batch):
            left = end - time.perf_counter()
            if batch == guess or (self._speed and 4 * batch / self._speed > left) or not self._holds_here(guess):
                break
            self._time(batch)
        largest = proved(guess, self._runs)
        if largest and self.proves and (not self._speed or 4 * largest / self._speed < end - time.perf_counter()):
            self._time(largest)
        return largest

    def _time(self, batch: int) -> None:
        speed = self.trials.speed(batch)
        self._speed = speed or self._speed
        one = self._sizes.get(batch) or Size(batch, None, None, True)
        self._sizes[batch] = replace(one, fits=one.fits and speed is not None, speed=speed)

    def _runs(self, batch: int) -> bool:
        """Run two steps and tell whether they fitted; where this machine can't, the prediction tells."""
        predicted = self._predicted(batch)
        if not self._holds_here(batch) or not self._affords(batch):
            self.proves = False
            self._sizes[batch] = Size(batch, predicted, None, self.room.holds(predicted))
            return self.room.holds(predicted)
        peak = self.trials.peak(batch)
        fits = peak is not None and (self._is_device or self.room.holds(peak))
        self._sizes[batch] = Size(batch, predicted, peak, fits)
        return fits

    @property
    def _is_device(self) -> bool:
        """Whether the room is this device itself, which tells by itself when it is full."""
        return self.trials.device.type == "cuda" and self.room.asked.startswith("cuda")

    def _holds_here(self, batch: int) -> bool:
        """Tell whether this machine itself has the memory: the room that is asked may be larger."""
        return self.here is None or self.here.holds(self._predicted(batch))

    def _affords(self, batch: int) -> bool:
        return not self._speed or 2 * batch / self._speed < 4 * self.seconds

    def _predicted(self, batch: int) -> int:
        if batch not in self._predictions:
            self._predictions[batch] = memory(self.job.graft, help=False, batch=batch).peak
        return self._predictions[batch]
