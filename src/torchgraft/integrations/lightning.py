"""A callback for Lightning: frozen parts stay still, faults are told, and a resume freezes what was frozen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torchgraft.integrations.parts import Stages, Unfreezing, missing
from torchgraft.params.still import Still
from torchgraft.rules.finding import Finding
from torchgraft.watching import Answer, Watched

try:
    from lightning.pytorch import Callback
    from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
except ImportError as error:
    raise missing("lightning") from error

__all__ = ["GraftCallback"]


class GraftCallback(Callback):  # type: ignore[misc]
    """Does in Lightning's Trainer what torchgraft's own training does.

    - Parts whose parameters are all frozen stand still: BatchNorm keeps its statistics, dropout is off; what
      Lightning's own BackboneFinetuning does to frozen norms no longer makes outputs depend on the batch.
    - Gradients that are not finite stop the training before a weight or a statistic is spoilt, or are left out.
    - What `tg.watch` finds is told by Lightning's logger, and once to the experiment's.
    - After a resume, what was frozen is frozen and what was trained is trained: checkpoints hold no flags.

    Args:
        unfreeze: epoch, from 1 -> selectors of what is trained from its start on; it is frozen until then. Give
            `configure_optimizers` everything that will ever be trained: `g.groups(…)` of the model unfrozen.
        on_nan: `stop`, `skip` or `tell`, as `tg.watch` has it.
        every: steps between two looks at model and optimizer.
        flags: give parameters the flags of the checkpoint that is resumed.
        replay: follow NaN to the operation that made it, by one more pass over the last batch.
    """

    def __init__(
        self,
        *,
        unfreeze: Unfreezing | None = None,
        on_nan: Answer = "stop",
        every: int = 100,
        flags: bool = True,
        replay: bool = False,
    ) -> None:
        self._unfreeze, self._on_nan, self._every = unfreeze or {}, on_nan, every
        self._flags, self._replay = flags, replay
        self._saved: Mapping[str, Any] | None = None
        self._still: Still | None = None
        self._stages: Stages | None = None
        self.watched: Watched | None = None

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was found in the last fit."""
        return self.watched.findings if self.watched is not None else ()

    def state_dict(self) -> dict[str, Any]:
        """Give what a checkpoint keeps."""
        return {} if self.watched is None else self.watched.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep it until there is a model."""
        self._saved = state or None

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Set the flags; the optimizers are made already, and their states come next."""

        def tell(found: Finding) -> None:
            rank_zero_warn(str(found))
            for one in trainer.loggers:
                text = getattr(getattr(one, "experiment", None), "add_text", None)
                if text is not None:
                    text("torchgraft", f"```\n{found}\n```", trainer.global_step)

        self._stages = Stages(pl_module, self._unfreeze)
        self.watched = Watched(
            pl_module,
            trainer.optimizers,
            every=self._every,
            on_nan=self._on_nan,
            tell=tell,
            replay=self._replay,
            hooked=False,
        )
        if self._saved is not None:
            self._resume(pl_module, self._saved)
        self._still = Still(pl_module, hook=False)

    def _resume(self, pl_module: Any, saved: Mapping[str, Any]) -> None:
        before = {name: one.requires_grad for name, one in pl_module.named_parameters()}
        if self._flags and self.watched is not None:
            self.watched.load_state_dict(saved)
        other = sum(one.requires_grad != before[name] for name, one in pl_module.named_parameters())
        if other:
            rank_zero_info(
                f"torchgraft: {other} parameters are frozen or trained again as the checkpoint had them"
            )
        self._saved = None

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Unfreeze what this epoch trains."""
        if self._stages is not None:
            self._stages.hold(trainer.current_epoch + 1)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Put frozen parts into evaluation mode: Lightning and its callbacks put them back now and then."""
        if self._still is not None:
            self._still.hold()

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Judge the gradients: they are unscaled here, and not yet clipped."""
        if self.watched is None:
            return
        self.watched.step([one for group in optimizer.param_groups for one in group["params"]])
        step = trainer.global_step
        if trainer.loggers and (step + 1) % trainer.log_every_n_steps == 0:
            for one in trainer.loggers:
                one.log_metrics({"torchgraft/gradient_norm": self.watched.norm}, step)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Leave nothing behind."""
        if self.watched is not None:
            self.watched.close()
