"""Predict the memory of training: the steps are run on the ghost of the model, whose tensors have no values."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from torchgraft.errors import TorchgraftError, TrainError
from torchgraft.given import inputs
from torchgraft.memory.counter import Counter
from torchgraft.memory.course import Course
from torchgraft.memory.kernels import AsOnGpu
from torchgraft.memory.loss import Judge
from torchgraft.memory.steps import Job, again, walk
from torchgraft.methods import running
from torchgraft.probes.arguments import is_named
from torchgraft.probes.captures import captures_kept
from torchgraft.recipe import TrainPlan
from torchgraft.rng import rng_kept
from torchgraft.trace.body import Body, Part
from torchgraft.trace.caches import Caches
from torchgraft.trace.ghost import fake
from torchgraft.trace.quiet import unprinted
from torchgraft.trace.tree import mapped
from torchgraft.train.augment import augmentation
from torchgraft.train.checkpointing import checkpointed_modules
from torchgraft.train.rates import groups_of, unfreezing

if TYPE_CHECKING:
    from torchgraft.graft import Graft

__all__ = ["Case", "predicted", "predicted_peak"]


@dataclass(frozen=True)
class Case:
    """What is asked of a prediction.

    Attributes:
        plan: how it is trained.
        still: names of parameters that are frozen for this prediction alone.
        shape: of one input, where it is another than the graft's.
        accelerated: as it would be on a GPU.
        loss: the user's own, with an example of its targets.
    """

    plan: TrainPlan
    still: Collection[str] = ()
    shape: tuple[int, ...] | None = None
    accelerated: bool = False
    loss: Any = None
    targets: Any = None
    words: list[str] = field(default_factory=list)


def predicted(graft: Graft, case: Case) -> Course:
    """Count two optimizer steps on fake tensors; the model is only read.

    Raises:
        EditError: the model does not run; carries the finding.
        TrainError: nothing can be trained, or the step can't be run without values.
        SelectionError: a selector of the plan matches nothing.
    """
    with _ready(graft, case) as (job, counter):
        walk(job, counter)
    case.words[:] = [job.judge.words]
    return Course(tuple(counter.events))


def predicted_peak(graft: Graft, case: Case, known: Course) -> int:
    """Give the peak of a case whose optimizer and trained weights are those of a course that is known already.

    Raises:
        TrainError: the step can't be run.
    """
    with _ready(graft, case) as (job, counter):
        extra = again(job, counter, known)
    return Course(tuple(counter.events)).peak() + extra


@contextmanager
def _ready(graft: Graft, case: Case) -> Iterator[tuple[Job, Counter]]:
    """Set a job up and make all ready to run it on fake tensors; nothing of it stays in the model."""
    running(graft, "memory")
    counter = Counter()
    stage = _Stage(graft, case, counter)
    with ExitStack() as around:
        around.enter_context(captures_kept(graft.module))
        around.enter_context(rng_kept())
        job = stage.job()
        around.enter_context(Caches().of(stage.body.files))
        around.enter_context(_eager())
        around.enter_context(unprinted())
        around.enter_context(torch.enable_grad())
        around.enter_context(_told(graft, counter))
        around.enter_context(stage.mode)
        if stage.gpu:
            around.enter_context(AsOnGpu())
        around.enter_context(counter)
        yield job, counter


class _Stage:
    """The ghost of a graft's model, its batch and its optimizer."""

    def __init__(self, graft: Graft, case: Case, counter: Counter) -> None:
        self.graft, self.case, self.counter = graft, case, counter
        self.gpu = case.accelerated and not any(one.device.type != "cpu" for one in _on_devices(graft.module))
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)
        model: nn.Module = getattr(graft.module, "_orig_mod", graft.module)
        self.body = Body(model, self._stand_in, self._wrapped, lambda _: None)
        self.body.sweep()

    def job(self) -> Job:
        """Set up what is trained."""
        plan, graft = self.case.plan, self.graft
        self._freeze()
        again = checkpointed_modules(graft.module, plan.checkpointing, roles=graft.roles)
        made = self._inputs()
        device = next((one.device for one in self.body.ghost.parameters()), torch.device("cpu"))
        return Job(
            model=self.body.ghost,
            plan=plan,
            groups=self._groups(),
            given=lambda: self._batch(made),
            judge=Judge.of(graft, plan.label_smoothing, self.case.loss, self.case.targets),
            device=device,
            again=[self.body.parts[id(one)].ghost for one in again.values()],
            accelerated=self.case.accelerated,
        )

    def _stand_in(self, tensor: Tensor) -> Tensor:
        made = fake(self.mode, tensor)
        return made.requires_grad_(tensor.requires_grad) if tensor.is_floating_point() else made

    def _wrapped(self, part: Part, forward: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            # The backward pass knows no function modes, and what is checkpointed has to find the same kernels.
            again = self.gpu and self.counter.phase == "backward" and not self.counter.is_inside
            with self.counter.inside(part.path), AsOnGpu() if again else nullcontext():
                return forward(*args, **kwargs)

        call.__wrapped__ = forward  # type: ignore[attr-defined]  # inspect.signature follows it
        return call

    # what is trained

    def _freeze(self) -> None:
        """Set the flags of the ghost: as the model's, with all that the plan unfreezes on the way."""
        free = {name for step in unfreezing(self.graft, self.case.plan) for name in step.names}
        if any(one.every is not None for one in self.case.plan.unfreeze):
            free |= dict(self.graft.module.named_parameters()).keys()
        still = set(self.case.still)
        for name, one in self.graft.module.named_parameters():
            twin = self.body.stand_in(one)
            twin.requires_grad_((one.requires_grad or name in free) and name not in still)
        if not any(one.requires_grad for one in self.body.ghost.parameters()):
            raise TrainError("every parameter is frozen", where=self.graft.name, hint="unfreeze: {at: head}")

    def _groups(self) -> list[Mapping[str, Any]]:
        """Give the optimizer's groups over the ghost's parameters; what is unfrozen later goes along."""
        found: list[Mapping[str, Any]] = []
        seen: set[int] = set()
        for group in groups_of(self.graft, self.case.plan):
            twins = [self.body.stand_in(one) for one in group["params"]]
            twins = [one for one in twins if one.requires_grad]
            seen |= set(map(id, twins))
            if twins:
                found.append({"params": twins, **{k: v for k, v in group.items() if k not in ("params", "names")}})
        late = [one for one in self.body.ghost.parameters() if one.requires_grad and id(one) not in seen]
        return [*found, {"params": late}] if late else found

    # what goes in

    def _inputs(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Give the arguments of one batch without data."""
        given = inputs(self.graft.recipe, self.graft.module, self.graft._example)
        rows, batch = self.graft.trace().batch, self.case.plan.batch
        if self.case.shape is not None:
            given = torch.empty(rows, *self.case.shape, device="meta", dtype=given.dtype)
        if is_named(given, self.graft.module):
            return (), _resized(dict(given), rows, batch)
        return _resized(given if isinstance(given, tuple) else (given,), rows, batch), {}

    def _batch(self, made: Any) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
        """Make one batch, varied as the plan says, and give what the loader holds of it beside."""
        args, kwargs = mapped(lambda one: fake(self.mode, one), made)
        first = args[0] if len(args) == 1 else None
        if self.case.plan.augment == "none" or not isinstance(first, Tensor) or first.dim() != 4:
            return args, kwargs, None
        varied = augmentation(self.case.plan)(first)
        return (varied,), kwargs, None if self.case.accelerated else first


def _on_devices(model: nn.Module) -> Iterator[nn.Parameter]:
    """Give the parameters that are somewhere: those on meta are taken as on a CPU."""
    yield from (one for one in model.parameters() if one.device.type != "meta")


def _resized(tree: Any, rows: int, batch: int) -> Any:
    """Give every tensor whose first dimension is the batch another number of samples; lists of samples too."""

    def sized(one: Tensor) -> Tensor:
        many = one.dim() > 0 and one.shape[0] == rows
        shape = (batch, *one.shape[1:]) if many else one.shape
        return torch.empty(shape, dtype=one.dtype, device=torch.device("meta"))

    if isinstance(tree, tuple) and len(tree) == 1 and isinstance(tree[0], list) and len(tree[0]) == rows:
        first = tree[0][0]
        return ([mapped(lambda one: one.to("meta"), first) for _ in range(batch)],)
    return mapped(sized, tree)


@contextmanager
def _told(graft: Graft, counter: Counter) -> Iterator[None]:
    """Tell where a step broke off."""
    try:
        yield
    except TorchgraftError:
        raise
    except DataDependentOutputException as error:
        raise TrainError(
            f"the {counter.phase} pass asks for a value of a tensor ({error.func}), and fake ones have none",
            where=" / ".join(filter(None, (graft.name, counter.broke))),
            hint="a flow that depends on values can't be predicted; torchgraft profile measures the memory",
        ) from error
    except Exception as error:  # whatever the user's code or torch raises is what is to be told
        raise TrainError(
            f"the {counter.phase} pass breaks off: {type(error).__name__}: {str(error).strip().splitlines()[0]}"
            if str(error).strip()
            else f"the {counter.phase} pass breaks off: {type(error).__name__}",
            where=" / ".join(filter(None, (graft.name, counter.broke))),
            hint="torchgraft check says more; loss=… takes a loss of your own, in Python",
        ) from error


def _eager() -> Any:
    """Keep compiled functions from compiling; where torch's compiler was never loaded, there is none."""
    if "torch._dynamo" in sys.modules:
        return torch.compiler.set_stance("force_eager")
    return ExitStack()
