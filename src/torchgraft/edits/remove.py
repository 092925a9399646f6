"""Remove: take a module out, and join what stood before and after it."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from torchgraft.edits.base import Edit
from torchgraft.surgery.chain import Form, passing, takes_one
from torchgraft.surgery.lists import follow_length, is_list, runs_with
from torchgraft.surgery.standing import gives_pair, is_sequence, look_like

if TYPE_CHECKING:
    from torch import nn

    from torchgraft.surgery.journal import Surgery

__all__ = ["Remove"]


class Remove(Edit):
    """Take the module `at` out, and join what stood before and after it.

    It leaves a Sequential without renumbering, and a list of layers too where the model goes through the list;
    what tells the number of layers follows. Elsewhere an Identity takes its place, or what gives the first of
    several arguments back.
    """

    at: str

    def apply(self, surgery: Surgery) -> Remove:
        """Drop the reference, or put what passes its input on where the parent's code calls the module by name."""
        parent, own = surgery.parent(self.at)
        if is_sequence(parent):
            surgery.drop(self.at)
        elif not (is_list(parent) and self._from_list(surgery, parent, own)):
            surgery.put(self.at, self._instead(surgery))
            surgery.added.pop()
        return self

    def _from_list(self, surgery: Surgery, parent: nn.Module, own: str) -> bool:
        """Take the module out of a list of layers, where the model then goes through the others."""
        count, place = len(parent._modules), list(parent._modules).index(own)

        def change(one: Surgery) -> None:
            one.drop(self.at)
            follow_length(one, self.at.rpartition(".")[0], count, place=place)

        fits = count > 1 and runs_with(surgery, change, without=self.at)
        if fits:
            change(surgery)
        return fits

    def _instead(self, surgery: Surgery) -> nn.Module:
        from torch import nn

        old = surgery.module(self.at)
        if takes_one(old) and len(surgery.look(False).gave(self.at)) < 2:
            return nn.Identity()
        forms: tuple[Form, ...] = ("pair",) if gives_pair(old) else ("tensor", "single", "pair")
        made = [_passing(old, form) for form in forms]
        fits = (one for one in made if runs_with(surgery, functools.partial(_put, self.at, one), without=self.at))
        return next(fits, made[0])

    def sentence(self) -> str:
        """Say what is gone."""
        return f"{self.at} is removed"


def _passing(old: nn.Module, form: Form) -> nn.Module:
    """Give a module that passes its first argument on, and tells what the old one told."""
    made = passing(form)
    look_like(made, old)
    for name in old._parameters:  # the parent may ask whether there is a bias, say
        setattr(made, name, None)
        made.meta["_user_preserved_attributes"][name] = None
    return made


def _put(path: str, module: nn.Module, surgery: Surgery) -> None:
    surgery.put(path, module)
