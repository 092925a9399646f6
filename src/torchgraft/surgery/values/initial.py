"""Rules for new values, as data: a function of torch.nn.init by its name, or one of torchgraft's own.

kaiming_normal                      by its name, without the underscore
{normal: {std: 0.01}}               with arguments
{constant: -4.6}                    the one argument alone
{like: layer3.0.conv1}              mean and variance of another tensor
lsuv                                orthogonal, then unit variance of the output, on a batch
reset                               as the layer's own reset_parameters draws it
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from torchgraft.errors import nearest
from torchgraft.schema import Schema

__all__ = ["FUNCTIONS", "OWN", "AnyInitial", "Initial"]

FUNCTIONS: Mapping[str, tuple[str, ...]] = {
    "constant": ("val",),
    "dirac": ("groups",),
    "eye": (),
    "kaiming_normal": ("a", "mode", "nonlinearity"),
    "kaiming_uniform": ("a", "mode", "nonlinearity"),
    "normal": ("mean", "std"),
    "ones": (),
    "orthogonal": ("gain",),
    "sparse": ("sparsity", "std"),
    "trunc_normal": ("mean", "std", "a", "b"),
    "uniform": ("a", "b"),
    "xavier_normal": ("gain",),
    "xavier_uniform": ("gain",),
    "zeros": (),
}
"""The functions of torch.nn.init and what they take beside the tensor."""

OWN: Mapping[str, tuple[str, ...]] = {"like": ("at",), "lsuv": ("tolerance", "steps", "samples"), "reset": ()}
"""Rules of torchgraft's own."""

_ALONE = {"constant": "val", "like": "at", "orthogonal": "gain", "sparse": "sparsity"}
_ALONE |= {"xavier_normal": "gain", "xavier_uniform": "gain"}
"""Rules whose first argument may be written alone; of `{normal: 0.01}` nobody knows whether it is mean or std."""

_NEEDED = {"constant": "val", "sparse": "sparsity"}
_WORDS = {
    "mode": ("fan_in", "fan_out"),
    "nonlinearity": ("auto", "linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"),
}


class Initial(Schema):
    """A rule: its name, and its arguments where they are not torch's own."""

    name: str
    args: dict[str, float | str] = Field(default_factory=dict)

    @property
    def takes(self) -> tuple[str, ...]:
        """The arguments that the rule knows."""
        return {**FUNCTIONS, **OWN}[self.name]

    @model_validator(mode="after")
    def _known(self) -> Initial:
        table = {**FUNCTIONS, **OWN}
        if self.name not in table:
            known = nearest(self.name, table) or f"one of {', '.join(table)}"
            raise ValueError(f"torch.nn.init has no '{self.name}'; {known}")
        for argument, value in self.args.items():
            self._check(argument, value)
        missing = _NEEDED.get(self.name)
        if missing and missing not in self.args:
            raise ValueError(f"{self.name} needs {missing}: {{{self.name}: {{{missing}: 0.5}}}}")
        return self

    def _check(self, argument: str, value: float | str) -> None:
        if argument not in self.takes:
            known = f"it takes {', '.join(self.takes)}" if self.takes else "it takes no arguments"
            raise ValueError(f"{self.name} has no argument '{argument}'; {nearest(argument, self.takes) or known}")
        words = _WORDS.get(argument, ("auto",) if argument == "gain" else ())
        if isinstance(value, str) and argument != "at" and value not in words:
            needs = f"one of {', '.join(words)}" if words else "a number"
            raise ValueError(f"{self.name}: {argument} is {needs}, not '{value}'")
        if self.name == "lsuv" and isinstance(value, (int, float)) and not value > 0:
            raise ValueError(f"lsuv: {argument} is more than 0, not {value:g}")
        if isinstance(value, (int, float)) and argument in ("mode", "nonlinearity", "at"):
            raise ValueError(f"{self.name}: {argument} is a word, not {value:g}")

    def __str__(self) -> str:
        given = ", ".join(f"{key}={value}" for key, value in self.args.items())
        return f"{self.name}({given})" if given else self.name


def _read(value: Any) -> Any:
    """Turn the short forms of a recipe into the fields of `Initial`."""
    if isinstance(value, str):
        return {"name": value.removesuffix("_")}
    if not isinstance(value, Mapping) or len(value) != 1 or "name" in value:
        return value
    ((name, args),) = value.items()
    name = str(name).removesuffix("_")
    if args is None:
        return {"name": name}
    if isinstance(args, (int, float, str)):
        if name not in _ALONE:
            taken = {**FUNCTIONS, **OWN}.get(name, ())
            raise ValueError(f"say which argument of {name} {args} is: {' or '.join(taken) or 'it takes none'}")
        return {"name": name, "args": {_ALONE[name]: args}}
    return {"name": name, "args": args}


def _write(rule: Initial) -> Any:
    if rule.args.keys() == {_ALONE.get(rule.name)}:
        return {rule.name: next(iter(rule.args.values()))}
    return {rule.name: dict(rule.args)} if rule.args else rule.name


AnyInitial = Annotated[Initial, BeforeValidator(_read), PlainSerializer(_write)]
"""A rule in a recipe: a name, or one key and its arguments."""
