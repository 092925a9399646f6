"""A model over several processes: copied to each (DDP), or shared out among them (FSDP2)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parallel import DistributedDataParallel

from torchgraft.errors import TrainError
from torchgraft.train.many.blocks import repeated
from torchgraft.train.many.dress import Dress
from torchgraft.train.many.norms import agree
from torchgraft.train.prefix.place import free_memory
from torchgraft.train.prefix.record import state_kept

if TYPE_CHECKING:
    from torchgraft.trace import Trace
    from torchgraft.train.world import World
    from torchgraft.trainplan import TrainPlan

__all__ = ["Spread", "alike", "still"]


class Spread:
    """A model over several processes.

    Gradients come out as the mean over the processes. Where each weighs its loss by the number of processes times
    its share of the batch, that is the gradient of the whole batch's mean loss, however uneven the parts are.

    Args:
        model: on the device of this process; `fsdp` leaves it with its own part of each parameter.
        plan: says which way.
        world: the processes.
        trace: a training pass of the model.

    Attributes:
        run: what is called in the place of the model.
        shares: whether each process holds a part of every parameter only.
    """

    def __init__(self, model: nn.Module, plan: TrainPlan, world: World, trace: Trace) -> None:
        self.model, self.world = model, world
        self.shares = plan.parallel == "fsdp"
        self.used = trace.used if trace.mismatch is None else None
        self.trained: list[nn.Parameter] = []
        self.rehearsed = True
        self.run: Any = model
        self.dress: Dress | None = None
        if self.shares:
            _check(model, plan)
            self.dress = Dress(model)
            _share_out(model, plan, world, trace)
            self.dress.free()
        else:
            self.renew()

    def renew(self) -> bool:
        """Hear of what was unfrozen, and tell whether any was: DDP knows what was trainable when it was made."""
        trained = [one for one in self.model.parameters() if one.requires_grad]
        if self.shares or [id(one) for one in trained] == [id(one) for one in self.trained]:
            return False
        self.trained, self.rehearsed = trained, self.world.size < 3
        with warnings.catch_warnings():  # its successor sends the first process's buffers to all when it is made
            warnings.filterwarnings("ignore", message=".*broadcast_buffers", category=FutureWarning)
            self.run = DistributedDataParallel(
                self.model,
                broadcast_buffers=False,  # statistics of norms are each process's own until they agree
                gradient_as_bucket_view=True,
                find_unused_parameters=self._has_unused(),
            )
        return True

    def rehearse(self, loss: Callable[[], Tensor]) -> None:
        """Run one pass that counts for nothing, where DDP is new.

        The last bit of a sum over more than two processes depends on where in its bucket a gradient lies, and DDP
        sorts its buckets after the first pass: what is resumed must not begin with other ones.

        Args:
            loss: runs the model forward, and gives the loss.
        """
        if self.rehearsed:
            return
        self.rehearsed = True
        with state_kept(self.model):
            loss().backward()  # type: ignore[no-untyped-call]
        for one in self.trained:
            one.grad = None

    def _has_unused(self) -> bool:
        """Tell whether a trainable parameter may get no gradient; letting DDP look costs a walk at each step."""
        if self.used is None:
            return True
        held = self.model.named_parameters(remove_duplicate=False)
        used = {id(one) for name, one in held if name in self.used}
        return any(id(one) not in used for one in self.trained)

    def synchronised(self, *, closes: bool) -> AbstractContextManager[Any]:
        """Let processes exchange the gradients of a forward and backward pass only where it closes a step."""
        if not self.shares:
            return nullcontext() if closes else self.run.no_sync()
        self.model.set_requires_gradient_sync(closes)  # type: ignore[operator]
        return nullcontext()

    def agree(self) -> None:
        """Let every process have the same buffers, to be judged by and kept."""
        agree(self.model, self.world)

    def back(self) -> None:
        """Leave the plain model behind: the first process has every parameter whole, the others' are on meta.

        Raises:
            TrainError: its machine has not the memory; the model is left as it is, shared out.
        """
        if self.dress is None:
            return
        size, free = sum(one.numel() * one.element_size() for one in self.model.parameters()), free_memory()
        (lacks,) = self.world.any(self.world.writes and free is not None and size > free)
        if lacks:
            raise TrainError(
                f"the trained model takes {size / 2**30:.2f} GiB, more than the first process's machine has free",
                where="train.parallel",
                hint="the last state is kept, shared out over files: go on with --resume on a larger machine",
            )
        self.dress.off(keep=self.world.writes)


@contextmanager
def still(model: nn.Module) -> Iterator[None]:
    """Let a pass that counts for nothing leave no trace: norms and dropout keep still while the block runs."""
    parts = [one for one in model.modules() if isinstance(one, (_NormBase, _DropoutNd)) and one.training]
    for one in parts:
        one.training = False
    try:
        yield
    finally:
        for one in parts:
            one.training = True


def alike(tensors: Mapping[str, Tensor], parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Share tensors out as their counterparts are, so that a state of one process goes on in several.

    Args:
        tensors: by the names of a snapshot.
        parts: the parameter that each is a value of, or belongs to; what has none, or another shape, stays whole.
    """
    return {name: _as(one, parts.get(name)) for name, one in tensors.items()}


def _as(tensor: Tensor, part: Tensor | None) -> Tensor:
    if not isinstance(part, DTensor) or isinstance(tensor, DTensor) or tensor.shape != part.shape:
        return tensor
    moved = tensor.to(part.device_mesh.device_type)
    return distribute_tensor(moved, part.device_mesh, part.placements, src_data_rank=None)


def _check(model: nn.Module, plan: TrainPlan) -> None:
    """Refuse what `fully_shard` can't share out."""
    if plan.channels_last:
        raise TrainError(
            "fsdp shares weights out row by row, and channels_last lays them out otherwise",
            where="train.parallel",
            hint="leave channels_last out, or take parallel: ddp",
        )
    single = [name for name, one in model.named_parameters() if one.dim() == 0]
    if single:
        raise TrainError(
            f"fsdp can't share out a parameter of a single number: {single[0]}",
            where="train.parallel",
            hint="take parallel: ddp",
        )


def _share_out(model: nn.Module, plan: TrainPlan, world: World, trace: Trace) -> None:
    settings: dict[str, Any] = {"mesh": world.mesh, "mp_policy": _policy(model, plan)}
    for block in repeated(model, trace.called):
        fully_shard(block, **settings)
    fully_shard(model, reshard_after_forward=True, **settings)  # so that between two steps nothing is whole


def _policy(model: nn.Module, plan: TrainPlan) -> MixedPrecisionPolicy:
    """Send weights in bf16 where the pass is, unless batch statistics want theirs in fp32; gradients in fp32."""
    if plan.precision != "bf16" or any(isinstance(one, _NormBase) for one in model.modules()):
        return MixedPrecisionPolicy()
    return MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False)
