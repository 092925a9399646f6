"""A callback for fastai: frozen parts stay still in a Learner, and faults are told."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from torchgraft.errors import TorchgraftWarning
from torchgraft.integrations.parts import Stages, Unfreezing, missing
from torchgraft.params.groups import NO_DECAY, Settings, parameter_groups
from torchgraft.params.still import Still
from torchgraft.rules.finding import Finding
from torchgraft.watching import Answer, Watched

try:
    from fastai.callback.core import Callback
    from fastai.learner import CancelStepException
except ImportError as error:
    raise missing("fastai") from error

if TYPE_CHECKING:
    from torch import nn

__all__ = ["GraftCallback", "splitter"]


class GraftCallback(Callback):  # type: ignore[misc]
    """Does in fastai's Learner what torchgraft's own training does; it is `learn.graft` there.

    - Parts whose parameters are all frozen stand still: fastai puts the whole model into training mode before each
      epoch. (fastai's own `freeze()` leaves the scale and shift of norms trainable; those go on moving, as it
      means them to.)
    - Gradients that are not finite stop the training before a weight or a statistic is spoilt, or are left out.
    - What `tg.watch` finds is told as a warning, and stands in `learn.graft.findings`.

    Args:
        unfreeze: epoch, from 1 -> selectors of what is trained from its start on; it is frozen until then.
        on_nan: `stop`, `skip` or `tell`, as `tg.watch` has it.
        every: steps between two looks at model and optimizer.
        replay: follow NaN to the operation that made it, by one more pass over the last batch.
    """

    name = "graft"
    order = 10.5  # after MixedPrecision (10) has unscaled the gradients, before GradientClip (11)
    run_valid = False

    def __init__(
        self,
        *,
        unfreeze: Unfreezing | None = None,
        on_nan: Answer = "stop",
        every: int = 100,
        replay: bool = False,
    ) -> None:
        super().__init__()
        self._unfreeze, self._on_nan, self._every, self._replay = unfreeze or {}, on_nan, every, replay
        self._still: Still | None = None
        self._stages: Stages | None = None
        self.watched: Watched | None = None

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was found in the last fit."""
        return self.watched.findings if self.watched is not None else ()

    def before_fit(self) -> None:
        """Begin to watch."""
        model = self.learn.model
        self._stages = Stages(model, self._unfreeze)
        self._still = Still(model, hook=False)
        self.watched = Watched(
            model,
            self.learn.opt,
            every=self._every,
            on_nan=self._on_nan,
            tell=_tell,
            replay=self._replay,
            hooked=False,
        )

    def before_train(self) -> None:
        """Unfreeze what this epoch trains, and put frozen parts, which fastai has just woken, to rest."""
        if self._stages is not None and self._still is not None:
            self._stages.hold(self.learn.epoch + 1)
            self._still.hold()

    def before_step(self) -> None:
        """Judge the gradients."""
        if self.watched is not None and not self.watched.step():
            raise CancelStepException

    def after_fit(self) -> None:
        """Leave nothing behind."""
        if self.watched is not None:
            self.watched.close()


def _tell(found: Finding) -> None:
    warnings.warn(f"\n{found}", TorchgraftWarning, stacklevel=2)


def splitter(
    settings: Settings | None = None, *, no_decay: str | Iterable[str] = NO_DECAY, **default: Any
) -> Callable[[nn.Module], list[list[nn.Parameter]]]:
    """Give a Learner parameter groups by selectors, as `g.groups` sorts them: `Learner(…, splitter=splitter(…))`.

    fastai keeps rates apart from groups: `learn.fit(n, lr=[…])` takes one for each, in the order of the groups.

    Args:
        settings: selector -> settings; those that select alike make one group.
        no_decay: as for `g.groups`.
        default: settings of all other parameters.
    """

    def split(model: nn.Module) -> list[list[nn.Parameter]]:
        groups = parameter_groups(model, settings or {}, default, no_decay=no_decay)
        return [list(group["params"]) for group in groups]

    return split
