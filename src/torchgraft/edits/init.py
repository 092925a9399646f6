"""Init: new values for parameters, by the kind of layer that holds them."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, PrivateAttr, field_validator, model_validator

from torchgraft.edits.base import Edit
from torchgraft.errors import TorchgraftWarning
from torchgraft.schema import Flag, Names, Number, Places
from torchgraft.surgery.values.follows import check_nonlinearity
from torchgraft.surgery.values.initial import AnyInitial, Initial
from torchgraft.surgery.values.newvalues import Draw, draws, ends, followed, put

if TYPE_CHECKING:
    from torchgraft.surgery.journal import Surgery

__all__ = ["Init"]

_RULES = ("conv", "linear", "norm", "embedding", "recurrent", "attention", "other", "weight", "bias")


def _in_list(value: object) -> object:
    return (value,) if isinstance(value, str) else value


class Init(Edit):
    """Draw the parameters in `at` anew, each kind of layer by its own rule; what no rule names stays as it is.

    A rule is a function of torch.nn.init by its name (`kaiming_normal`, `{normal: {std: 0.01}}`), or one of
    torchgraft's: `{like: PATH}` (mean and variance of another tensor; `like` alone: of its own, Raghu et al. 2019,
    Transfusion), `lsuv` (Mishkin and Matas 2016), `reset` (the layer's own `reset_parameters`). Each parameter is
    drawn from the seed and its name, so naming more of them changes no other.

    Attributes:
        at: which parameters, by selectors.
        conv: rule for the weights of convolutions, transposed ones too.
        linear: of linear layers.
        norm: for the scales of norms.
        embedding: of embeddings; the row of `padding_idx` stays zero.
        recurrent: of LSTM, GRU and RNN; each gate is drawn by itself.
        attention: of torch's MultiheadAttention; queries, keys and values are drawn each by itself.
        other: for parameters of all other modules, such as tables of positions and class tokens.
        weight: for the weights of every kind but norms and others that has no rule of its own.
        bias: for every bias.
        mode: `fan_in` or `fan_out` for the rules that take it.
        nonlinearity: what follows the layers, for rules with a gain (He et al. 2015): `auto` finds it by tracing,
            a name means all, and a mapping gives each name the parameters that it follows, the last one counts.
        zero_last: the last norm of each residual branch starts at zero (Goyal et al. 2017); found in the trace, or
            the norms by path.
        lstm_forget_bias: what biases of forget gates add up to; at 1 an LSTM remembers (Jozefowicz et al. 2015).
        batch: what `lsuv` looks at, handed over in Python; a standard-normal batch when left out.
        scales: the factors that `lsuv` found; written when the edit is applied, so that no replay needs the batch.
        wipes: how many of the base's trained values are lost; written when the edit is applied.
    """

    written: ClassVar[frozenset[str]] = frozenset({"scales", "wipes"})
    structural: ClassVar[bool] = False
    at: Places
    conv: AnyInitial | None = None
    linear: AnyInitial | None = None
    norm: AnyInitial | None = None
    embedding: AnyInitial | None = None
    recurrent: AnyInitial | None = None
    attention: AnyInitial | None = None
    other: AnyInitial | None = None
    weight: AnyInitial | None = None
    bias: AnyInitial | None = None
    mode: Literal["fan_in", "fan_out"] | None = None
    nonlinearity: str | dict[str, Names] | None = None
    zero_last: Flag | Annotated[tuple[str, ...], BeforeValidator(_in_list)] = False
    lstm_forget_bias: Number | None = None
    scales: dict[str, float] = Field(default_factory=dict)
    wipes: Annotated[int, Field(ge=0)] = 0
    batch: Any = Field(default=None, exclude=True, repr=False)
    _wiped: tuple[str, ...] = PrivateAttr(default=())

    @property
    def wiped(self) -> tuple[str, ...]:
        """Names of the trained parameters that were drawn anew, once the edit is applied."""
        return self._wiped

    @property
    def rules(self) -> dict[str, Initial]:
        """The rules that are given, by kind."""
        return {kind: rule for kind in _RULES if (rule := getattr(self, kind)) is not None}

    @field_validator("nonlinearity")
    @classmethod
    def _known(cls, given: str | dict[str, Names] | None) -> str | dict[str, Names] | None:
        for name in [given] if isinstance(given, str) else given or ():
            check_nonlinearity(name, auto=isinstance(given, str))
        return given

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.rules and not self.zero_last and self.lstm_forget_bias is None:
            raise ValueError(f"an init says how: {', '.join(_RULES)}, zero_last or lstm_forget_bias is needed")
        for kind, rule in self.rules.items():
            if rule.name == "lsuv" and kind not in ("conv", "linear", "weight"):
                raise ValueError(f"lsuv scales convolutions and linear layers, not {kind}")
        if self.batch is not None and not any(rule.name == "lsuv" for rule in self.rules.values()):
            raise ValueError("a batch is for lsuv alone, and no rule is lsuv")
        return self

    @field_validator("batch")
    @classmethod
    def _handed_over(cls, given: Any) -> Any:
        if isinstance(given, (str, bool, int, float)):
            raise ValueError("a batch is handed over in Python: a tensor, a tuple of arguments, or a dict of them")
        return given

    def apply(self, surgery: Surgery) -> Init:
        """Put new parameters in the places of those that a rule names; the old ones are not written."""
        last = ends(self, surgery)
        drawing = draws(self, surgery, last)
        follows = followed(self, surgery, drawing)
        lost = [one for one in drawing if surgery.trained(one.place.tensor)]
        done = self.model_copy(
            update={
                "nonlinearity": follows,
                "zero_last": last or False,
                "batch": None,
                "wipes": sum(one.place.tensor.numel() for one in lost),
            }
        )
        done._wiped = tuple(one.place.name for one in lost)
        scales = put(done, surgery, drawing, self.batch)
        if done.wipes and done.wipes != self.wipes:
            _warn(done, lost, surgery)
        return done.model_copy(update={"scales": scales})

    def sentence(self) -> str:
        """Say what is drawn how."""
        told = [f"{kind} by {rule}" for kind, rule in self.rules.items()]
        told += ["the last norm of each branch by zeros"] if self.zero_last else []
        told += [f"forget biases {self.lstm_forget_bias:g}"] if self.lstm_forget_bias is not None else []
        return f"{', '.join(self.at[:3])}{', …' if self.at[3:] else ''} drawn anew: {', '.join(told)}"


def _warn(edit: Init, lost: list[Draw], surgery: Surgery) -> None:
    """Say what is lost when an edit is made; one that is replayed says it itself, in `wipes`."""
    new = {id(one) for one in surgery.drawn}
    kept = (one for one in surgery.model.parameters() if surgery.trained(one) and id(one) not in new)
    whole = edit.wipes + sum(one.numel() for one in kept)
    names = [one.place.name for one in lost]
    warnings.warn(
        f"{edit.sentence()}: {edit.wipes:,} of {whole:,} trained values ({edit.wipes / whole:.0%}) are lost: "
        f"{', '.join(names[:4])}{', …' if names[4:] else ''}. undo() brings them back",
        TorchgraftWarning,
        stacklevel=8,  # the caller of g.init(…)
    )
