"""The working object: a plain module, its recipe and its latest trace. Applying an edit is a transaction."""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn

from torchgraft import past
from torchgraft.edits.base import Edit, kinds
from torchgraft.errors import EditError, RecipeError, nearest
from torchgraft.given import input_shape, inputs
from torchgraft.looks import Looks, Mode
from torchgraft.methods import VERBS, Workbench, edit_of, method_of, numbered, roles_of, running
from torchgraft.offers import offers
from torchgraft.params.depths import depths_of
from torchgraft.params.follow import follow, named_of
from torchgraft.params.groups import NO_DECAY, Groups, Settings, parameter_groups
from torchgraft.preprocess import Preprocess
from torchgraft.probes.sets import sets
from torchgraft.recipe import Recipe
from torchgraft.repair import WAYS, Way
from torchgraft.rules import Evidence, Finding, judge
from torchgraft.select import Roles
from torchgraft.surgery.journal import Change, Surgery, every
from torchgraft.trace import Trace
from torchgraft.trace.order import order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from torchgraft.store.manifest import Manifest

__all__ = ["Graft"]


class Graft:
    """A model under change.

    Attributes:
        module: the model itself: plain PyTorch, no hook, no class of torchgraft.
        recipe: what was done to it, as data.
        preprocess: how the base's images were prepared, if its source says so.
        tokenizer: where the tokenizer of the base's texts lies, if its source has one.
        version: the kept version that this graft was opened from, if it was.
        filled: weights were loaded into the model since.
    """

    def __init__(
        self,
        module: nn.Module,
        recipe: Recipe,
        *,
        example: Any = None,
        preprocess: Preprocess | None = None,
        tokenizer: str | None = None,
        trust: bool = False,
        real: bool = False,
    ) -> None:
        self.module = module
        self.recipe = recipe
        self.preprocess = preprocess
        self.tokenizer = tokenizer
        self.trust = trust
        self.version: Manifest | None = None
        self.filled = False
        self._example = example
        self._history: list[tuple[Edit, Surgery]] = []
        self._undone: list[tuple[Edit, Surgery]] = []
        self._optimizer: torch.optim.Optimizer | None = None
        self._looks = Looks(module, self._inputs, real=real)

    # looking

    @property
    def name(self) -> str:
        """What the model is called in findings."""
        return self.recipe.title

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        """The shape of one input as the model takes it now, without the batch."""
        return input_shape(self.recipe)

    def trace(self, *, train: bool = False, cached: bool = True) -> Trace:
        """Give the trace of the model as it stands, in evaluation or training mode.

        Args:
            train: in training mode.
            cached: answer from memory what was traced before; without it every module really runs again, with
                the same result.

        Raises:
            SourceError: the shape of the input is not known.
        """
        mode: Mode = "train" if train else "eval"
        if not cached:
            return self._looks.whole(mode)
        self._looks.sweep()
        return self._looks.of(mode)

    def _inputs(self) -> Any:
        return inputs(self.recipe, self.module, self._example)

    @property
    def roles(self) -> Roles:
        """Selector names that stand for paths: `head` is what makes the output, `stem` what reads the input."""
        return roles_of(self)

    @property
    def added(self) -> dict[str, int]:
        """Paths of the modules that edits put in, and the number of the edit."""
        return past.added(self.module, self._history)

    def base_tensors(self) -> dict[str, Tensor]:
        """Give the tensors of the base, by its names and as it held them, those that edits took out too."""
        return past.base_tensors(self.module, self._history)

    def new_parameters(self) -> dict[int, int]:
        """Count the parameters that each edit put in, by the number of the edit."""
        return past.new_parameters(self.module, self._history)

    def evidence(self, *, quick: bool = False) -> Evidence:
        """Give what fake tensors show of the model as it stands: traces in evaluation and training mode.

        Args:
            quick: leave out the pass with twice as many samples, and the sets of parameters.
        """
        self._looks.sweep(quick=quick)
        runs = (self._looks.of("eval"), self._looks.of("train"))
        rows = [runs[0].values[number].shape[:1] for number in runs[0].inputs]
        whole = not quick and runs[0].mismatch is None and not self._looks.real and (runs[0].batch,) in rows
        return Evidence(
            self.module,
            runs,
            self.added,
            self.name,
            wide=self._looks.of("wide") if whole else None,
            sets=None if quick else sets(self.module),
            table=self._looks.modules,
            edits=self.recipe.edits,
        )

    def __str__(self) -> str:
        edits = "\n".join(f"  {n}. {edit.sentence()}" for n, edit in enumerate(self.recipe.edits, 1))
        return f"{self.recipe.base}\n{edits or '  unchanged'}"

    __repr__ = __str__

    # changing

    def apply(self, edit: Edit, *, fix: Way | None = None, optimizer: torch.optim.Optimizer | None = None) -> Self:
        """Apply an edit, trace and check the model; what does not fit is taken back.

        Args:
            edit: what is changed.
            fix: make it fit: `adapt` restores what the place gave before, `propagate` resizes what comes after.
                The edits that this takes follow in the recipe.
            optimizer: what trains the model already: new parameters come into the right groups, those that are
                gone or frozen leave with their state; undo takes this back too.

        Raises:
            EditError: the edit does not fit; it carries the findings with the fixes that work, and the model is
                as it was.
        """
        edit = edit_of(edit)
        if fix is not None and fix not in WAYS:
            raise RecipeError(f"there is no fix '{fix}'", where=edit.kind(), hint=f"one of {', '.join(WAYS)}")
        with self._followed_by(optimizer):
            errors = self._attempt(edit, fix)
        if errors:
            tried = offers(self, edit) if fix is None else ()
            first = dataclasses.replace(errors[0], fixes=tried)
            raise EditError(
                f"the edit does not fit{f', and {fix} does not mend it' if fix else ''}: {edit.sentence()}",
                where=f"{self.name}, edit {len(self.recipe.edits) + 1}",
                hint="the model is unchanged; see the finding",
                findings=(first, *errors[1:]),
            )
        self._undone.clear()
        return self

    def apply_all(self, edits: Sequence[Edit]) -> Self:
        """Apply edits that belong together: they are judged at the end, since a later one may mend an earlier.

        Raises:
            EditError: together they do not fit; the error is that of the first that does not fit by itself.
        """
        self._looks.sweep()
        mark = self._mark()
        try:
            for number, edit in enumerate(edits, len(self.recipe.edits) + 1):
                with numbered(number):
                    self._do(edit_of(edit))
            if any(edit.structural for edit in edits) and self._faults():
                self._back_to(mark)
                for edit in edits:
                    self.apply(edit)
        except BaseException:
            self._back_to(mark)
            raise
        self._undone.clear()
        return self

    @contextmanager
    def _followed_by(self, optimizer: torch.optim.Optimizer | None) -> Iterator[None]:
        """Let an optimizer follow every edit that is made meanwhile."""
        self._optimizer = optimizer
        try:
            yield
        finally:
            self._optimizer = None

    def _attempt(self, edit: Edit, fix: Way | None) -> tuple[Finding, ...]:
        """Apply an edit and what mends it; where errors remain, take all back and give them."""
        self._looks.sweep()
        mark = self._mark()
        try:
            errors = self._errors(edit, fix)
        except BaseException:
            self._back_to(mark)
            raise
        if errors:
            self._back_to(mark)
        return errors

    def _errors(self, edit: Edit, fix: Way | None) -> tuple[Finding, ...]:
        if not edit.structural:
            self._do(edit)
            return ()
        before = self._looks.of("eval")
        if edit.needs_fit and before.mismatch is not None:
            raise self._does_not_run(edit.kind())
        added = self._do(edit)
        if fix is not None:
            WAYS[fix](Workbench(self), self._history[-1][0], added, before)
        if before.mismatch is not None:
            return ()
        return self._faults()

    def _faults(self) -> tuple[Finding, ...]:
        """Give the findings that are errors."""
        return tuple(finding for finding in judge(self.evidence(quick=True), errors=True) if finding.is_error)

    def _does_not_run(self, asked: str) -> EditError:
        return EditError(
            f"the model does not run on its input as it is, so '{asked}' can't be found",
            where=self.name,
            hint="see the finding; mend the model or its input first",
            findings=self._faults(),
        )

    def _do(self, edit: Edit) -> list[str]:
        """Apply an edit unjudged, and give the paths of the modules it put in."""
        surgery = Surgery(
            self.module,
            look=lambda train: self._looks.of("train" if train else "eval"),
            roles=roles_of(self, swept=True),
            seed=self.recipe.seed * 1_000_003 + len(self.recipe.edits),
            trust=self.trust,
            untrained=self._untrained,
            put=lambda: past.put_in(self._history),
        )
        before = named_of(self.module) if self._optimizer else {}
        try:
            done = edit.apply(surgery)
            if self._optimizer:
                surgery.also(Change(*follow(self._optimizer, before, named_of(self.module))))
        except BaseException:
            surgery.undo()
            raise
        surgery.settle()
        self._history.append((done, surgery))
        self.recipe = self.recipe.model_copy(update={"edits": (*self.recipe.edits, done)})
        if edit.structural:
            self._looks.forget(surgery.touched)
        return surgery.added

    @property
    def is_random(self) -> bool:
        """Whether the base has random weights, and none were loaded since."""
        base = self.recipe.base.lower().partition("#")[0]
        return base.endswith("@none") and not (base.startswith("file:") or self.version or self.filled)

    def _untrained(self) -> set[int]:
        """Give ids of the parameters with nothing to lose: of a random base, and what edits put in or drew."""
        if self.is_random:
            return {id(one) for part in every(self.module) for one in part._parameters.values()}
        return past.put_in(self._history)

    def _mark(self) -> _Mark:
        return list(self._history), self.recipe, self._looks.mark()

    def _back_to(self, mark: _Mark) -> None:
        """Take back all that was done since a mark."""
        history, recipe, traces = mark
        for _, surgery in reversed(self._history[len(history) :]):
            surgery.undo()
        self._history, self.recipe = list(history), recipe
        self._looks.back_to(traces)

    def undo(self) -> Self:
        """Take the last edit back, exactly.

        Raises:
            EditError: there is none.
        """
        if not self._history:
            raise EditError("there is no edit to take back", where=self.name)
        edit, surgery = self._history.pop()
        surgery.undo()
        self._undone.append((edit, surgery))
        self.recipe = self.recipe.model_copy(update={"edits": self.recipe.edits[:-1]})
        self._looks.forget()
        return self

    def redo(self) -> Self:
        """Make the edit again that was taken back last.

        Raises:
            EditError: there is none.
        """
        if not self._undone:
            raise EditError("there is no edit to make again", where=self.name)
        edit, surgery = self._undone.pop()
        surgery.redo()
        self._history.append((edit, surgery))
        self.recipe = self.recipe.model_copy(update={"edits": (*self.recipe.edits, edit)})
        self._looks.forget()
        return self

    # parameters

    def groups(
        self,
        settings: Settings | None = None,
        *,
        layer_decay: float | None = None,
        no_decay: str | Iterable[str] = NO_DECAY,
        **default: Any,
    ) -> Groups:
        """Sort the trainable parameters into parameter groups for an optimizer of torch; `print` shows a table.

        Args:
            settings: for each selector, such as `conv1.**` or `head`, what differs; the last that selects wins.
            layer_decay: let the rates fall from the last layer to the first, by this factor a layer; see
                docs/howto.md.
            no_decay: what weight decay spares wherever one is named; `()` spares nothing.
            default: the settings of all other trainable parameters, such as `lr=1e-3`.

        Returns:
            a list of one dict for each group, with `params`, `names` and settings: every trainable parameter is in
            exactly one group, no frozen one in any.
        """
        return parameter_groups(
            self.module,
            settings or {},
            default,
            roles=self.roles,
            no_decay=no_decay,
            layer_decay=layer_decay,
            depths=lambda: depths_of(self.module, lambda: order(running(self, "layer_decay"), self.module)),
        )

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Give what one does with a graft: it lives in higher layers, imported when it is asked for."""
        if name not in VERBS:
            known = [one for one in (*VERBS, *kinds(), *dir(type(self))) if not one.startswith("_")]
            raise AttributeError(f"a graft has no '{name}'; {nearest(name, known)}")
        home, _, verb = VERBS[name].partition(":")
        return functools.partial(getattr(importlib.import_module(home), verb), self)


_Mark = tuple[list[tuple[Edit, Surgery]], Recipe, dict[Mode, Trace]]


for _kind, _cls in kinds().items():
    setattr(Graft, _kind, method_of(_kind, _cls))
