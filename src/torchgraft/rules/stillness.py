"""Family P, further: frozen should mean unmoved, and training should mean training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from torchgraft.rules.finding import Finding, Fix, Severity
from torchgraft.rules.rule import Evidence, Rule
from torchgraft.rules.weights import by_module

if TYPE_CHECKING:
    from torchgraft.probes.sets import Norm
    from torchgraft.trace import Op, Trace

__all__: list[str] = []


def _with_fix(found: Finding, norms: list[Norm]) -> Finding:
    """Offer to make norms still for good, where plain PyTorch has a frozen form of them."""
    if any("Instance" in norm.kind for norm in norms):
        return found
    paths = tuple(norm.path for norm in norms)
    whole = f"{len(paths)} norms keep their statistics for good, in any training loop"
    return replace(found, fixes=(*found.fixes, _fix(whole, paths)))


def _fix(sentence: str, paths: tuple[str, ...]) -> Fix:
    from torchgraft.edits.eval_mode import EvalMode

    return Fix("eval_mode", sentence, (EvalMode(at=paths),))


class DriftingNorm(Rule):
    """The parameters of a BatchNorm are frozen, but its running statistics move in training mode.

    `requires_grad = False` stops the optimizer, not the statistics, so a "frozen" backbone drifts towards the new
    data. torchgraft's own training keeps frozen parts still; a loop of your own does not.
    """

    code = "P018"
    severity: ClassVar[Severity] = "note"
    title = "frozen norms whose statistics still move"
    case = "requires_grad = False on everything, then model.train(): running_mean moves with every batch"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look for frozen norms in training mode; it is a warning where an optimizer is ready to train."""
        sets = evidence.sets
        norms = [one for one in sets.norms if one.frozen and one.moves] if sets else []
        if sets is None or not norms:
            return
        last = "" if any("Instance" in norm.kind for norm in norms) else "; eval_mode for good"
        found = self.found(
            evidence.name,
            f"{len(norms)} {norms[0].kind}: {by_module([norm.path for norm in norms])}",
            "in training mode they normalise by the batch and update their running mean and variance",
            hint="g.train(…) keeps them still; in a loop of your own: tg.train_mode(model) instead of "
            f"model.train(), in a trainer: tg.still(model){last}",
        )
        yield _with_fix(replace(found, severity="warning") if sets.held and not sets.kept else found, norms)


class UndoneByTrain(Rule):
    """Norms are in evaluation mode inside a model in training mode: the next `model.train()` puts them back."""

    code = "P019"
    severity: ClassVar[Severity] = "note"
    title = "norms whose evaluation mode the next train() undoes"
    case = "bn.eval() once before the loop, model.train() at the start of every epoch"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look for norms that are still while the model trains."""
        sets = evidence.sets
        norms = [one for one in sets.norms if not (one.training or one.pinned)] if sets and sets.training else []
        if norms:
            found = self.found(
                evidence.name,
                f"{len(norms)} {norms[0].kind}: {by_module([norm.path for norm in norms])}",
                hint="call .eval() on them after every model.train(), or make it last: "
                "g.eval_mode(at='**:BatchNorm2d')",
            )
            yield _with_fix(found, norms)


_OTHERS_MOMENTUM = 0.9
"""From here on a momentum is that of TensorFlow, the share of the old statistics; torch's is that of the new
batch, 0.1 and less in torchvision and timm. (transformers' MobileNets have 0.997 and 0.9997, as in TensorFlow.)"""


class OddStatistics(Rule):
    """The statistics of norms don't follow the data: they never move, or are the last batch's alone.

    torch's `momentum` is the share of the newest batch: 0.01 where TensorFlow says 0.99. With momentum 0, or
    `track_running_stats = False` set afterwards, training normalises by the batch, and evaluation by statistics
    that stand still: the two drift apart.
    """

    code = "P025"
    severity: ClassVar[Severity] = "warning"
    title = "norms whose statistics do not follow the data"
    case = (
        "momentum=0.99, copied from Keras; momentum = 0.0 or track_running_stats = False to freeze the statistics"
    )

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look at the settings of the norms that are in training mode."""
        sets = evidence.sets
        norms = [one for one in sets.norms if one.training] if sets else []
        for told, hint, some in (
            (
                "keep their statistics while they normalise by the batch",
                "momentum=0.1 lets them follow; eval_mode keeps them still, and normalises by them",
                [one for one in norms if one.momentum == 0 or not one.tracks],
            ),
            (
                "forget all but the last batch: momentum is the share of the newest batch here",
                "momentum = 1 - that of TensorFlow: 0.01 for 0.99",
                [
                    one
                    for one in norms
                    if one.tracks and one.momentum is not None and one.momentum >= _OTHERS_MOMENTUM
                ],
            ),
        ):
            if some:
                values = sorted({f"{one.momentum:g}" for one in some if one.momentum is not None})
                yield self.found(
                    evidence.place(some[0].path if len(some) == 1 else ""),
                    f"{len(some)} {some[0].kind} (momentum {', '.join(values)}) {told}: "
                    f"{by_module([one.path for one in some])}",
                    hint=hint,
                )


class GradientsOff(Rule):
    """An optimizer is ready, but no operation is recorded for a backward pass: gradients were switched off before.

    Mostly `torch.set_grad_enabled(False)` for validation was never followed by `True`, or the training is called
    inside `with torch.no_grad()`.
    """

    code = "P028"
    severity: ClassVar[Severity] = "warning"
    title = "gradients are switched off"
    case = "torch.set_grad_enabled(False) before validation, and never True again: backward has nothing to do"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look at torch's own switch."""
        sets = evidence.sets
        if sets is not None and sets.held is not None and not sets.gradients:
            yield self.found(
                evidence.name,
                "torch.is_grad_enabled() is False where the optimizer was handed over",
                hint="with torch.no_grad(): around the validation alone, which ends by itself",
            )


class FrozenDropout(Rule):
    """Dropout is active in a frozen part: its features are random, although nothing in it is trained.

    Right before the trainable head it may be meant, as regularisation; between frozen layers it only adds noise,
    and features that are computed once and kept are those of one throw.
    """

    code = "P020"
    severity: ClassVar[Severity] = "note"
    title = "dropout on the features of a frozen part"
    case = "mobilenet: features.eval(), classifier frozen but for its last layer, classifier.2 still drops"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look for dropout on what only frozen parameters made."""
        sets = evidence.sets
        if sets is None or not sets.trainable or not sets.frozen:
            return
        found = dict.fromkeys(_in_still_parts(evidence), True) if evidence.live is not None else {}
        for run in evidence.runs:
            for path, inside in _drops(run, frozenset(sets.trainable)).items():
                found[path] = found.get(path, False) or inside
        active = frozenset(sets.modes)
        for inside in (True, False):
            paths = tuple(path for path in found if path in active and found[path] is inside)
            if paths:
                told = self._told(evidence, paths, inside=inside)
                yield replace(told, severity="warning") if inside and sets.held and not sets.kept else told

    def _told(self, evidence: Evidence, paths: tuple[str, ...], *, inside: bool) -> Finding:
        one, count = len(paths) == 1, len(paths)
        found = self.found(
            evidence.place(paths[0]) if one else evidence.name,
            f"{paths[0] if one else f'{count} layers ({by_module(paths)})'} "
            f"{'drops' if one else 'drop'} features that only frozen parameters made",
            "a frozen layer takes them" if inside else "a trainable layer takes them",
            hint=(f"eval_mode(at='{paths[0]}') switches it off" if one else "eval_mode switches them off")
            + " for good"
            + ("; in g.train(…) what lies between the layers of a frozen part is off" if inside else ""),
        )
        what = f"{paths[0]} becomes Identity" if one else f"{count} layers become Identity"
        return replace(found, fixes=(_fix(what, paths),))


def _in_still_parts(evidence: Evidence) -> Iterator[str]:
    """Find dropout within frozen parts without a trace, as a training that runs has none."""
    from torchgraft.surgery.stillness import still_parts

    norms = {norm.path for norm in evidence.sets.norms} if evidence.sets else set()
    parts = [path for path, _ in still_parts(evidence.model, lambda one: not one.requires_grad)]
    for path in evidence.sets.modes if evidence.sets else ():
        if path not in norms and any(path == part or path.startswith(f"{part}.") for part in parts):
            yield path


def _drops(run: Trace, trainable: frozenset[str]) -> dict[str, bool]:
    """Find dropout on what frozen parameters alone made, and whether frozen layers alone read what it gives."""
    made: set[int] = set()
    moving: set[int] = set()
    dropped: dict[int, set[str]] = {}
    found: dict[str, bool] = {}
    read: set[str] = set()
    for op in run.ops:
        learns = bool(trainable.intersection(op.params)) or bool(moving.intersection(op.inputs))
        (moving if learns else made).update(
            op.outputs if learns or op.params or made.intersection(op.inputs) else ()
        )
        came = {path for number in op.inputs for path in dropped.get(number, ())}
        if _is_dropout(op, run) and not learns and made.intersection(op.inputs):
            found.setdefault(op.path, False)
            came = {op.path}
        elif op.params:
            if trainable.intersection(op.params):
                read |= came
            else:
                found.update(dict.fromkeys(came, True))
            continue
        for number in op.outputs if came else ():
            dropped[number] = came
    return {path: inside and path not in read for path, inside in found.items()}


def _is_dropout(op: Op, run: Trace) -> bool:
    return "dropout" in op.name or run.kinds.get(op.path, "") in ("StochasticDepth", "DropPath")


class LeftInEval(Rule):
    """An optimizer is ready, but the whole model is in evaluation mode: dropout is off and statistics stand.

    Mostly `model.eval()` for validation was never followed by `model.train()`.
    """

    code = "P021"
    severity: ClassVar[Severity] = "warning"
    title = "the model is in evaluation mode"
    case = "model.eval() after the first epoch's validation; every further epoch trains without dropout"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look at the modes of what training changes; frozen norms are expected to be still."""
        sets = evidence.sets
        if sets is None or sets.held is None or sets.training or sets.modes:
            return
        frozen = {norm.path for norm in sets.norms if norm.frozen}
        meant = frozen | (set(sets.still) - {norm.path for norm in sets.norms} if sets.frozen else set())
        still = [path for path in sets.still if path not in meant]  # a frozen body without dropout is meant
        if still:
            yield self.found(
                evidence.name,
                f"{len(still)} norms and dropouts are switched off: {by_module(still)}",
                hint="model.train() at the start of every epoch",
            )
