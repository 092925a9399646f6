"""Family P, further: tensors that are not held as they seem to be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

from torchgraft.rules.finding import Finding, Fix, Severity
from torchgraft.rules.rule import Evidence, Rule
from torchgraft.rules.weights import by_module, known_fit

__all__: list[str] = []


class OneMemory(Rule):
    """Two parameters are two objects over the same values: the optimizer moves these values twice in a step.

    Assigning `.data` shares the memory, not the parameter: each side has a gradient and a state of its own, of one
    part of the loss alone, and `load_state_dict(assign=True)` or `.to(device)` parts them.
    """

    code = "P026"
    severity: ClassVar[Severity] = "warning"
    title = "two parameters over one memory"
    case = "decoder.weight.data = encoder.weight.data, to tie them"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Name them."""
        for names in evidence.sets.overlaid if evidence.sets else ():
            last = names[-1]
            yield self.found(
                evidence.place(last.rpartition(".")[0]),
                f"{' and '.join(names)} are {len(names)} parameters over the same values",
                hint=f"to tie them: {last.rpartition('.')[0] or 'model'}.{last.rpartition('.')[2]} = {names[0]}, "
                "the parameter itself; to part them: .data.clone()",
            )


class TieLost(Rule):
    """A model of transformers says that its output layer is its embedding, and the two are apart.

    `load_state_dict(…, assign=True)`, a new head or `weight = nn.Parameter(…)` parts them in silence; the two are
    then trained apart, and the next `from_pretrained` makes them one again.
    """

    code = "P033"
    severity: ClassVar[Severity] = "warning"
    title = "a tie that the configuration speaks of is lost"
    case = "model.load_state_dict(state, assign=True) on a GPT-2: lm_head.weight is no more transformer.wte.weight"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Compare the two parameters by identity."""
        ends = None if evidence.sets is None else _ends(evidence.model)
        if ends is None or ends[0] is ends[1]:
            return
        names = {id(one): name for name, one in evidence.model.named_parameters(remove_duplicate=False)}
        if id(ends[0]) in names and id(ends[1]) in names:
            first, last = names[id(ends[0])], names[id(ends[1])]
            yield self.found(
                evidence.place(last.rpartition(".")[0]),
                f"tie_word_embeddings is set, and {first} and {last} are two parameters",
                hint="model.tie_weights() after loading; model.config.tie_word_embeddings = False to train two",
            )


def _ends(model: Any) -> tuple[Any, Any] | None:
    """Give the weights of the embedding and of the output layer, where a configuration ties them."""
    config = getattr(model, "config", None)
    if getattr(config, "tie_word_embeddings", False) is not True or not hasattr(model, "get_output_embeddings"):
        return None
    try:
        ends = (model.get_input_embeddings(), model.get_output_embeddings())
    except (NotImplementedError, AttributeError):
        return None
    first, last = (getattr(one, "weight", None) for one in ends)
    fit = first is not None and last is not None and first.shape == last.shape
    return (first, last) if fit else None


class LearntBuffer(Rule):
    """A buffer asks for gradients: it gets them, and is in no `parameters()`, so that no optimizer moves it."""

    code = "P029"
    severity: ClassVar[Severity] = "warning"
    title = "a buffer that asks for gradients"
    case = "register_buffer('scale', torch.ones(1, requires_grad=True)), which was meant to be learnt"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Name them."""
        names = evidence.sets.learnt if evidence.sets else ()
        if names:
            yield self.found(
                evidence.place(names[0].rpartition(".")[0] if len(names) == 1 else ""),
                f"{len(names)} buffers: {by_module(names)}",
                hint="nn.Parameter for what is learnt; .detach() for a constant",
            )


class FrozenAtStart(Rule):
    """A new layer is frozen with the random values that it was drawn with: it is never trained.

    New is what an edit put in, and what the given weights do not hold. A module that was handed over as an object
    may have been trained elsewhere, and is not told.
    """

    code = "P030"
    severity: ClassVar[Severity] = "warning"
    title = "a new layer is frozen at its random start"
    case = "model.fc = nn.Linear(512, 10), then requires_grad = False on all, then layer4 unfrozen"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look for frozen parameters of new modules, where others are trained."""
        from torchgraft.edits.unfreeze import Unfreeze

        sets = evidence.sets
        if sets is None or not sets.trainable or not sets.frozen:
            return
        fit = known_fit(evidence)
        random = frozenset(fit.plan.needed if fit is not None and not _was_filled(evidence) else ())
        names = [name for name in sets.frozen if name in random or _is_new(evidence, name)]
        if names:
            found = self.found(
                evidence.place(names[0].rpartition(".")[0] if len(names) < 3 else ""),
                f"{len(names)} parameters that nothing was loaded into are frozen: {by_module(names)}",
                hint=f"unfreeze('{names[0].rpartition('.')[0] or names[0]}'); or put in what is new afterwards",
            )
            fix = Fix("unfreeze", f"{by_module(names)} can be trained", (Unfreeze(at=tuple(names)),))
            yield replace(found, fixes=(fix,))


def _was_filled(evidence: Evidence) -> bool:
    """Tell whether most of what is missing is frozen as well: then the weights are those of a part alone."""
    fit = known_fit(evidence)
    return fit is not None and len(fit.plan.needed) * 2 > fit.plan.size


def _is_new(evidence: Evidence, name: str) -> bool:
    """Tell whether an edit put a parameter in with random values; others took theirs over, or were handed them."""
    for home, number in evidence.added.items():
        if name.startswith(f"{home}.") and number <= len(evidence.edits):
            edit = evidence.edits[number - 1]
            handed_over = any(getattr(value, "module", None) is not None for value in vars(edit).values())
            return edit.kind() in _DRAWN and not handed_over
    return False


_DRAWN = ("head", "insert", "append", "replace")
