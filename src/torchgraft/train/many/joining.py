"""Join the processes that a launcher started, and leave them: at the end, or when one of them is lost."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn
from torch._C._distributed_c10d import PrefixStore
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.rendezvous import rendezvous
from torch.nn.modules.batchnorm import _NormBase

from torchgraft.errors import TrainError
from torchgraft.train.many.peers import fallen, is_of_peers, lost, place
from torchgraft.train.world import ALONE, World

if TYPE_CHECKING:
    from types import FrameType

    from torchgraft.trainplan import TrainPlan

__all__ = ["in_words", "joined"]


@contextmanager
def joined(plan: TrainPlan) -> Iterator[World]:
    """Be one of the processes that torchrun started while the block runs; alone where nobody started any.

    Within it, an error of one process ends all of them with the same words, and a process that is lost is named.

    Args:
        plan: names the device and how long processes wait for each other.

    Raises:
        TrainError: the processes can't meet, a machine has fewer GPUs than processes, or one of them is lost.
    """
    if not dist.is_available() or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    if dist.is_initialized():  # by the user's own script, which also ends it
        yield _world(_device(plan), plan, dist.distributed_c10d._get_default_store())
        return
    with _ended_by_signal():
        world = _entered(plan)
        try:
            yield world
        except Exception as error:
            raise _told(error, world, plan) from (None if is_of_peers(error) else error.__cause__)
        finally:
            _leave()


def in_words(plan: TrainPlan, world: World, model: nn.Module) -> str:
    """Say how the processes train together, and what makes their curve another than that of one."""
    way = "each holds a part of the model" if plan.parallel == "fsdp" else "each holds the model"
    part = f"{plan.batch / world.size:g} of the {plan.batch} samples of a batch"
    norms = any(isinstance(one, _NormBase) and _is_trained(one) for one in model.modules())
    apart = "; norms take their statistics of that part, so the curve is not that of one process" if norms else ""
    return f"{world.size} processes ({plan.parallel}): {way}, and takes {part}{apart}"


def _is_trained(module: nn.Module) -> bool:
    return any(one.requires_grad for one in module.parameters())


def _entered(plan: TrainPlan) -> World:
    device = _device(plan)
    wait = timedelta(seconds=plan.timeout)
    try:
        store, rank, size = next(iter(rendezvous("env://", timeout=wait)))
        backend = "cpu:gloo" + (",cuda:nccl" if device.type == "cuda" else "")
        bound = device if device.type == "cuda" else None
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=wait, device_id=bound)
        return _world(device, plan, store)
    except (RuntimeError, ValueError) as error:
        raise TrainError(
            f"the processes of this training do not find each other: {_first_line(error)}",
            where=f"{os.environ.get('MASTER_ADDR', '?')}:{os.environ.get('MASTER_PORT', '?')}",
            hint="start them with torchrun, on every machine with the same --rdzv-endpoint",
        ) from error


def _world(device: torch.device, plan: TrainPlan, store: Any) -> World:
    size = dist.get_world_size()
    table = PrefixStore("torchgraft", store)
    table.set(f"at/{dist.get_rank()}", place())
    side: Any = dist.new_group(backend="gloo", timeout=timedelta(seconds=plan.timeout))
    return World(
        rank=dist.get_rank(),
        size=size,
        local=int(os.environ.get("LOCAL_RANK", "0")),
        device=device,
        mesh=init_device_mesh(device.type, (size,)),
        side=side,
        store=table,
    )


def _device(plan: TrainPlan) -> torch.device:
    """Give this process's own device: each process of a machine has another one."""
    from torchgraft.train.loop import device_of

    device = device_of(plan)
    if device.type == "cpu":
        return device
    local, count = int(os.environ.get("LOCAL_RANK", "0")), torch.accelerator.device_count()
    if device.type != "cuda" or (device.index is not None and plan.device != "auto"):
        raise TrainError(
            f"several processes can't train on {plan.device}", where="train.device", hint="take auto, cuda or cpu"
        )
    if local >= count:
        raise TrainError(
            f"process {local} of this machine has no GPU: there are {count}",
            where="torchrun --nproc-per-node",
            hint=f"start {count} processes a machine, or train on the processor: device: cpu",
        )
    torch.accelerator.set_device_index(local)
    return torch.device("cuda", local)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


def _told(error: Exception, world: World, plan: TrainPlan) -> Exception:
    """Give the error that this process ends with, and let the others know of it."""
    if is_of_peers(error):
        _hang_up(world)
        return lost(world, error, plan.timeout)
    fallen(world, error)
    return error


def _hang_up(world: World) -> None:
    """Close every line, so that those who wait for this process notice at once and not when their time is up."""
    groups: list[Any] = [dist.group.WORLD, world.side, world.mesh and world.mesh.get_group()]
    for group in groups:
        with suppress(RuntimeError):
            group.abort()


def _leave() -> None:
    with suppress(RuntimeError):  # where a process is lost, there is nobody to say goodbye to
        dist.destroy_process_group()


@contextmanager
def _ended_by_signal() -> Iterator[None]:
    """Let a launcher's signal end this process by an exception, but never while an error is being told."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def hear(number: int, _: FrameType | None) -> None:
        if sys.exc_info()[0] is None:
            raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, hear)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
