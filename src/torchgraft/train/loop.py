"""The training loop: torch's engines, our bookkeeping."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from torchgraft.errors import DataError, TrainError
from torchgraft.train.checkpointing import checkpointed, checkpointed_modules
from torchgraft.train.identity import check_identity, identity
from torchgraft.train.looking import Looks
from torchgraft.train.news import check_places
from torchgraft.train.opening import begun, session_for
from torchgraft.train.optimise import optimizer_of
from torchgraft.train.random import seeded
from torchgraft.train.rates import starting
from torchgraft.train.session import Session
from torchgraft.train.stop import Stop, stoppable
from torchgraft.train.watch import SILENT, Watch
from torchgraft.train.world import ALONE, World

if TYPE_CHECKING:
    from torchgraft.data import DataSet
    from torchgraft.graft import Graft
    from torchgraft.history import History
    from torchgraft.preprocess import Preprocess
    from torchgraft.tokens import Texts
    from torchgraft.train.saving import Saver
    from torchgraft.train.snapshot import Snapshot
    from torchgraft.trainplan import TrainPlan

__all__ = ["check_training", "device_of", "fit"]


def device_of(plan: TrainPlan) -> torch.device:
    """Give the device of the plan; `auto` takes an accelerator where there is one.

    Raises:
        TrainError: there is no such device here.
    """
    if plan.device == "auto":
        found = torch.accelerator.current_accelerator(check_available=True)
        return found or torch.device("cpu")
    try:
        torch.zeros(1, device=plan.device).tolist()  # on `meta` there is nothing to read
        return torch.device(plan.device)
    except (RuntimeError, AssertionError, ImportError) as error:
        raise TrainError(
            f"there is no device '{plan.device}' here", where="train.device", hint="take auto, or cpu"
        ) from error


def check_training(plan: TrainPlan) -> None:
    """Try the device, and the optimizer on one parameter, before anything large is loaded.

    Raises:
        TrainError: there is no such device or optimizer, or it does not take its settings.
    """
    device_of(plan)
    check_places(plan.log)
    optimizer_of(plan, [{"params": [nn.Parameter(torch.zeros(1, 1))]}])


def fit(
    graft: Graft,
    data: DataSet,
    plan: TrainPlan,
    preprocess: Preprocess | Texts | None,
    watch: Watch = SILENT,
    *,
    saver: Saver | None = None,
    resume: bool = False,
    world: World = ALONE,
    loss: Callable[[Any, Any], Tensor] | None = None,
) -> History:
    """Train a graft's model in place, by seed the same every time on the same machine.

    Frozen parts stay in evaluation mode, so their BatchNorm statistics and dropout do not move. At the end the
    model holds the best or the last state, as the plan says; after Ctrl-C it holds the state it had then.

    Args:
        graft: what is trained.
        data: its samples.
        plan: how.
        preprocess: makes tensors of samples.
        watch: is told what happens.
        saver: keeps states on disk, to go on from.
        resume: go on from the state that the saver has.
        world: the processes that train together.
        loss: one that was handed over from Python, or a trusted one that the plan names.

    Raises:
        TrainError: nothing can be trained, the data do not fit the head, the loss is not finite any more, or there
            is no state to go on from.
    """
    device = world.device or device_of(plan)
    again = checkpointed_modules(graft.module, plan.checkpointing, roles=graft.roles)
    with starting(graft, plan) as steps, seeded(world.seed(graft.recipe.seed)), stoppable() as stop:
        _check_trainable(graft)
        session = session_for(graft, data, plan, preprocess, device, steps=steps, world=world, loss=loss)
        if saver is not None:
            for cache in session.caches:
                cache.folder = saver.folder
            _prepare(saver, session, identity(session, data), resume=resume)
        with checkpointed(tuple(again.values())):
            return _Run(session, watch, saver, stop).to_the_end()


def _prepare(saver: Saver, session: Session, about: dict[str, Any], *, resume: bool) -> None:
    """Let the saver write down what is trained, and go on from what it has."""
    saver.about = about
    if resume:
        snapshot, best = saver.load()
        check_identity(about, snapshot.notes["about"], str(saver.folder))
        if session.spread is not None or "processes" in snapshot.notes:
            from torchgraft.train.many.states import fitted

            snapshot, best = fitted(session, snapshot, best)
        session.restore(snapshot, best)


def _check_trainable(graft: Graft) -> None:
    if not any(parameter.requires_grad for parameter in graft.module.parameters()):
        raise TrainError("every parameter is frozen", where=graft.name, hint="unfreeze: {at: head}")


class _Run:
    """One run of the loop, from where the session stands."""

    def __init__(self, session: Session, watch: Watch, saver: Saver | None, stop: Stop) -> None:
        self.session, self.saver, self.stop = session, saver, stop
        self.watch = watch if session.world.writes else SILENT
        self.looks = Looks(session, self.watch.found, silent=self.watch is SILENT)

    def to_the_end(self) -> History:
        session = self.session
        self.watch.begin(begun(session))
        ended: Literal["finished", "interrupted", "early"] = "finished"
        try:
            while not session.is_over and ended == "finished":
                if self._epoch() and not session.is_over:
                    ended = "interrupted"
            if session.is_early:
                ended = "early"
        except KeyboardInterrupt:  # a second Ctrl-C, or one outside of the main thread
            ended = "interrupted"
        finally:
            if self.saver is not None:
                self.saver.close()
        history = session.finish(ended)
        self.watch.end(history)
        return history

    def _epoch(self) -> bool:
        """Run what is left of an epoch, and tell whether somebody wants it to end."""
        session, watch = self.session, self.watch
        session.open_epoch()
        self.looks.open_epoch()
        for batch in session.batches():
            watch.step(session.step(batch))
            if session.caches[0].news:
                watch.note(session.caches[0].told())
            if not session.between:
                continue
            if self.looks.left:
                self.looks.take()
            stopped, due = self._asked()
            if stopped or due:
                self._save(wait=stopped)
            if stopped:
                return True
            if session.number == session.plan.steps:
                break
        if session.batch == 0:
            raise DataError("there is not one sample to train on", where=session.plan.data)
        watch.epoch(session.close_epoch())
        stopped, due = self._asked(epoch=True)
        if stopped or due:
            self._save(wait=stopped)
        return stopped

    def _asked(self, *, epoch: bool = False) -> tuple[bool, ...]:
        """Tell whether to stop, and whether to save, here and now: in every process, once it is so in one."""
        session, saver = self.session, self.saver
        shares = session.spread is not None and session.spread.shares
        last = epoch and shares and session.is_over  # it may fit no single machine
        return session.world.any(self.stop.asked, saver is not None and (last or saver.due(epoch=epoch)))

    def _save(self, *, wait: bool = False) -> None:
        if self.saver is not None:
            self.saver.save(self._snapshot(), self.session.best_state, wait=wait)
            if wait:
                self.watch.saved(self.saver.state)

    def _snapshot(self) -> Snapshot:
        if self.session.spread is None:
            return self.session.snapshot()
        from torchgraft.train.many.states import taken

        return taken(self.session)
