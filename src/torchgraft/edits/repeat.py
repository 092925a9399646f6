"""Repeat: copies of a block behind it, so that the model gets deeper."""

from __future__ import annotations

import inspect
import re
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from torchgraft.edits.base import Edit
from torchgraft.errors import EditError
from torchgraft.paths import homes, joined
from torchgraft.schema import Count, Flag, Places
from torchgraft.select import modules
from torchgraft.surgery.chain import takes_one
from torchgraft.surgery.closing import closing
from torchgraft.surgery.depth import counts_follow, double, layer_numbers, numbers_follow
from torchgraft.surgery.journal import every
from torchgraft.surgery.standing import free_name, is_sequence

if TYPE_CHECKING:
    from torch import nn

    from torchgraft.surgery.journal import Surgery

__all__ = ["Repeat"]


class Repeat(Edit):
    """Put copies of a block, or of several that follow one another, behind the last of them.

    Depth up-scaling: the copies start with the weights of the originals (Kim et al., 2023, SOLAR 10.7B), in new
    tensors. In a Sequential and in a ModuleList they stand by order, and no key is renumbered. Attributes and
    configurations that count the blocks follow, and so do the numbers by which transformers' layers find their
    slot in a cache.

    Attributes:
        at: the block, or several neighbours, such as `[blocks.4, blocks.5]`.
        times: how many copies.
        start: with `identity`, the copies start as the identity: the last layer of each residual branch is zero,
            or where there is none, a gate; with `shared`, they are no copies but the same weights again.
        numbered: renumber the keys of the list, for code that reaches its blocks by number; found out where the
            code can be read.
        names: under which the copies are held; written when the edit is applied.
        moved: new keys, and the base's; written when the edit is applied.
    """

    written: ClassVar[frozenset[str]] = frozenset({"names", "moved"})
    at: Places
    times: Count = 1
    start: Literal["copy", "identity", "shared"] = "copy"
    numbered: Flag | None = None
    names: tuple[str, ...] = ()
    moved: dict[str, str] = Field(default_factory=dict)

    def apply(self, surgery: Surgery) -> Repeat:
        """Copy the blocks, and put the copies behind the last one.

        Raises:
            SelectionError: nothing is selected.
            EditError: the blocks are no neighbours, or can't start as asked.
        """
        chosen = self._chosen(surgery)
        home = chosen[0].rpartition(".")[0]
        parent = surgery.module(home) if home else surgery.model
        if not _in_order(parent):
            return self._behind(surgery, chosen)
        own = [path.rpartition(".")[2] for path in chosen]
        before = list(parent._modules)
        shifts = layer_numbers(parent)
        numbered = self.numbered if self.numbered is not None else _by_number(surgery.model, home)
        copies = [
            (name, self._copy(surgery, path, chosen[-1]))
            for _ in range(self.times)
            for name, path in zip(own, chosen, strict=True)
        ]
        after, names = own[-1], []
        for origin, made in copies:
            name = free_name(origin, parent)
            surgery.insert(home, name, made, after=after)
            if made is surgery.module(joined(home, origin)):  # nothing new stands there
                surgery.added.pop()
            shifts |= {name: shifts[origin]} if origin in shifts else {}
            names.append(name)
            after = name
        numbers_follow(surgery, parent, shifts)
        sources = dict(zip(names, [origin for origin, _ in copies], strict=True))
        order = [before.index(sources.get(name, name)) for name in parent._modules]
        counts_follow(surgery, home, len(before), order)
        moved = (
            {}
            if self.start == "identity"
            else {joined(home, new): joined(home, old) for new, old in sources.items()}
        )
        if numbered:
            names, moved = _renumbered(surgery, home, parent, sources, moved)
        return self.model_copy(
            update={"at": tuple(chosen), "names": tuple(names), "moved": moved, "numbered": numbered or None}
        )

    def _chosen(self, surgery: Surgery) -> list[str]:
        """Give the outermost blocks that are selected: neighbours in one parent, in its order.

        Raises:
            EditError: they are not.
        """
        paths = set(found := modules(surgery.model, self.at, roles=surgery.roles))
        inner = {path for path in paths for home in homes(path) if home in paths}
        chosen = [path for path in found if path not in inner]
        parents = {path.rpartition(".")[0] for path in chosen}
        if len(parents) == 1:
            (home,) = parents
            order = list((surgery.module(home) if home else surgery.model)._modules)
            places = sorted(order.index(path.rpartition(".")[2]) for path in chosen)
            if places == list(range(places[0], places[-1] + 1)):
                return [joined(home, order[place]) for place in places]
        raise EditError(
            f"{', '.join(chosen[:4])}{' …' if chosen[4:] else ''} do not follow one another in one parent",
            where=", ".join(self.at),
            hint="name neighbours, and repeat the others by edits of their own",
        )

    def _copy(self, surgery: Surgery, path: str, last: str) -> nn.Module:
        block = surgery.module(path)
        if self.start == "shared":
            alone = not any("layer_idx" in vars(one) for one in every(block))
            return block if alone else double(surgery.model, block, path, share=True)
        made = double(surgery.model, block, path)
        return _closed(surgery, path, made, last) if self.start == "identity" else made

    def _behind(self, surgery: Surgery, chosen: list[str]) -> Repeat:
        """Put copies behind a module that its parent calls by name: both in a Sequential in its place."""
        from torch import nn

        (path, *more) = chosen
        block = surgery.module(path)
        if more or not (takes_one(block) or is_sequence(block)):
            raise EditError(
                f"the forward of its parent calls {path} by name"
                + (", and more than one tensor is passed" if not more else ""),
                where=path,
                hint="repeat blocks of a Sequential or a ModuleList, or wrap this one in a module of your own",
            )
        every_path = [
            one for one, module in surgery.model.named_modules(remove_duplicate=False) if module is block
        ]
        names = [f"base_{number}" for number in range(2, self.times + 2)]
        parts = [("base", block), *((name, self._copy(surgery, path, chosen[-1])) for name in names)]
        surgery.put(path, nn.Sequential(OrderedDict(parts)))
        surgery.added[-1:] = [f"{path}.{name}" for name in names if self.start != "shared"]
        moved = {f"{one}.{name}": one for one in every_path for name in ("base", *names)}
        if self.start == "identity":
            moved = {f"{one}.base": one for one in every_path}
        return self.model_copy(update={"at": (path,), "names": tuple(names), "moved": moved})

    def sentence(self) -> str:
        """Say what is repeated."""
        what = ", ".join(self.at[:4]) + (f" and {len(self.at) - 4} more" if self.at[4:] else "")
        how = {"copy": "", "identity": ", starting as the identity", "shared": ", with the same weights"}[
            self.start
        ]
        again = "once more" if self.times == 1 else f"{self.times} more times"
        return f"{what} follow{'s' if len(self.at) == 1 else ''} {again}{how}"


def _in_order(parent: nn.Module) -> bool:
    """Tell whether a parent holds its children in an order that code goes through."""
    from torch import nn

    return is_sequence(parent) or isinstance(parent, (nn.Sequential, nn.ModuleList, nn.ModuleDict))


def _by_number(model: nn.Module, home: str) -> bool:
    """Tell whether the code around a ModuleList reaches its blocks by number: `self.blocks[i]`, no slice."""
    from torch import nn

    parent, _, name = home.rpartition(".")
    holder = model.get_submodule(parent)
    if not home or not isinstance(holder._modules[name], nn.ModuleList):
        return False
    try:
        code = inspect.getsource(type(holder))
    except (OSError, TypeError):
        return False
    return re.search(rf"\w\.{re.escape(name)}\[[^\]:]*\]", code) is not None


def _renumbered(
    surgery: Surgery, home: str, parent: nn.Module, sources: dict[str, str], moved: dict[str, str]
) -> tuple[list[str], dict[str, str]]:
    """Give the children numbers in their order, from the last to the first, so that none is taken."""
    order = list(parent._modules)
    numbers = {name: str(place) for place, name in enumerate(order)}
    for name in reversed([one for one in order if one not in sources]):
        if name != numbers[name]:
            surgery.rename(joined(home, name), numbers[name])
    for name in sources:
        surgery.rename(joined(home, name), numbers[name])
    added = {joined(home, name): joined(home, numbers[name]) for name in sources}
    # Code that stops at a fixed number would leave out the last blocks without a word: they must be called too.
    surgery.added = [*(added.get(path, path) for path in surgery.added), joined(home, str(len(order) - 1))]
    now: dict[str, str] = {}
    for name in order:  # ascending, so that no key is led on twice
        old = joined(home, name) if name not in sources else moved.get(joined(home, name))
        new = joined(home, numbers[name])
        if old is not None and old != new:
            now[new] = old
    return [numbers[name] for name in sources], now


def _closed(surgery: Surgery, path: str, made: nn.Module, arrives: str) -> nn.Module:
    """Let a copy start as the identity.

    Raises:
        EditError: it has no residual branches, and no gate can be put around it.
    """
    import torch
    from torch import nn

    zero = closing(surgery.look(False), path, arrives)
    if zero is not None:
        named = dict(made.named_parameters())
        with torch.no_grad():
            for name in zero:
                if name.removeprefix(f"{path}.") in named:
                    named[name.removeprefix(f"{path}.")].zero_()
        return made
    given, gave = surgery.look(False).given(path), surgery.look(False).gave(path)
    if (
        len(given) == len(gave) == 1
        and given[0].shape == gave[0].shape
        and (takes_one(made) or isinstance(made, nn.Sequential))
    ):
        return _gated(made)
    raise EditError(
        f"this {type(made).__name__} has no residual branches to close, and takes or gives several tensors",
        where=path,
        hint="start: copy keeps the weights as they are",
    )


def _gated(block: nn.Module) -> nn.Module:
    """Pass from what a block takes to what it gives by a gate: 0, where it starts, is the former, 1 the latter."""
    import torch
    from torch import fx, nn

    graph = fx.Graph()
    given = graph.placeholder("x")
    gave = graph.call_module("block", (given,))
    graph.output(graph.call_function(torch.lerp, (given, gave, graph.get_attr("gate"))))
    root = nn.Module()
    root.add_module("block", block)
    like: Any = next((one for one in block.parameters() if one.is_floating_point()), torch.zeros(()))
    root.register_parameter("gate", nn.Parameter(torch.zeros((), dtype=like.dtype, device=like.device)))
    return fx.GraphModule(root, graph, class_name="Gated")
