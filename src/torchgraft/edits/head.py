"""Head: new output layers, for classes, several labels or quantities, one output or several by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from torchgraft.edits.base import Edit
from torchgraft.errors import EditError
from torchgraft.paths import homes
from torchgraft.rng import drawn_from
from torchgraft.schema import Count, Flag, Name, Names, Share
from torchgraft.surgery.detection import ClassLayer, class_layers
from torchgraft.surgery.heads import (
    QUANTITIES,
    Above,
    Activation,
    Finite,
    Keep,
    Kind,
    Norm,
    Output,
    Place,
    Task,
    copied,
    layers,
    named,
    place_of,
    rows,
)
from torchgraft.surgery.told import (
    Told,
    class_names,
    follow_classes,
    follow_task,
    name_classes,
    share_bias,
    ties,
    untie,
)

if TYPE_CHECKING:
    from torch import nn

    from torchgraft.surgery.journal import Surgery
    from torchgraft.trace import Trace

__all__ = ["Head", "tasks"]


def _read(value: object) -> object:
    """Read `5` as an output of 5 classes."""
    return {"classes": value} if isinstance(value, int) else value


def _write(output: Output) -> dict[str, Any]:
    """Write all that was given: a setting at its own default may differ from the one that the heads share."""
    return output.model_dump(mode="json", by_alias=True, exclude_unset=True)


_Named = Annotated[Output, BeforeValidator(_read), PlainSerializer(_write)]


class Head(Edit):
    """Replace the layers that make the output by new ones.

    The layers are found by tracing which weights make the output, in training mode too, so that auxiliary
    heads follow; these get a plain layer.

    Attributes:
        classes: how many outputs; as many as are kept where it is left out.
        hidden: widths of hidden layers before the last one.
        dropout: after each hidden layer, or before the only one.
        at: the output layers, or modules that end in them; found by tracing when left out.
        kind: `cosine` scores by direction alone, with a learnt scale (Gidaris and Komodakis, 2018).
        task: `classes` one of several, `labels` any number at once, `regression` quantities. Training and the
            checks take cross-entropy, BCE with logits, or mean squares by it.
        heads: several outputs by name, each a number of classes or settings of its own, which start from those
            given here; the model then gives a dict.
        keep: old classes whose weights the new ones start with, by number or name: a list for the first new
            ones, or {new: old}.
        activation: after each hidden layer.
        norm: between each hidden layer and its activation.
        bias: of the last layer; as the old one when left out.
        mean: of each quantity of a regression, where the outputs start; `torchgraft adapt` reads it off the data.
        std: of each quantity, by which the outputs are scaled, so that all learn alike whatever their units.
        names: what the classes are called, for the configurations of transformers, which hold such names.
        untied: what the output weights were tied to; written when the edit is applied.
    """

    written: ClassVar[frozenset[str]] = frozenset({"untied"})
    needs_fit: ClassVar[bool] = True
    classes: Count | None = None
    hidden: tuple[Count, ...] = ()
    dropout: Share = 0.0
    at: Names = ()
    kind_: Kind = Field("linear", alias="kind")
    task: Task = "classes"
    heads: dict[Name, _Named] = Field(default_factory=dict)
    keep: Keep = ()
    activation: Activation = "relu"
    norm: Norm = "none"
    bias: Flag | None = None
    mean: tuple[Finite, ...] = ()
    std: tuple[Above, ...] = ()
    names: Names = ()
    untied: Names = ()

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.classes is None and not self.heads and not self.keep:
            raise ValueError("a head names its classes, or heads by name: head(10)")
        if self.classes is not None and self.heads:
            raise ValueError("a head names either classes or heads by name")
        if self.keep and (self.hidden or self.heads or self.mean or self.std):
            raise ValueError(
                "rows can be kept only where the new layer reads what the old one read: one head, not hidden"
            )
        if len(self.names) > _total(self.outputs()) or (self.names and self.heads):
            raise ValueError("'names' has one name for each class at most, of the only head")
        return self

    def outputs(self) -> dict[str, Output]:
        """Give each output by name; one without a name under ''."""
        shared = {name: getattr(self, name) for name in Output.model_fields if name != "classes"}
        if not self.heads:
            return {"": Output(classes=self.classes or _count(self.keep), **shared)}
        own = {name: {key: getattr(one, key) for key in one.model_fields_set} for name, one in self.heads.items()}
        return {name: Output.model_validate({**shared, **settings}) for name, settings in own.items()}

    def apply(self, surgery: Surgery) -> Head:
        """Find the output layers, unless `at` names them, and put new ones in their places.

        Raises:
            EditError: there are none, or they can't be what is asked for.
        """
        told = Told(surgery.model)
        detecting = class_layers(surgery.model, told.modules)
        if detecting and not set(self.at) - {layer.path for layer in detecting}:
            return self._detect(surgery, told, detecting)
        main, paths = _paths(surgery, self.at)
        held = ties(surgery, told, paths)
        places = [place_of(surgery, path) for path in paths]
        if not self.at:
            _alike(places)
        first = next((one for one in places if one.path in main), places[0])
        outputs = self.outputs()
        if self.heads:
            _ends(surgery, places)
        names = class_names(told, first.gives)
        kept = rows(self.keep, first, _total(outputs), names)
        for place in places:
            auxiliary = first.path in main and (place.path not in main or _is_auxiliary(place.path))
            chosen = {name: one.plain() for name, one in outputs.items()} if auxiliary else outputs
            _put(surgery, told, place, chosen, kept if place.gives == first.gives else {})
        name_classes(surgery, told, self.names, _total(outputs))
        follow_task(surgery, told, next(iter(outputs.values())).task)
        if held:
            untie(surgery, told)
        done = {"classes": outputs[""].classes} if "" in outputs else {}
        return self.model_copy(update={"at": paths, "keep": _written(kept), "untied": held, **done})

    def _detect(self, surgery: Surgery, told: Told, found: list[ClassLayer]) -> Head:
        """Give a detection model other classes, in every layer that counts them."""
        if self.model_copy(update={"at": ()}) != Head(classes=self.classes) or self.classes is None:
            raise EditError(
                "a detection model takes a number of classes, the background included, and nothing else",
                where="head",
                hint=f"head({self.classes or found[0].classes}), or replace {found[0].path.rpartition('.')[0]}",
            )
        for layer in found:
            place = place_of(surgery, layer.path)
            _put(surgery, told, place, {"": Output(classes=self.classes * layer.times)}, {})
            if layer.holder is not None:
                surgery.set(layer.holder, layer.told, self.classes)
        return self.model_copy(update={"at": tuple(layer.path for layer in found)})

    def sentence(self) -> str:
        """Say what the head is now."""
        outputs = self.outputs()
        at = f" at {', '.join(self.at)}" if self.at else ""
        if "" in outputs:
            told = f"new head for {outputs['']}{at}"
        else:
            told = f"new heads{at}: {'; '.join(f'{name} for {output}' for name, output in outputs.items())}"
        if self.keep:
            told += f", {len(self.keep)} of them with the weights of old classes"
        return told + (f", no longer tied to {', '.join(self.untied)}" if self.untied else "")


def tasks(edits: Iterable[Edit]) -> dict[str, Task]:
    """Give what the outputs of the last head among edits are for, by name; '' is the only one's."""
    heads = [edit for edit in edits if isinstance(edit, Head)]
    return {name: output.task for name, output in heads[-1].outputs().items()} if heads else {}


def _paths(surgery: Surgery, at: tuple[str, ...]) -> tuple[list[str], tuple[str, ...]]:
    """Give the output layers of evaluation mode, and all that a new head replaces."""
    from torchgraft.trace import output_layers

    main = _whole(surgery.model, output_layers(surgery.look(False)))
    paths = at or tuple(_whole(surgery.model, output_layers(surgery.look(True)))) or tuple(main)
    if not paths:
        raise EditError(
            "no layer with weights makes the output",
            where="head",
            hint="name the place: head(…, at='…'), or append a layer",
        )
    return main, paths


def _whole(model: nn.Module, paths: Iterable[str]) -> list[str]:
    """Take several heads by name, and one in units of its own, as the one module that holds them."""
    from torch import fx

    found: dict[str, None] = {}
    for path in paths:
        held = [
            home
            for home in homes(path)
            if isinstance(one := model.get_submodule(home), fx.GraphModule)
            and type(one).__name__ in ("Heads", QUANTITIES)
        ]
        found.setdefault(held[0] if held else path)
    return list(found)


def _alike(places: list[Place]) -> None:
    """Refuse outputs of several widths: only one of them can be the classes."""
    if len({place.gives for place in places}) > 1:
        told = ", ".join(f"{place.path} ({place.gives})" for place in places)
        raise EditError(
            f"the outputs have several widths, and which are the classes is not known: {told}",
            where="head",
            hint=f"name the layer: head(…, at='{places[0].path}')",
        )


def _ends(surgery: Surgery, places: list[Place]) -> None:
    """Refuse a dict where something is computed from what the old head gave."""
    run = surgery.look(True)
    for place in places:
        made = {number for call in run.calls_of(place.path) for number in call.gave}
        after = next((op for op in run.ops if made.intersection(op.inputs)), None)
        if after is not None:
            out = [home for home in homes(place.path) if {*_gave(run, home)} & {*run.outputs}]
            calling = after.path or "the model itself"
            raise EditError(
                f"the model would give a dict, and {calling} calls {after.name} on a tensor",
                where=place.path,
                hint=f"head(…, at='{out[-1]}')" if out else f"replace what follows {place.path} first",
            )


def _gave(run: Trace, path: str) -> tuple[int, ...]:
    calls = run.calls_of(path)
    return calls[-1].gave if calls else ()


def _is_auxiliary(path: str) -> bool:
    """Tell whether a name says so: segmentation models use their auxiliary head in evaluation mode as well."""
    return any(part.startswith("aux") for part in path.split("."))


def _put(
    surgery: Surgery, told: Told, place: Place, outputs: Mapping[str, Output], kept: Mapping[int, int]
) -> None:

    try:
        with drawn_from(surgery.seed):
            made = {name: layers(output, place) for name, output in outputs.items()}
    except RuntimeError as error:  # no memory for layers as wide as that
        reason = str(error).splitlines()[0]
        raise EditError(
            f"the head can't be built: {reason}", where=place.path, hint="take fewer classes or features"
        ) from error
    new = made[""] if "" in made else named(made)
    like = next(place.old.parameters())
    new = new.to(device=like.device, dtype=like.dtype)
    if kept:
        copied(new, place, kept)
    surgery.put(place.path, new)
    share_bias(surgery, told, place.old, new)
    follow_classes(surgery, place.gives, _total(outputs), kept, told=told)


def _total(outputs: Mapping[str, Output]) -> int:
    return sum(output.classes for output in outputs.values())


def _count(keep: Keep) -> int:
    return len(keep) if isinstance(keep, tuple) else max(keep) + 1


def _written(kept: Mapping[int, int]) -> Keep:
    """Write rows in order as a list, others as a mapping."""
    in_order = list(kept) == list(range(len(kept)))
    return tuple(kept.values()) if in_order else dict(kept)
