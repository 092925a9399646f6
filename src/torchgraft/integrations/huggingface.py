"""A callback for the Trainer of transformers: frozen parts stay still in it, and faults are told."""

from __future__ import annotations

from typing import Any

from torchgraft.integrations.parts import Stages, Unfreezing, missing
from torchgraft.params.still import Still
from torchgraft.rules.finding import Finding
from torchgraft.watching import Answer, Watched

try:
    from transformers import TrainerCallback
    from transformers.utils import logging
except ImportError as error:
    raise missing("transformers accelerate") from error

__all__ = ["GraftCallback"]


class GraftCallback(TrainerCallback):  # type: ignore[misc]
    """Does in the Trainer of transformers what torchgraft's own training does.

    - Parts whose parameters are all frozen stand still: the Trainer calls `model.train()` before each batch, so
      they are put into evaluation mode by a hook before the forward pass.
    - Gradients that are not finite stop the training before a weight or a statistic is spoilt, or are left out.
      (The Trainer clips first, which spreads NaN to all gradients; `replay` finds where it began all the same.)
    - What `tg.watch` finds is told by transformers' logger, and stands in `state.log_history`.

    Args:
        unfreeze: epoch, from 1 -> selectors of what is trained from its start on; it is frozen until then, after
            the Trainer has made its optimizer over everything. A resumed training does it again by its epoch.
        on_nan: `stop`, `skip` or `tell`, as `tg.watch` has it.
        every: steps between two looks at model and optimizer.
        replay: follow NaN to the operation that made it, by one more pass over the last batch.
    """

    def __init__(
        self,
        *,
        unfreeze: Unfreezing | None = None,
        on_nan: Answer = "stop",
        every: int = 100,
        replay: bool = False,
    ) -> None:
        self._unfreeze, self._on_nan, self._every, self._replay = unfreeze or {}, on_nan, every, replay
        self._still: Still | None = None
        self._stages: Stages | None = None
        self.watched: Watched | None = None

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was found in the last training."""
        return self.watched.findings if self.watched is not None else ()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin to watch: the optimizer is made, and its state is loaded where a training is resumed."""
        model = kwargs["model"]
        logger = logging.get_logger("transformers.torchgraft")

        def tell(found: Finding) -> None:
            if state.is_world_process_zero:
                logger.warning("%s", found)
            state.log_history.append(
                {"torchgraft": found.code, "finding": str(found), "step": state.global_step, "epoch": state.epoch}
            )

        self._stages = Stages(model, self._unfreeze)
        self._stages.hold(int(state.epoch or 0) + 1)
        self.watched = Watched(
            model, kwargs["optimizer"], every=self._every, on_nan=self._on_nan, tell=tell, replay=self._replay
        )
        self._still = Still(model)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Unfreeze what this epoch trains."""
        if self._stages is not None:
            self._stages.hold(int(round(state.epoch or 0, 6)) + 1)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave nothing behind."""
        if self.watched is not None:
            self.watched.close()
        if self._still is not None:
            self._still.remove()
