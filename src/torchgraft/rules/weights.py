"""Family W: do given weights have their places in the model, by name and by size?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from torchgraft.rules.finding import Finding, Severity
from torchgraft.rules.rule import Evidence, Rule
from torchgraft.weights.kinds import peculiar

if TYPE_CHECKING:
    from torchgraft.weights.fit import Fit
    from torchgraft.weights.plan import Misfit

__all__ = ["by_module", "heads", "known_fit"]

_LOAD = "g.load_weights(weights), with g = tg.load(model, input=…), does this and tells what became of each tensor"


def known_fit(evidence: Evidence) -> Fit | None:
    """Give the places of given weights, unless they are plainly those of another model."""
    fit = evidence.match.fit if evidence.match else None
    return None if fit is None or fit.plan.is_other else fit


def by_module(names: Iterable[str], limit: int = 4) -> str:
    """Write many names short: `layer1 (24), fc (2), …`."""
    counts = Counter(name.partition(".")[0] if "." in name else name for name in names)
    if sum(counts.values()) <= limit:
        return ", ".join(names)
    shown = [f"{home} ({count})" for home, count in counts.most_common(limit)]
    return ", ".join(shown) + (", …" if len(counts) > limit else "")


def heads(evidence: Evidence) -> tuple[str, ...]:
    """Give the paths of the layers that make the outputs, auxiliary ones included."""
    from torchgraft.trace.layers import output_layers

    return tuple(dict.fromkeys(path for run in evidence.runs for path in output_layers(run)))


def _unless_held(evidence: Evidence, finding: Finding) -> Finding:
    """Make a finding about names a note where the model holds the values all the same: they were seen to."""
    held = evidence.match is not None and evidence.match.held
    return replace(finding, severity="note") if held else finding


class UnreadableWeights(Rule):
    """The weights can't be read: no such file, cut off, a web page, pickled code, an optimizer's state.

    Files are opened on the CPU whatever device they were saved on, and code in them is never run.
    """

    code = "W001"
    severity: ClassVar[Severity] = "error"
    title = "the weights can't be read"
    case = "a checkpoint of 2,000 bytes after an interrupted save; torch.save(model) instead of its state dict"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Say what reading them met."""
        match = evidence.match
        if match is not None and match.problem:
            problem = match.problem.removeprefix(f"{self.title}: ")
            yield self.found(evidence.name, problem, match.origin, hint=match.hint)


class WholeCheckpoint(Rule):
    """A training checkpoint was given where a state dict belongs: the weights lie inside, beside other things."""

    code = "W002"
    severity: ClassVar[Severity] = "error"
    title = "a whole checkpoint where weights belong"
    case = 'model.load_state_dict({"epoch": 3, "state_dict": …, "optimizer": …})'

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Say where in it the weights lie."""
        fit = evidence.match.fit if evidence.match else None
        if fit is not None and fit.found.path:
            beside = ", ".join(fit.found.beside[:6])
            others = "" if fit.found.parts else " and ".join(one.path for one in fit.also if not one.parts)
            part = fit.found.parts[0] if fit.found.parts else ""
            way = "".join(f'["{key}"]' for key in (*fit.found.inside, part) if key)
            finding = self.found(
                evidence.name,
                f"the weights ({len(fit.found.state)} tensors) lie in {fit.found.path}",
                f"beside them: {beside}" if beside else "",
                f"weights lie in {others} too" if others else "",
                hint=f"model{f'.{part}' if part else ''}.load_state_dict(checkpoint{way})"
                f"{', and so on' if part else ''}; {_LOAD}",
            )
            yield _unless_held(evidence, finding)


class Prefixed(Rule):
    """Names carry a prefix that the model's do not, or lack one: DataParallel, DDP, torch.compile, Lightning,
    a backbone inside a larger model. With `strict=False` nothing is loaded, and nothing is said.
    """

    code = "W003"
    severity: ClassVar[Severity] = "error"
    title = "names of the weights carry another prefix"
    case = "DataParallel(model).state_dict() loaded with strict=False: 0 of 122 tensors arrive"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Name the prefixes, and what fits with and without them."""
        fit = known_fit(evidence)
        if fit is not None and fit.plan.renamings:
            plan = fit.plan
            finding = self.found(
                evidence.name,
                *(str(one) for one in plan.renamings),
                f"as they are {plan.direct} of {plan.size} tensors have their place, "
                f"without the prefix {len(plan.taken)}",
                hint=f"change the prefix; {_LOAD}",
            )
            yield _unless_held(evidence, finding)


class Renamed(Rule):
    """Names differ altogether, but in the same order all sizes agree: the same network under other names."""

    code = "W004"
    severity: ClassVar[Severity] = "warning"
    title = "the weights have other names, in the same order and sizes"
    case = "a checkpoint of a copy of the network whose layers are called p0, p1, …"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Show a few pairs."""
        fit = known_fit(evidence)
        if fit is not None and fit.plan.renamed:
            pairs = [f"{given} -> {own}" for own, given in list(fit.plan.renamed.items())[:3]]
            finding = self.found(
                evidence.name,
                f"{len(fit.plan.renamed)} names: {', '.join(pairs)}{', …' if len(fit.plan.renamed) > 3 else ''}",
                hint=f"look at the pairs: order and sizes alone speak for them; {_LOAD}",
            )
            yield _unless_held(evidence, finding)


_STATISTICS = ("running_mean", "running_var")


class MissingWeights(Rule):
    """The model has tensors that the weights do not: they stay random."""

    code = "W005"
    severity: ClassVar[Severity] = "warning"
    title = "nothing is given for some tensors of the model"
    case = "a file of the backbone alone; a layer that was added since"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Count what is missing; layers that an edit put in are expected to be."""
        fit = known_fit(evidence)
        needed = fit.plan.needed if fit else ()
        names = [name for name in needed if not name.endswith(_STATISTICS) and not evidence.author(name)]
        if fit is not None and names:
            told = peculiar({name: fit.found.state[name] for name in fit.plan.surplus})
            yield self.found(
                evidence.name,
                f"{len(names)} of {fit.plan.size} tensors: {by_module(names)}",
                f"unexpected instead: {by_module(fit.plan.surplus)}" if fit.plan.surplus else "",
                told[0] if told else "",
                hint=told[1] if told else "train them, or give weights that have them",
            )


class MissingStatistics(Rule):
    """Running statistics of norms are missing: in evaluation mode they count as mean 0 and variance 1."""

    code = "W006"
    severity: ClassVar[Severity] = "error"
    title = "the running statistics of norms are not given"
    case = "torch.save(dict(model.named_parameters())) leaves every buffer out"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Count the norms whose weights are given and whose statistics are not."""
        fit = known_fit(evidence)
        lost = [name for name in fit.plan.needed if name.endswith(_STATISTICS)] if fit else []
        homes = dict.fromkeys(name.rpartition(".")[0] for name in lost)
        taken = {name.rpartition(".")[0] for name in fit.plan.taken} if fit else set()
        mixed = [home for home in homes if home in taken]
        if mixed:
            yield self.found(
                evidence.name,
                f"{len(mixed)} norms: {by_module(mixed)}",
                "their weights are given, their running mean and variance are not",
                hint="save model.state_dict(), which holds the buffers; or run some batches in training mode",
            )


class UnexpectedWeights(Rule):
    """The weights hold tensors that the model has no place for."""

    code = "W007"
    severity: ClassVar[Severity] = "warning"
    title = "weights that the model has no place for"
    case = "resnet34 weights into a resnet18: every tensor of it is found, and half of the network is left out"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Count what is left over; where tensors are missing as well, their finding tells of both."""
        fit = known_fit(evidence)
        rivals = fit.plan.rivals if fit else ()
        if fit is not None and fit.plan.surplus and not fit.plan.needed:
            yield self.found(
                evidence.name,
                f"{len(fit.plan.surplus)} tensors: {by_module(fit.plan.surplus)}",
                *(f"those with '{one}' are a whole model as well: which of them is meant?" for one in rivals),
                hint=f"give the ones that are meant: {{name: w for name, w in weights.items() if "
                f"name.startswith({rivals[0]!r})}}"
                if rivals
                else "check that they belong to this architecture; load_state_dict(…, strict=False) drops them",
            )


class OtherSize(Rule):
    """Tensors have their place but another size: the output layer of other classes is told from other causes.

    `load_state_dict(strict=False)` refuses these as well: it is strict about sizes always.
    """

    code = "W008"
    severity: ClassVar[Severity] = "error"
    title = "weights have another size than the model"
    case = "1000-class weights into a 10-class model: strict=False does not ignore sizes"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Name each misfit as what it is."""
        fit = known_fit(evidence)
        if fit is None:
            return
        kinds: dict[str, list[Misfit]] = {}
        outputs = heads(evidence)
        for misfit in fit.plan.misfits:
            of_head = misfit.kind == "rows" and _home(misfit.own, outputs)
            kinds.setdefault("head" if of_head else misfit.kind, []).append(misfit)
        for kind, misfits in kinds.items():
            yield self._told(evidence, kind, misfits)

    def _told(self, evidence: Evidence, kind: str, misfits: list[Misfit]) -> Finding:
        title, hint, severity = _SIZES.get(kind, _SIZES["other"])
        sizes = [f"{one.own} is {list(one.wants)}, {list(one.has)} is given" for one in misfits[:3]]
        more = f"and {len(misfits) - 3} more: {by_module(one.own for one in misfits[3:])}" if misfits[3:] else ""
        home = misfits[0].own.rpartition(".")[0]
        found = self.found(evidence.place(home), *sizes, more, hint=hint)
        return replace(found, title=title, severity=severity)


def _home(name: str, outputs: Iterable[str]) -> bool:
    return any(name.rpartition(".")[0] == path or name.startswith(f"{path}.") for path in outputs)


_SIZES: dict[str, tuple[str, str, Severity]] = {
    "head": (
        "the output layer has another number of classes than the weights",
        "leave it out, as a new head is trained anyway: g.load_weights(weights) loads all the rest",
        "warning",
    ),
    "channels": (
        "the first convolution takes another number of channels than the weights",
        "g.load_weights(weights, resize=True): new channels start at zero, fewer are summed; "
        "or load first and change the input then: g.input(channels=…)",
        "warning",
    ),
    "positions": (
        "position embeddings are those of another image size",
        "g.load_weights(weights, resize=True) interpolates them",
        "warning",
    ),
    "transposed": (
        "weights are transposed",
        "they come from a framework that keeps [inputs, outputs]: load weight.T, of square ones too; "
        "kernels [height, width, inputs, outputs] by permute(3, 2, 0, 1)",
        "error",
    ),
    "other": (
        "weights have another size than the model",
        "build the model with the sizes of the weights, or give weights of this model",
        "error",
    ),
}


class OtherModel(Rule):
    """The weights are those of another model: not a third of the tensors find their place and size."""

    code = "W009"
    severity: ClassVar[Severity] = "error"
    title = "the weights are those of another model"
    case = "densenet weights given to a resnet; a LoRA file that holds the adapter alone"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Count what fits, and show names of both sides."""
        fit = evidence.match.fit if evidence.match else None
        if fit is not None and fit.plan.is_other:
            plan = fit.plan
            given = [*plan.surplus, *(one.given for one in plan.misfits)]
            wanted = [*plan.needed, *(one.own for one in plan.misfits)]
            yield self.found(
                evidence.name,
                f"{len(plan.taken)} of {plan.size} tensors have their place and size",
                f"the model has {', '.join(wanted[:3])}, …",
                f"given are     {', '.join(given[:3])}, …",
                _adapter(given),
                _shard(plan.misfits),
                hint=fit.why_not("build the architecture that the weights were saved from")[1],
            )


def _adapter(names: Iterable[str]) -> str:
    """Say where names are those of an adapter."""
    if any(".lora_" in name or ".adapter_" in name for name in names):
        return "these are weights of an adapter (LoRA and kin), which belong on top of the base's"
    return ""


def _shard(misfits: Sequence[Misfit]) -> str:
    """Say where nearly every tensor has the same part of its rows: one process's share of a sharded model."""
    parts = Counter(
        one.wants[0] // one.has[0]
        for one in misfits
        if one.has and one.has[0] and one.wants[1:] == one.has[1:] and one.wants[0] % one.has[0] == 0
    )
    (part, count) = parts.most_common(1)[0] if parts else (1, 0)
    if part > 1 and count * 2 > len(misfits):
        return f"{count} of them have 1/{part} of the rows: they are one process's part of a sharded model"
    return ""
