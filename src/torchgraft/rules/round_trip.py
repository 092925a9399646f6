"""Family W, further: does the model come back from its own file?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from torchgraft.rules.finding import Finding, Severity
from torchgraft.rules.rule import Evidence, Rule
from torchgraft.rules.weights import by_module

__all__: list[str] = []


class StoredOnce(Rule):
    """Several names are one memory, so `safetensors.torch.save_file` refuses the state dict.

    Tied weights are meant to be one. Files that hold them once come back whole only where the model ties them
    again by itself.
    """

    code = "W016"
    severity: ClassVar[Severity] = "note"
    title = "tied weights, which a file holds once or twice"
    case = "save_file(model.state_dict()): some tensors share memory"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Name what shares memory."""
        for names in evidence.trip.shared if evidence.trip else ():
            yield self.found(
                evidence.place(names[0].rpartition(".")[0]),
                f"{' and '.join(names[:4])}{', …' if names[4:] else ''} are one memory",
                hint="g.save(…) keeps the tie; by hand: safetensors.torch.save_model and load_model",
            )


class NotStored(Rule):
    """Buffers of floats are not persistent: a state dict does not hold them, and loading leaves them as they are.

    That is right for tables that the constructor makes again, and wrong for anything that was learnt or measured.
    Classes of torchvision and timm are taken to know.
    """

    code = "W017"
    severity: ClassVar[Severity] = "note"
    title = "values that no file of the model holds"
    case = "register_buffer('mean_activation', …, persistent=False), gone after a resume"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Name the buffers of the user's own classes."""
        kinds = {path: type(module).__module__ for path, module in evidence.model.named_modules()}
        libraries = ("torch", "torchvision", "timm", "transformers")
        names = [
            name
            for name in (evidence.trip.lost if evidence.trip else ())
            if kinds[name.rpartition(".")[0]].partition(".")[0] not in libraries
        ]
        if names:
            yield self.found(
                evidence.name,
                f"{len(names)} buffers: {by_module(names)}",
                hint="leave persistent=False out, unless the constructor makes the values again",
            )


class NoReturn(Rule):
    """Saved and loaded into a twin, the model is another: a hook or an own `state_dict` leaves something out."""

    code = "W018"
    severity: ClassVar[Severity] = "error"
    title = "saving and loading does not give the same model"
    case = "a state_dict override that drops the frozen parameters; an extra state that is no plain data"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Say what is lost on the way; known only where a real round trip was made."""
        trip = evidence.trip
        if trip is None or not (trip.failure or trip.changed or trip.parted):
            return
        yield self.found(
            evidence.name,
            trip.failure,
            f"{len(trip.changed)} tensors come back changed: {by_module(trip.changed)}" if trip.changed else "",
            f"no longer one tensor: {' and '.join(trip.parted[0])}" if trip.parted else "",
            hint="look at the model's state_dict, _load_from_state_dict and get_extra_state",
        )
