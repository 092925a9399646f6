"""Family W, further: are the given values sound, and are they the ones that the model holds?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

from torchgraft.rules.finding import Finding, Severity
from torchgraft.rules.rule import Evidence, Rule
from torchgraft.rules.weights import by_module, heads, known_fit

__all__: list[str] = []


class NotHeld(Rule):
    """The model's values have nothing in common with the given ones, although names and sizes fit.

    They were never loaded, or something wrote over them afterwards: `model.apply(init_weights)` after loading.
    Matrices are compared; two are called alike where their cosine is 0.5 or more, so a fine-tuned model holds
    its base's weights.
    """

    code = "W010"
    severity: ClassVar[Severity] = "warning"
    title = "the model does not hold the given weights"
    case = "model.apply(init) after load_state_dict wipes every pretrained convolution"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Count the matrices that differ, and say in which modules."""
        match, fit = evidence.match, known_fit(evidence)
        if match is None or fit is None:
            return
        strange, compared = match.values.strange, match.values.compared
        begun = [name for name in match.values.begun if not evidence.author(name)]  # a new layer is meant to begin
        if not strange and not begun:
            return
        whole = bool(strange) and len(strange) == len(compared)
        yield self.found(
            evidence.name,
            f"{len(strange)} of {len(compared)} weights have other values: {by_module(strange)}"
            if strange
            else "",
            f"{len(begun)} vectors are as they were made, all 0 or all 1: {by_module(begun)}"
            if begun and not whole
            else "",
            "none was loaded yet, or all were written over afterwards" if strange and whole else "",
            hint="load them after every initialisation, and initialise only what is new: model.fc.apply(init); "
            "g.load_weights(weights) loads them",
        )


class BrokenValues(Rule):
    """The given weights hold NaN or infinite values: whatever is computed with them is lost."""

    code = "W011"
    severity: ClassVar[Severity] = "error"
    title = "weights with values that are not finite"
    case = "the last checkpoint of a training whose loss went to NaN"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Name the tensors."""
        broken = evidence.match.values.broken if evidence.match else {}
        negative = evidence.match.values.negative if evidence.match else ()
        if negative:
            yield self.found(
                evidence.name,
                f"{len(negative)} variances are below zero, so their norms give NaN: {by_module(negative)}",
                hint="take an earlier checkpoint; an average or a merge of models may not extrapolate variances",
            )
        if broken:
            first = next(iter(broken))
            yield self.found(
                evidence.name,
                f"{len(broken)} tensors: {by_module(list(broken))}",
                f"{first} has {broken[first]:,} values that are NaN or infinite",
                hint="take an earlier checkpoint; where the model's type can't hold them: model.float()",
            )


class ZeroValues(Rule):
    """Most given matrices are zero throughout: a file that was allocated and never filled.

    Single ones are meant (a zero-initialised last layer, the second half of a LoRA pair), so only half of them
    or more count.
    """

    code = "W012"
    severity: ClassVar[Severity] = "error"
    title = "the weights are zero"
    case = "a state dict gathered from a sharded model on the wrong process: right names, empty values"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Count zero matrices among all."""
        match, fit = evidence.match, known_fit(evidence)
        if match is None or fit is None:
            return
        zero = match.values.zero
        matrices = sum(tensor.dim() > 1 for tensor in fit.found.state.values())
        if zero and 2 * len(zero) >= matrices:
            yield self.found(
                evidence.name,
                f"{len(zero)} of {matrices} matrices hold nothing but zeros: {by_module(zero)}",
                hint="save them again, where they were whole",
            )


class OtherType(Rule):
    """The given weights have another type than the model's: loading casts them without a word.

    Halves round what the model would hold; integers are the codes of a quantised model, which mean nothing
    without their scale.
    """

    code = "W013"
    severity: ClassVar[Severity] = "note"
    title = "weights of another type than the model's"
    case = "a float16 file into a float32 model; an int8 file into a float one"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Name each pair of types; codes of a quantised model are an error."""
        casts = evidence.match.values.casts if evidence.match and known_fit(evidence) else {}
        for (own, given), names in casts.items():
            if not own.startswith(("float", "bfloat", "complex")):
                continue
            codes = given.startswith(("int", "uint", "quint", "qint", "bits", "bool"))
            found = self.found(
                evidence.name,
                f"{len(names)} tensors are {given}, the model holds {own}: {by_module(names)}",
                "they are codes, whose scale is not loaded with them" if codes else "",
                hint="dequantise them first"
                if codes
                else f"model.to(torch.{given}), or go on: they are cast to {own}",
            )
            yield replace(found, severity="error") if codes else found


class BrokenTie(Rule):
    """Tensors that are one in the weights are two in the model, or the other way round.

    Tied weights are one parameter under two names. Replacing one of the two modules unties them in silence; and
    where two values are given for one parameter, the last one wins.
    """

    code = "W014"
    severity: ClassVar[Severity] = "warning"
    title = "tied weights that are not tied on both sides"
    case = "a language model whose head was replaced and no longer shares the embedding's weight"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Name both sides of each tie."""
        match = evidence.match
        for names in match.untied if match else ():
            yield self.found(
                evidence.place(names[-1].rpartition(".")[0]),
                f"{' and '.join(names)} are one tensor in the weights, and two in the model",
                hint=f"tie them again: the module's weight = {names[0]}, or train the two apart on purpose",
            )
        for names in match.ties if match else ():
            yield self.found(
                evidence.place(names[0].rpartition(".")[0]),
                f"{' and '.join(names)} are one parameter of the model; the weights give each another value",
                hint=f"the last one loaded wins; drop the wrong one, or untie the model: {names[-1]}",
            )


class OwnTensors(Rule):
    """The given weights are the model's own tensors: what trains the model changes them too.

    `model.state_dict()` is a view, not a copy: kept as the best state of a training, it is the last at the end.
    """

    code = "W020"
    severity: ClassVar[Severity] = "note"
    title = "the given weights are the model's own tensors"
    case = "best = model.state_dict() in the epoch of the best accuracy, loaded at the end: it is the last epoch"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Count the tensors whose memory is the model's."""
        own = evidence.match.values.own if evidence.match else ()
        if own:
            yield self.found(
                evidence.name,
                f"{len(own)} tensors: {by_module(own)}",
                hint="copy.deepcopy(model.state_dict()) keeps a state as it is now; so does a file",
            )


class WipedWeights(Rule):
    """An init drew parameters anew that held trained weights of the base.

    What edits put in has nothing to lose, and is not counted; nor is a random base (`…@none`). A model that was
    handed over counts as trained, since nobody can tell by its values. Output layers alone are mostly meant.
    """

    code = "W019"
    severity: ClassVar[Severity] = "warning"
    title = "trained weights are lost in an initialisation"
    case = "init: {at: '**', conv: kaiming_normal} after a new head, which alone was to be initialised"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Read what each init edit says that it replaced."""
        from torchgraft.edits.init import Init

        whole = sum(parameter.numel() for parameter in evidence.model.parameters())
        for number, edit in enumerate(evidence.edits, 1):
            if not isinstance(edit, Init) or not edit.wiped:
                continue
            found = self.found(
                evidence.name,
                f"edit {number} draws {edit.wipes:,} trained values anew, of {whole:,} in the model "
                f"({min(edit.wipes / max(whole, 1), 1):.0%})",
                f"in {by_module(edit.wiped)}",
                hint="name what is new alone, such as init(at='head', …); or go on, if they are to be lost",
            )
            homes = {name.rpartition(".")[0] for name in edit.wiped}
            yield replace(found, severity="note") if homes <= set(heads(evidence)) else found


class OtherHash(Rule):
    """A file named after its hash, as torchvision's are (`resnet18-f37072fd.pth`), has another: it is damaged,
    or another file was given its name.
    """

    code = "W015"
    severity: ClassVar[Severity] = "warning"
    title = "the file is not the one that its name promises"
    case = "a download that a proxy had changed"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Compare the digits."""
        fit = evidence.match.fit if evidence.match else None
        if fit is not None and fit.misnamed:
            promised, real = fit.misnamed
            yield self.found(
                evidence.name,
                f"{fit.origin}: its name says sha256 {promised}…, it is {real}…",
                hint="download it again; or give it a name without the digits",
            )
