"""Which loss function of torch a loss is, told by its class or name alone: for a check without data."""

from __future__ import annotations

from typing import Any

from torchgraft.errors import RecipeError
from torchgraft.family import kind_of
from torchgraft.wording import named

__all__ = ["check_loss", "loss_name"]

_OTHERWISE = {
    "nllloss": "nll_loss",
    "bceloss": "binary_cross_entropy",
    "bce_with_logits_loss": "binary_cross_entropy_with_logits",
    "bcewith_logits_loss": "binary_cross_entropy_with_logits",
    "cross_entropy_loss": "cross_entropy",
    "mseloss": "mse_loss",
    "l1loss": "l1_loss",
}


def check_loss(loss: Any) -> None:
    """Refuse what can't be called as `loss(outputs, targets)`.

    Raises:
        RecipeError: a class, a name, anything else that is no function.
    """
    if loss is None or (callable(loss) and not isinstance(loss, type)):
        return
    raise RecipeError(
        f"{named(loss)} is no loss",
        where="loss",
        hint=f"make one: {loss.__name__}()"
        if isinstance(loss, type)
        else "give what is called with (outputs, targets), such as torch.nn.CrossEntropyLoss()",
    )


def loss_name(loss: Any) -> str:
    """Give the name of the function in torch.nn.functional; empty for one of the user's own."""
    if loss is None:
        return ""
    home = loss if hasattr(loss, "__name__") else type(loss)
    if not str(getattr(home, "__module__", "")).startswith(("torch.nn", "torch._C")):
        return ""
    name = home.__name__
    return _OTHERWISE.get(kind_of(name), name if name.islower() else kind_of(name))
