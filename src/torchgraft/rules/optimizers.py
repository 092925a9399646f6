"""Family P, further: what the optimizer holds, against what the model holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from torchgraft.rules.finding import Finding, Severity
from torchgraft.rules.rule import Evidence, Rule
from torchgraft.rules.weights import by_module, heads

if TYPE_CHECKING:
    from torchgraft.probes.sets import Group, Held

__all__: list[str] = []


def _held(evidence: Evidence) -> Held | None:
    return evidence.sets.held if evidence.sets else None


class NotOptimised(Rule):
    """Trainable parameters are in no group of the optimizer: they get gradients and never move.

    Mostly the optimizer was built first: before layers were unfrozen, or before a head was put in.
    """

    code = "P010"
    severity: ClassVar[Severity] = "warning"
    title = "trainable parameters in no group of the optimizer"
    case = "gradual unfreezing: Adam(filter(requires_grad, …)) was built before layer4 was unfrozen"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Name them."""
        held = _held(evidence)
        if held is not None and held.absent and not _is_elsewhere(held):
            yield self.found(
                evidence.place(_common(held.absent)),
                f"{len(held.absent)} parameters: {by_module(held.absent)}",
                hint="optimizer.add_param_group({'params': …, 'lr': …}), or build it anew: "
                f"{held.kind}(g.groups(lr=…))",
            )


class StaleOptimizer(Rule):
    """The optimizer holds parameters that the model does not have: it moves tensors that nobody reads.

    A module was replaced after the optimizer was made, or the model was copied, or its parameters were made anew
    (`to_empty`, a second `load`).
    """

    code = "P011"
    severity: ClassVar[Severity] = "error"
    title = "the optimizer holds parameters that the model does not have"
    case = "the head was replaced after the optimizer was built; an optimizer over the model before deepcopy"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Count them, and tell whether it is another model's altogether."""
        held = _held(evidence)
        if held is None or not held.stale:
            return
        sizes = ", ".join(str(list(size)) for size in held.stale[:4])
        total = sum(group.size for group in held.groups)
        yield self.found(
            evidence.name,
            f"none of its {total} parameters is the model's: it was made for another one, or for a copy"
            if _is_elsewhere(held)
            else f"{len(held.stale)} of its {total} parameters are not the model's (sizes {sizes})",
            f"the model's own {by_module(held.absent)} {_stand(held.absent)} in no group" if held.absent else "",
            hint=f"build the optimizer after the last change of the model: {held.kind}(g.groups(lr=…))",
        )


def _stand(names: tuple[str, ...]) -> str:
    return "stands" if len(names) == 1 else "stand"


def _is_elsewhere(held: Held) -> bool:
    return bool(held.stale) and not any(group.names for group in held.groups)


def _common(names: tuple[str, ...]) -> str:
    """Give the module that all names lie in; the model itself where there is none."""
    split = [name.split(".")[:-1] for name in names]
    shared: list[str] = []
    for parts in zip(*split, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared)


class Twice(Rule):
    """A parameter stands in the groups twice: each step moves it twice."""

    code = "P012"
    severity: ClassVar[Severity] = "warning"
    title = "parameters that the optimizer holds twice"
    case = "two optimizers over one model, both with model.parameters(); a tied weight listed under both names"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Name them."""
        held = _held(evidence)
        if held is not None and held.twice:
            yield self.found(
                evidence.place(_common(held.twice)),
                f"{len(held.twice)} parameters: {by_module(held.twice)}",
                hint="g.groups({'head': {'lr': …}}, lr=…) puts each in exactly one group",
            )


class FrozenInGroup(Rule):
    """Frozen parameters are in the optimizer. They stay still only while they have no gradient at all.

    Momentum, running averages and weight decay move every parameter whose `grad` is a tensor, of zeros too; so
    what is frozen in mid-training goes on moving where gradients are zeroed and not dropped.
    """

    code = "P013"
    severity: ClassVar[Severity] = "note"
    title = "frozen parameters in the optimizer"
    case = "layers frozen after training began, zero_grad(set_to_none=False): momentum keeps moving them"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Tell those that move from those that wait."""
        held = _held(evidence)
        if held is None or not held.frozen:
            return
        moving = held.driven
        found = self.found(
            evidence.place(_common(moving or held.frozen)),
            f"{len(held.frozen)} frozen parameters are in a group: {by_module(held.frozen)}",
            f"{len(moving)} of them have a gradient still: the next step moves them{_driven_by(held)}"
            if moving
            else "",
            f"{len(held.remembered)} of them have a state: momentum or averages" if held.remembered else "",
            hint="p.grad = None and optimizer.state.pop(p, None) for each, or build the optimizer anew: "
            f"{held.kind}(g.groups(lr=…)) holds no frozen one",
        )
        yield replace(found, severity="warning") if moving else found


def _driven_by(held: Held) -> str:
    """Say what moves a parameter whose gradient is zero."""
    frozen = frozenset(held.frozen)
    groups = [group for group in held.groups if frozen.intersection(group.names)]
    drives = [name for name in ("momentum", "weight_decay", "betas") if any(g.setting(name) > 0 for g in groups)]
    return f", driven by {' and '.join(drives)}" if drives else ""


class MisshapenState(Rule):
    """The optimizer's state of a parameter has another size or lies on another device: the next step fails."""

    code = "P014"
    severity: ClassVar[Severity] = "error"
    title = "the optimizer's state does not fit its parameter"
    case = "parameter.data was given more rows; an optimizer state loaded from a model with another head"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Name them."""
        held = _held(evidence)
        if held is not None and held.misshapen:
            yield self.found(
                evidence.place(_common(held.misshapen)),
                f"{len(held.misshapen)} parameters have a state of another size: {by_module(held.misshapen)}",
                hint="optimizer.state.pop(p) for each; a changed layer starts with a state of its own",
            )
        if held is not None and held.apart:
            yield self.found(
                evidence.place(_common(held.apart)),
                f"{len(held.apart)} parameters have a state on another device: {by_module(held.apart)}",
                hint="model.to(device) first, then optimizer.load_state_dict(…): it puts each state beside its "
                "parameter",
            )


class EmptyGroup(Rule):
    """A group of the optimizer holds no parameter."""

    code = "P015"
    severity: ClassVar[Severity] = "warning"
    title = "a group of the optimizer is empty"
    case = "a filter by name that matches nothing: {'params': [p for n, p in … if 'haed' in n], 'lr': 0.1}"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Say which group, and its settings."""
        held = _held(evidence)
        for group in held.groups if held else ():
            if group.size == 0:
                yield self.found(
                    evidence.name,
                    f"group {group.number} (lr {group.setting('lr'):g}) has no parameter",
                    hint="g.groups({selector: {…}}) refuses a selector that matches nothing",
                )


_HIGHEST = {
    **dict.fromkeys(("Adam", "AdamW", "NAdam", "RAdam", "Adamax", "SparseAdam", "RMSprop"), 0.1),
    **dict.fromkeys(("SGD", "ASGD"), 1.0),
}
"""Learning rates from which on a first step surely does harm. Adam moves each weight by about its rate a step
(Kingma & Ba 2015, section 2.1), and 0.1 is more than the weights of a layer with 512 inputs are large (0.06, He et
al. 2015). SGD with momentum 0.9 is trained at 0.1 for 256 images, in proportion to the batch (Goyal et al. 2017):
1.0 would be a batch of 2,560, and there only after a warm-up."""


class LearningRate(Rule):
    """The learning rate is zero, or so high that the first steps destroy what was trained.

    A schedule that starts at zero (a warm-up) is not told: its groups know an `initial_lr`.
    """

    code = "P016"
    severity: ClassVar[Severity] = "warning"
    title = "a learning rate that can't be meant"
    case = "Adam(model.parameters(), lr=1.0); SGD at lr=1.0 with momentum 0.9, copied from a large-batch recipe"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Compare each group's rate with the highest that its optimizer stands."""
        held = _held(evidence)
        for group in held.groups if held else ():
            rate, most = group.setting("lr", 1e-3), _HIGHEST.get(held.kind, float("inf")) if held else 0.0
            scheduled = group.setting("initial_lr") > 0
            if not group.names or not (rate >= most or (rate == 0 and not scheduled)):
                continue
            yield self.found(
                evidence.name,
                f"group {group.number} ({by_module(group.names)}) has lr {rate:g}",
                f"it stays as it is: freeze it, or give it a rate ({held.kind if held else ''})"
                if rate == 0
                else "",
                hint="fine-tuning starts at 1e-3 for a new head and 1e-5 to 1e-4 for trained layers with Adam, "
                "ten times that with SGD",
            )


class Decayed(Rule):
    """Weight decay also pulls norms' scales and biases towards zero, which have no reason to be small.

    Only matrices are decayed in common recipes (He et al. 2019, Bag of Tricks, section 3.1). It is a warning where
    AdamW's decay, which acts without any gradient (Loshchilov & Hutter 2019), takes a tenth in 1,000 steps.
    """

    code = "P017"
    severity: ClassVar[Severity] = "note"
    title = "weight decay on norms and biases"
    case = "AdamW(model.parameters(), weight_decay=0.1): BatchNorm's scale shrinks with no gradient at all"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Find groups with decay that hold such parameters."""
        held, sets = _held(evidence), evidence.sets
        plain = frozenset(sets.plain).difference(sets.frozen) if sets else frozenset()
        groups = [one for one in held.groups if one.setting("weight_decay") > 0] if held else []
        names = tuple(name for group in groups for name in group.names if name in plain)
        if held is None or not names:
            return
        decay = max(group.setting("weight_decay") for group in groups)
        found = self.found(
            evidence.name,
            f"{len(names)} norm and bias parameters decay by {decay:g}: {by_module(names)}",
            hint=f"{held.kind.partition(' ')[0]}(g.groups(lr=…, weight_decay={decay:g})) spares them",
        )
        hard = held.kind == "AdamW" and any(_shrinks(group) for group in groups)
        yield replace(found, severity="warning") if hard else found


def _shrinks(group: Group) -> bool:
    """Tell whether decoupled decay alone takes a tenth in 1,000 steps."""
    return group.setting("lr") * group.setting("weight_decay") * 1000 >= 0.1


class Unscheduled(Rule):
    """A group came into the optimizer after the schedule was made, which never changes its rate."""

    code = "P034"
    severity: ClassVar[Severity] = "warning"
    title = "a group that the schedule does not know"
    case = "StepLR(optimizer, 10), then optimizer.add_param_group(…) for what was unfrozen"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look for groups without the first rate that a schedule writes into each."""
        held = _held(evidence)
        groups = [one for one in held.groups if one.names] if held and " and " not in held.kind else []
        late = [one for one in groups if "initial_lr" not in one.settings]
        if late and len(late) < len(groups):
            for group in late:
                yield self.found(
                    evidence.name,
                    f"group {group.number} ({by_module(group.names)}) stays at lr {group.setting('lr'):g}",
                    "the others follow a schedule",
                    hint="make the schedule after the last group, or have all groups from the start",
                )


class OtherState(Rule):
    """The optimizer was loaded with a state that goes by position, and its names say other positions.

    `optimizer.load_state_dict` gives the first parameter the first state, whatever it belonged to. Where sizes
    differ the next step fails; where they agree, one layer goes on with the momentum of another.
    """

    code = "P027"
    severity: ClassVar[Severity] = "error"
    title = "the optimizer's state is that of other parameters"
    case = "saved with the head's group first, loaded into an optimizer with the body's group first"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Compare the names that the state was saved with to those of the parameters that hold it."""
        held = _held(evidence)
        pairs = [pair for group in held.groups for pair in group.exchanged] if held else []
        if pairs:
            shown = [f"{own} has that of {saved}" for own, saved in pairs[:3]]
            yield self.found(
                evidence.name,
                f"{len(pairs)} parameters: {', '.join(shown)}{', …' if pairs[3:] else ''}",
                hint="torchgraft.params.optimizer.carry_state(saved, optimizer, model) goes by name",
            )


class SlowHead(Rule):
    """The output layer learns far more slowly than the layers before it: rates were given to the wrong groups.

    Fine-tuning wants it the other way round (Howard and Ruder 2018, ULMFiT, section 3.2): what is new and near the
    output moves most.
    """

    code = "P031"
    severity: ClassVar[Severity] = "note"
    title = "the output layer learns more slowly than the layers before it"
    case = "SGD([{'params': body, 'lr': 1e-1}, {'params': head, 'lr': 1e-3}]): the two rates exchanged"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Compare the rates of the groups."""
        held = _held(evidence)
        outputs = tuple(f"{path}." for path in heads(evidence) if path)
        rates: dict[bool, list[float]] = {True: [], False: []}
        for group in held.groups if held and " and " not in held.kind else ():  # two kinds have rates of their own
            for name in group.names:
                rates[name.startswith(outputs)].append(group.setting("lr"))
        if outputs and rates[True] and rates[False] and 0 < max(rates[True]) * 10 <= max(rates[False]):
            yield self.found(
                evidence.name,
                f"lr {max(rates[True]):g} for {', '.join(path[:-1] for path in outputs)}",
                f"lr {max(rates[False]):g} for what comes before",
                hint="g.groups({'head': {'lr': …}}, lr=…), the head's rate ten times the body's",
            )


class OddSettings(Rule):
    """A setting of the optimizer that no training stands: momentum that never fades, decay that eats the weights.

    With momentum 1 every gradient acts for ever. A decay of rate times `weight_decay` a step leaves
    (1 - lr·decay)^1000 of a weight after 1,000 steps: here less than a tenth (Loshchilov & Hutter 2019).
    """

    code = "P032"
    severity: ClassVar[Severity] = "warning"
    title = "a setting of the optimizer that can't be meant"
    case = "AdamW(…, lr=1e-3, weight_decay=10), a decay that was meant to be a share; momentum=1.0"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look at momentum and decay of each group."""
        held = _held(evidence)
        for group in held.groups if held else ():
            rate, decay = group.setting("lr"), group.setting("weight_decay")
            facts = [
                f"momentum {group.setting('momentum'):g} keeps every gradient for ever"
                if group.setting("momentum") >= 1
                else "",
                f"weight_decay {decay:g} at lr {rate:g} takes {1 - max(1 - rate * decay, 0) ** 1000:.0%} of each "
                "weight in 1,000 steps"
                if rate * decay >= 0.0023
                else "",
            ]
            if group.names and any(facts):
                yield self.found(
                    evidence.name,
                    f"group {group.number} ({by_module(group.names)})",
                    *facts,
                    hint="momentum is 0.9 mostly, weight_decay 1e-4 to 0.1",
                )
