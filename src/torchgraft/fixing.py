"""Mend what a check found, where no edit explains the fault: candidates are tried, and the ones that work offered.

Every proposal of `fixes/` is applied to the graft, traced to the end in evaluation and training mode, judged, and
taken back. Those that leave no error are ranked: trained weights kept, then what happens to pixels and features,
then new parameters, then how little is moved.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from torchgraft.edits.base import Edit
from torchgraft.errors import EditError, TorchgraftError
from torchgraft.fixes import Edits, Fault, Proposal, causes
from torchgraft.fixes.odd import is_odd_norm
from torchgraft.fixes.price import is_shared, lost, turns_back
from torchgraft.fixes.proof import proven
from torchgraft.rules import Evidence, Finding, Fix, judge

if TYPE_CHECKING:
    from torchgraft.graft import Graft
    from torchgraft.trace import Trace

__all__ = ["mend", "prove", "with_fixes"]

_STEPS = 8
"""So many faults in a row are mended by one fix, such as one at each level of a U-Net."""

_TRIALS = 40
"""So many steps are tried for one proposal."""

_WIDTH = 3
"""At each further step, so many ways are followed, the cheapest first."""

_ENOUGH = 2
"""With so many fixes that keep every weight, none is looked for that loses some on its further way."""

_REFUSED = (TorchgraftError, RuntimeError, ValueError, TypeError, IndexError)
"""What an edit that does not fit raises: its own refusal, or torch's where a layer can't be built."""

_OUTSIDE = frozenset({"S024"})
"""Findings whose cause no edit of the model takes away: a hook of the user's."""

_ROUNDS = 16
"""So many findings are mended in one go."""


@dataclass(frozen=True)
class _Tried:
    """A fix that works, with its rank: the least first."""

    fix: Fix
    name: str
    rank: tuple[int, ...]
    call: Callable[[Any], Any] | None = None


def with_fixes(graft: Graft, findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Give the findings with the fixes that were tried and work, best first; the graft is as it was."""
    if not any(map(_mendable, findings)):
        return tuple(findings)
    evidence = graft.evidence()
    before = judge(evidence)
    return tuple(
        dataclasses.replace(
            one, fixes=(*one.fixes, *(tried.fix for tried in _tried(graft, one, evidence, before)))
        )
        if _mendable(one)
        else one
        for one in findings
    )


def mend(graft: Graft, which: int | str | None = None) -> Graft:
    """Apply one fix that a finding offers, or the best of each until no error is left.

    Left to itself it takes the best fix of every error, and of a warning where that loses no trained weight, or
    only those of an output layer that a new one was meant to replace.

    Args:
        graft: the model under change; the edits go into its recipe.
        which: a fix of the first finding that offers any, counted from 1, or a name that any finding offers; what
            remains is then mended at best.

    Raises:
        EditError: there is no such fix, or an error has none; the model is as it was.
    """
    mark, example = graft._mark(), graft._example
    try:
        if which is not None:
            _take(graft, _asked(graft, which))
        for _ in range(_ROUNDS):
            step = _next(graft)
            if step is None:
                break
            _take(graft, step)
    except BaseException:
        graft._back_to(mark)
        graft._example = example
        raise
    graft._undone.clear()
    return graft


def prove(graft: Graft) -> Finding | None:
    """Run a double of the model once for real, forward and backward, on random values of the example's shapes.

    Returns:
        nothing where the outputs have the shapes of the trace and all gradients are finite; else what is wrong.
    """
    wanted = graft.trace(train=True).output_shapes()
    return proven(graft.module, graft._inputs(), wanted, graft.name)


def _asked(graft: Graft, which: int | str) -> _Tried:
    """Find the fix that was asked for among all that the findings offer."""
    names: list[str] = []
    evidence = graft.evidence()
    found = judge(evidence)
    for finding in found:
        offers = [_Tried(fix, fix.name, ()) for fix in finding.fixes]
        offers += _tried(graft, finding, evidence, found) if _mendable(finding) else []
        if isinstance(which, str):
            chosen = next((one for one in offers if one.fix.name == which), None)
        else:
            chosen = offers[which - 1] if 0 < which <= len(offers) else None
        if chosen is not None:
            return chosen
        names += [one.fix.name for one in offers if one.fix.name not in names]
        if isinstance(which, int) and (offers or finding.is_error):
            break  # numbers count the fixes of one finding
    raise EditError(
        f"no finding offers a fix '{which}'" if isinstance(which, str) else f"there is no fix {which}",
        where=graft.name,
        hint=f"one of {', '.join(names)}" if names else "none is offered: check() shows what was found",
    )


def _next(graft: Graft) -> _Tried | None:
    """Choose the fix of the first finding that is taken next; None where nothing is left to mend."""
    evidence = graft.evidence()
    found = judge(evidence)
    for finding in found:
        if not _mendable(finding):
            continue
        best = next(iter(_tried(graft, finding, evidence, found, quick=True)), None)
        if best is not None and (finding.is_error or not best.rank[0] or _gives_up(finding)):
            return best
        if finding.is_error:
            raise EditError(
                f"no fix fits: {finding.title}", where=finding.where, hint=finding.hint, findings=(finding,)
            )
    return None


def _take(graft: Graft, step: _Tried) -> None:
    for edit in step.fix.edits:
        graft._do(edit)
    if step.call is not None:
        _call_with(graft, step.call)


def _mendable(finding: Finding) -> bool:
    """Tell whether fixes are looked for: errors, and warnings that a cause has a sure fix for."""
    return finding.is_error or any(finding.code in cause.warnings for cause in causes())


def _gives_up(finding: Finding) -> bool:
    """Tell whether the fix of a warning is to give up trained weights."""
    return any(finding.code in cause.gives_up for cause in causes())


# trying


def _tried(
    graft: Graft, finding: Finding, evidence: Evidence, before: Sequence[Finding], *, quick: bool = False
) -> list[_Tried]:
    """Try every proposal for a finding, when quick up to one that costs nothing, and rank those that work.

    Args:
        graft: the model as it stands.
        finding: what is to be mended.
        evidence: what shows it.
        before: all that the evidence shows.
        quick: stop at a fix that costs nothing.
    """
    if finding.code in _OUTSIDE:
        return []
    bench = _Bench(graft, finding, evidence, before, quick=quick)
    found: list[_Tried] = []
    for order, proposal in enumerate(_proposals(bench.fault)):
        tried = bench.tries(proposal, order)
        if tried is not None:
            found.append(tried)
            if tried.call is not None or (quick and not any(tried.rank[:4])):
                break  # the model is as it should be, or nothing can cost less
    return _named(sorted(found, key=lambda one: one.rank))


def _proposals(fault: Fault) -> Iterator[Proposal]:
    for cause in causes():
        yield from cause().proposals(fault)


def _named(found: list[_Tried]) -> list[_Tried]:
    """Number fixes that share a name, and drop those that do the same."""
    kept: list[_Tried] = []
    for one in found:
        if any(one.fix.edits == other.fix.edits and one.fix.edits for other in kept):
            continue
        same = sum(other.name == one.fix.name for other in kept)
        name = f"{one.fix.name}-{same + 1}" if same else one.fix.name
        kept.append(dataclasses.replace(one, fix=dataclasses.replace(one.fix, name=name)))
    return kept


class _Bench:
    """A graft on which proposals for one finding are tried."""

    def __init__(
        self, graft: Graft, finding: Finding, evidence: Evidence, before: Sequence[Finding], *, quick: bool
    ) -> None:
        self._graft = graft
        self._quick = quick
        self._finding = finding
        self._before = {(one.code, one.where) for one in before}
        self._tensors = dict(graft.module.named_parameters())
        self._count = len(graft.recipe.edits)
        self._left = 0
        self._kept = 0
        self._taken: list[Proposal] = []
        self.fault = self._fault(finding, _showing(evidence, finding))

    @property
    def _edits(self) -> Edits:
        """The edits of the way that is being tried."""
        return self._graft.recipe.edits[self._count :]

    def _fault(self, finding: Finding | None, run: Trace) -> Fault:
        shapes = tuple(run.values[number].shape for number in run.inputs)
        return Fault(finding, self._graft.module, run, shapes, self._edits)

    def tries(self, proposal: Proposal, order: int) -> _Tried | None:
        """Try the ways of a proposal in order; the first that works is described and ranked."""
        graft = self._graft
        for way in proposal.ways:
            mark, example = graft._mark(), graft._example
            try:
                if self._works(way, proposal):
                    return self._described(proposal, order)
            except _REFUSED:
                continue
            finally:
                graft._back_to(mark)
                graft._example = example
        return None

    def _works(self, way: Sequence[Edit], proposal: Proposal) -> bool:
        """Apply a way; where the pass then breaks off further on, go on with what mends that."""
        self._left, self._taken = _TRIALS, [proposal]
        broke = self._stuck()
        self._apply(way, proposal)
        if self._quick and self._kept and self._rank(self._taken, 0)[0]:
            return False  # it can't be the best
        return self._ends(self._stuck(), (broke,) if broke is not None else ())

    def _apply(self, way: Sequence[Edit], proposal: Proposal) -> None:
        self._left -= 1
        for edit in way:
            self._graft._do(edit)
        if proposal.call is not None:
            _call_with(self._graft, proposal.call)

    def _stuck(self) -> Trace | None:
        """Give the first trace that breaks off."""
        runs = (self._graft.trace(train=train) for train in (False, True))
        return next((run for run in runs if run.mismatch is not None), None)

    def _ends(self, stuck: Trace | None, before: tuple[Trace, ...]) -> bool:
        """Tell whether the model now fits, by further steps where the pass came further than before."""
        if stuck is None:
            return self._accepts(self._graft.evidence())
        if len(before) > _STEPS or self._left <= 0 or _break_of(stuck) in map(_break_of, before):
            return False
        steps = sorted(self._steps(stuck, before), key=lambda step: step[0])
        for rank, way, proposal in steps[:_WIDTH]:
            if rank[0] and self._kept >= _ENOUGH:
                break
            mark = self._graft._mark()
            self._apply(way, proposal)
            self._taken.append(proposal)
            if self._ends(self._stuck(), (*before, stuck)):
                return True
            self._taken.pop()
            self._graft._back_to(mark)
        return False

    def _steps(self, stuck: Trace, before: tuple[Trace, ...]) -> Iterator[tuple[tuple[int, ...], Edits, Proposal]]:
        """Try every way out of the next break for one step, and give those that come further, with their rank."""
        graft, met = self._graft, {_break_of(run) for run in (*before, stuck)}
        for order, proposal in enumerate(_proposals(self._fault(None, stuck))):
            for way in proposal.ways:
                if proposal.call is not None or self._left <= 0:
                    break
                mark = graft._mark()
                try:
                    self._apply(way, proposal)
                    now = self._stuck()
                    if (now is None or _break_of(now) not in met) and not turns_back(graft.recipe.edits):
                        yield self._rank([*self._taken, proposal], order), way, proposal
                        break
                except _REFUSED:
                    continue
                finally:
                    graft._back_to(mark)

    def _rank(self, taken: Sequence[Proposal], order: int) -> tuple[int, ...]:
        """Rank the model as it stands: weights lost, harm to what passes, new parameters, keys moved, order."""
        edits = self._edits
        gone = 0 if self._is_odd() else self._lost() + sum(one.scrambles for one in taken)
        return (
            gone,
            max(one.harm for one in taken),
            max(self._gained(), 0),
            sum(len(edit.keys()) for edit in edits),
            order,
        )

    def _lost(self) -> int:
        return lost(self._tensors, dict(self._graft.module.named_parameters()), self._edits)

    def _is_odd(self) -> bool:
        """Tell whether all that was done is to resize a norm that fitted neither of its neighbours."""
        runs = (self._graft.trace(train=train) for train in (False, True))
        return len(self._edits) == 1 and all(is_odd_norm(self._edits[0], run) for run in runs)

    def _gained(self) -> int:
        held = sum(one.numel() for one in self._graft.module.parameters())
        return held - sum(one.numel() for one in self._tensors.values())

    def _accepts(self, evidence: Evidence) -> bool:
        """Tell whether the finding is gone, none came, every row is a sample, and no shared layer was wrapped."""
        found = judge(evidence)
        places = {(one.code, one.where) for one in found}
        new = [one for one in found if one.is_error and (one.code, one.where) not in self._before]
        key = (self._finding.code, self._finding.where)
        folded = any(one.code == "S010" for one in found)
        shared = any(is_shared(edit, run) for edit in self._graft.recipe.edits for run in evidence.runs)
        return key not in places and not new and not folded and not shared

    def _described(self, proposal: Proposal, order: int) -> _Tried:
        edits = self._edits
        rank = self._rank(self._taken, order)
        self._kept += not rank[0]
        kept = f"loses {rank[0]:,} trained weights" if rank[0] else "keeps every trained weight"
        if self._is_odd() and (unused := self._lost()):
            kept = f"loses {unused:,} weights of a norm that fits neither of its neighbours"
        parts = [*_told(edits), *dict.fromkeys(one.says for one in self._taken if one.says)]
        price = f"   {self._gained():+,} parameters, {kept}" if edits else ""
        return _Tried(Fix(proposal.name, "; ".join(parts) + price, edits), proposal.name, rank, proposal.call)


def _told(edits: Sequence[Edit]) -> list[str]:
    more = [f"and {len(edits) - 3} more"] if len(edits) > 3 else []
    return [edit.sentence() for edit in edits[:3]] + more


def _showing(evidence: Evidence, finding: Finding) -> Trace:
    """Give the trace that shows a finding: the one that broke off at its place, or the first."""
    for run in evidence.runs:
        if run.mismatch is not None and evidence.place(run.mismatch.path) == finding.where:
            return run
    return next((run for run in evidence.runs if run.mismatch is not None), evidence.runs[0])


def _break_of(run: Trace) -> tuple[object, ...] | None:
    """Give what tells one break from another."""
    at = run.mismatch
    if at is None:
        return None
    return (at.path, at.op, tuple(run.values[number].shape for number in at.inputs), at.message, run.train)


def _call_with(graft: Graft, call: Callable[[Any], Any]) -> None:
    """Take another example: what the call should have been given."""
    given = graft._inputs()
    made = call(given if isinstance(given, torch.Tensor) else given[0])
    if made.shape[0] == 1 and graft.trace(train=True).mismatch is not None:
        made = made.expand(2, *made.shape[1:])  # BatchNorm can't be judged on one sample in training mode
    graft._example = made
    graft._looks.forget()
