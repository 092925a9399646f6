"""Family P: parameters: which can be trained, and which the model knows of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from torchgraft.rules.finding import Finding, Fix, Severity
from torchgraft.rules.rule import Evidence, Rule
from torchgraft.rules.weights import by_module, heads

if TYPE_CHECKING:
    from torchgraft.trace import Trace

__all__: list[str] = []


class NothingTrainable(Rule):
    """Every parameter is frozen, so the backward pass has nothing to do."""

    code = "P001"
    severity: ClassVar[Severity] = "warning"
    title = "nothing can be trained"
    case = "requires_grad = False on everything, and the head was never replaced"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look at the flags."""
        from torchgraft.edits.unfreeze import Unfreeze

        parameters = list(evidence.model.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            found = self.found(
                evidence.name,
                f"all {len(parameters)} parameters are frozen",
                hint="unfreeze('head'), or more",
            )
            outputs = heads(evidence)
            fix = Fix("unfreeze", f"{', '.join(outputs)} can be trained again", (Unfreeze(at=outputs),))
            yield replace(found, fixes=(fix,)) if outputs and all(outputs) else found


class NeverUsed(Rule):
    """A parameter can be trained, but no forward pass uses it, in evaluation or training: it gets no gradient.

    Often a layer was assigned to a name that the model does not know: `model.fc` where the head is `classifier`.
    """

    code = "P002"
    severity: ClassVar[Severity] = "warning"
    title = "trainable parameters that nothing uses"
    case = "mobilenet.fc = nn.Linear(576, 10), where the head is classifier.3"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Compare the trainable parameters that edits put in with those that operations took."""
        if any(run.mismatch for run in evidence.runs):
            return
        used = {name for run in evidence.runs for op in run.ops for name in op.params}
        compiled = tuple(f"{path}." if path else "" for path in _compiled(evidence))
        unused = [
            name
            for name, p in evidence.model.named_parameters()
            if p.requires_grad and name not in used and not name.startswith(compiled)
        ]
        homes: dict[str, list[str]] = {}
        for name in unused:
            homes.setdefault(name.rpartition(".")[0], []).append(name.rpartition(".")[2])
        makers = {op.path for run in evidence.runs for output in run.outputs for op in [run.maker(output)] if op}
        for home, names in homes.items():
            yield self.found(
                evidence.place(home),
                f"{', '.join(names)} of {home or 'the model'}{evidence.author(home)} take part in no operation",
                hint=f"the output is made in {' and '.join(sorted(makers)) or 'the forward of the model'}: "
                "put it there, or take it out",
            )


def _compiled(evidence: Evidence) -> list[str]:
    """Give the paths of TorchScript modules: what is inside of one runs unseen."""
    kinds = {path: type(module).__mro__ for path, module in evidence.modules.items()}
    return [path for path, mro in kinds.items() if any(one.__name__ == "ScriptModule" for one in mro)]


class Unregistered(Rule):
    """Layers or parameters hang on a plain list, dict, tuple or object, where the model does not see them.

    Only attributes that are modules or parameters themselves are registered. What is hidden is in no
    `parameters()` and no `state_dict()`: it is not trained, not saved, and not moved by `.to(device)`.
    """

    code = "P003"
    severity: ClassVar[Severity] = "warning"
    title = "layers that the model does not know of"
    case = "self.layers = [nn.Linear(4, 4) for _ in range(3)]: optimizer got an empty parameter list"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Tell of each module that hides some; it is an error where nothing else is there to train."""
        sets = evidence.sets
        homes: dict[str, list[str]] = {}
        for one in sets.hidden if sets else ():
            if one.trainable and one.what in ("module", "parameter"):
                homes.setdefault(one.home, []).append(f"{one.place} ({one.kind}, {one.count:,} values)")
        for home, places in homes.items():
            found = self.found(
                evidence.place(home),
                f"{len(places)} hidden from parameters(): {', '.join(places[:4])}{', …' if places[4:] else ''}",
                "they are not trained, not saved, and not moved by .to(device)",
                hint="keep layers in nn.ModuleList or nn.ModuleDict, parameters in nn.ParameterList, each as an "
                "attribute of an nn.Module; a teacher that is hidden on purpose: requires_grad_(False)",
            )
            nothing = sets is not None and not sets.trainable
            yield replace(found, severity="error") if nothing else found


class PlainTensor(Rule):
    """A tensor of floats is a plain attribute of a module: `.to(device)` leaves it behind, no file holds it."""

    code = "P004"
    severity: ClassVar[Severity] = "note"
    title = "tensors that the model does not know of"
    case = "self.mean = torch.tensor([0.485, 0.456, 0.406]), which stays on the CPU when the model moves"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Tell of each module that has some; those of a library's own classes are its business."""
        kinds = dict(evidence.model.named_modules())
        homes: dict[str, list[str]] = {}
        for one in evidence.sets.hidden if evidence.sets else ():
            own = type(kinds[one.home]).__module__.partition(".")[0]
            if one.what in ("tensor", "computed") and own not in ("torch", "torchvision", "timm", "transformers"):
                graph = ", with the graph that made it" if one.what == "computed" else ""
                homes.setdefault(one.home, []).append(f"{one.place} ({one.count:,} values{graph})")
        for home, places in homes.items():
            yield self.found(
                evidence.place(home),
                f"{', '.join(places[:4])}{', …' if places[4:] else ''}",
                hint="register_buffer(name, tensor) for a constant, nn.Parameter for what is learnt, "
                "detach() for what is kept of a pass",
            )


class MixedFlags(Rule):
    """Of one layer some parameters are frozen and others not, where no other layer is like that.

    Freezing by name easily misses one: `"weight" in name` leaves the biases. All biases trained on purpose
    (BitFit) is a pattern of many layers, and not told.
    """

    code = "P005"
    severity: ClassVar[Severity] = "note"
    title = "a layer that is frozen by half"
    case = "freezing by a name that matched fc.weight and not fc.bias"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Compare the flags within each layer that has a weight and a bias."""
        sets = evidence.sets
        if sets is None or not sets.frozen:
            return
        flags: dict[str, dict[str, bool]] = {}
        for names, trained in ((sets.trainable, True), (sets.frozen, False)):
            for name in names:
                home, _, last = name.rpartition(".")
                flags.setdefault(home, {})[last] = trained
        pairs = {home: one for home, one in flags.items() if {"weight", "bias"} <= one.keys()}
        mixed = [home for home, one in pairs.items() if one["weight"] != one["bias"]]
        if 0 < len(mixed) <= max(1, len(pairs) // 10):
            for home in mixed:
                which = "weight" if not pairs[home]["weight"] else "bias"
                yield self.found(
                    evidence.place(home),
                    f"its {which} is frozen, the rest of it can be trained",
                    hint=f"freeze('{home}') or unfreeze('{home}')",
                )


class LeftOnMeta(Rule):
    """Some parameters lie on the meta device, without values, beside others that have some: no pass gets through.

    A model is built on meta to be filled; what the weights did not hold is left there. (A model that accelerate
    offloads fetches them in time, and one that is on meta as a whole waits to be filled.)
    """

    code = "P023"
    severity: ClassVar[Severity] = "error"
    title = "parameters without values beside others"
    case = "model built on torch.device('meta'), load_state_dict(…, strict=False, assign=True) without the head"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Sort the parameters by device."""
        if evidence.sets is None:  # the verdict of one edit, which can't leave any there
            return
        empty, filled = list[str](), 0
        for name, parameter in evidence.model.named_parameters():
            if parameter.is_meta and not evidence.author(name):
                empty.append(name)
            filled += not parameter.is_meta
        offloaded = any(hasattr(module, "_hf_hook") for module in evidence.modules.values())
        if empty and filled and not offloaded:
            yield self.found(
                evidence.place(empty[0].rpartition(".")[0] if len(empty) == 1 else ""),
                f"{len(empty)} are on the meta device: {by_module(empty)}",
                f"{filled} others have values",
                hint="load weights that hold them with assign=True, or module.to_empty(…) and initialise",
            )


class MadeInForward(Rule):
    """A layer is made anew in each forward pass: its weights are random each time, and no optimizer knows them."""

    code = "P024"
    severity: ClassVar[Severity] = "warning"
    title = "a layer is made in the forward"
    case = "return nn.Linear(x.shape[1], 10)(x) at the end of forward"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look for weights that come of no input and no parameter, and were made to be trained."""
        run = evidence.runs[0]
        if not any(op.name == "requires_grad_" for op in run.ops):
            return
        for op in run.ops:
            fresh = [value for value in op.inputs[1:2] if not op.params and _made_anew(run, value)]
            if fresh and op.name.startswith(("linear", "conv", "embedding", "bilinear")):
                yield self.found(
                    evidence.place(op.path),
                    f"the weight of {op.name}, {list(run.values[op.inputs[1]].shape)}, is made in the pass",
                    hint="make the layer in __init__, as an attribute; nn.LazyLinear finds its own width",
                )


def _made_anew(run: Trace, value: int) -> bool:
    """Tell whether a value is a parameter that the pass itself made."""
    ops = list(run.upstream(value))
    outside = any(op.params or set(op.inputs) & set(run.inputs) for op in ops)
    return not outside and any(op.name == "requires_grad_" for op in ops)


class TiedFrozen(Rule):
    """A parameter under two names is frozen: whoever froze the one froze the other as well."""

    code = "P006"
    severity: ClassVar[Severity] = "note"
    title = "a tied parameter is frozen under both names"
    case = "freezing the embedding of a language model froze its output layer, which is the same tensor"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look for frozen parameters with several names, where others can be trained."""
        sets = evidence.sets
        if sets is None or not sets.trainable:
            return
        frozen = frozenset(sets.frozen)
        for names in sets.tied:
            if names[0] in frozen:
                yield self.found(
                    evidence.place(names[-1].rpartition(".")[0]),
                    f"{' and '.join(names)} are one parameter, and it is frozen",
                    hint=f"unfreeze('{names[-1]}') trains both; give one of them a weight of its own to part them",
                )


class FreezeIgnored(Rule):
    """A flag was set where nothing reads it: on a module, or misspelt on a parameter. All goes on being trained.

    Python lets any attribute be set. `module.requires_grad_(False)`, with the underscore, freezes a module.
    """

    code = "P022"
    severity: ClassVar[Severity] = "warning"
    title = "a freeze that does nothing"
    case = "model.layer1.requires_grad = False; parameter.require_grad = False"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Name the attribute and its places."""
        places: dict[str, list[str]] = {}
        for path, attribute in evidence.sets.ignored if evidence.sets else ():
            places.setdefault(attribute, []).append(path)
        for attribute, paths in places.items():
            yield self.found(
                evidence.place(paths[0] if len(paths) == 1 else ""),
                f"'{attribute}' is set on {by_module(paths)}, where nothing reads it",
                hint="module.requires_grad_(False) for a module, parameter.requires_grad = False for a parameter; "
                "g.freeze(…) refuses a name that is not there",
            )


class HookTwice(Rule):
    """One function is a hook of one module several times: it was registered on every call and never removed.

    Each keeps what it caught alive, so memory grows with every call.
    """

    code = "P007"
    severity: ClassVar[Severity] = "warning"
    title = "a hook was registered several times"
    case = "a feature function that registers a hook on every call and never removes it"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Count hooks of the same code."""
        for path, name, count in evidence.sets.repeated if evidence.sets else ():
            yield self.found(
                evidence.place(path),
                f"{name} is {count} times a hook of {path or 'the model'}",
                hint="handle = module.register_forward_hook(…), and handle.remove() in a finally",
            )
        for path, name in evidence.step.grown if evidence.step else ():
            yield self.found(
                evidence.place(path),
                f"every pass registers {name} as a hook of {path or 'the model'} once more",
                hint="register it once, in __init__; or handle.remove() in a finally",
            )


class HookManyCalls(Rule):
    """A module with a hook is called more than once in a pass: a hook that keeps one value keeps the last."""

    code = "P008"
    severity: ClassVar[Severity] = "note"
    title = "a module with a hook is called several times"
    case = "one ReLU object used twice in a residual block: features['relu'] holds the second call alone"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Count the calls of hooked modules."""
        for path in evidence.sets.hooked if evidence.sets else ():
            calls = max((len(run.calls_of(path)) for run in evidence.runs), default=0)
            if calls > 1:
                yield self.found(
                    evidence.place(path),
                    f"{path} is called {calls} times in one pass",
                    hint="let the hook append to a list",
                )


class HookOverwritten(Rule):
    """What a hooked module gives is changed in place right afterwards: the hook's tensor shows later values."""

    code = "P009"
    severity: ClassVar[Severity] = "note"
    title = "what a hook catches is overwritten in place"
    case = "features of a convolution whose ReLU(inplace=True) follows: no negative value in them"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look for operations in place on the outputs of hooked modules."""
        hooked = evidence.sets.hooked if evidence.sets else ()
        places = dict(evidence.model.named_modules()) if hooked else {}
        for path in hooked:
            for run in evidence.runs:
                gave = {number for call in run.calls_of(path) for number in call.gave}
                for op in run.ops:
                    inplace = op.name.endswith("_") or getattr(places.get(op.path), "inplace", False)
                    if inplace and op.path != path and op.inputs and op.inputs[0] in gave:
                        yield self.found(
                            evidence.place(path),
                            f"{op.path or 'the forward'} ({op.name}) writes into what {path} gave",
                            hint="keep output.detach().clone() in the hook",
                        )
