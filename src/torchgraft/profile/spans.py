"""Spans of torch's profiler around every module call: what is between is attributed by them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as hooks

__all__ = ["MODULE", "PHASE", "spanned"]

MODULE = "module "
"""What the name of a module's span starts with; the path follows, and a dot stands for the model itself."""

PHASE = "phase "


@contextmanager
def spanned(name_of: Callable[[nn.Module], str | None]) -> Iterator[None]:
    """Open a span around each call of a module, on this thread, while the block runs.

    The hooks are torch's global ones: no module is touched, and what a call raises leaves no span open.

    Args:
        name_of: gives the path of a module; None leaves it out.
    """
    here, stack = threading.get_ident(), list[Any]()

    def before(module: nn.Module, given: Any) -> None:
        if torch.compiler.is_compiling() or threading.get_ident() != here:
            return
        name = name_of(module)
        span = torch._C._profiler._RecordFunctionFast(f"{MODULE}{name or '.'}") if name is not None else None
        if span is not None:
            span.__enter__()
        stack.append((module, span))

    def after(module: nn.Module, given: Any, gave: Any) -> None:
        if torch.compiler.is_compiling() or threading.get_ident() != here:
            return
        while stack:  # a hook of the user's that raised may have left some
            one, span = stack.pop()
            if span is not None:
                span.__exit__(None, None, None)
            if one is module:
                return

    opened = hooks.register_module_forward_pre_hook(before)
    closed = hooks.register_module_forward_hook(after, always_call=True)
    try:
        yield
    finally:
        opened.remove()
        closed.remove()
