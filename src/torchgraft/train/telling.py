"""A training in words: one live line, one plain line, one line an epoch."""

from __future__ import annotations

import math

from torchgraft.history import Epoch
from torchgraft.train.pace import Progress

__all__ = ["duration", "epoch_line", "figure", "live_line", "plain_line"]

SHARES = ("accuracy", "iou", "dice", "precision", "recall", "f1", "auroc", "top5", "exact", "hamming")
"""Figures whose names hold one of these words are shares of 1, and are told in percent."""

BAR = (8, 30)
"""The bar is at least and at most so wide."""


def figure(name: str, value: float) -> str:
    """Write a figure as one says it: `accuracy 91.2%`, `mae 0.1234`."""
    shown = name.replace("_", " ")
    if any(word in name.lower() for word in SHARES) and 0.0 <= value <= 1.0:
        return f"{shown} {value:6.1%}"
    return f"{shown} {value:.4g}"


def duration(seconds: float) -> str:
    """Write a time: `12 s`, `4:05`, `3:12:45`, `2 d 03:12`."""
    if not math.isfinite(seconds):
        return "…"
    whole = max(round(seconds), 0)
    minutes, hours, days = whole // 60 % 60, whole // 3600 % 24, whole // 86400
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{minutes}:{whole % 60:02}"
    return f"{days} d {hours:02}:{minutes:02}" if days else f"{hours}:{minutes:02}:{whole % 60:02}"


def epoch_line(epoch: Epoch, epochs: int, *, speed: float = math.nan) -> str:
    """Write the figures of an epoch."""
    parts = [
        f"epoch {epoch.number:>{len(str(epochs))}}/{epochs}" if epochs else f"epoch {epoch.number}",
        f"loss {epoch.train_loss:.3f}",
        *([f"validation loss {epoch.val_loss:.3f}"] if math.isfinite(epoch.val_loss) else []),
        *(figure(name, value) for name, value in epoch.val.items()),
        f"lr {epoch.lr:.2g}",
        *([_speed(speed).strip()] if math.isfinite(speed) else []),
        f"{epoch.seconds:.1f} s" if epoch.seconds < 60 else duration(epoch.seconds),
    ]
    return "  ".join(parts)


def plain_line(now: Progress) -> str:
    """Write where a training is, for a log."""
    return "  ".join(" ".join(text.split()) for text, _ in _parts(now))


def live_line(now: Progress, width: int, *, plain: bool = False) -> str:
    """Write where a training is, in one line of a terminal; what matters least goes first where it is narrow.

    Args:
        now: where it is.
        width: columns of the terminal; the last one stays empty, so that no terminal breaks the line.
        plain: ASCII alone.
    """
    parts, room = _parts(now), width - 1
    space = min(room - _wide(parts) - 2, BAR[1])
    while len(parts) > 1 and _wide(parts) > room:
        parts.remove(min(parts, key=lambda part: part[1]))
    texts = [text for text, _ in parts]
    if now.total and space >= BAR[0]:
        texts.insert(1, bar(now.share, space, plain=plain))
    line = "  ".join(texts)
    line = line.replace("…", "...").replace("×", "x") if plain else line
    return line[: max(room, 0)]


def bar(share: float, width: int, *, plain: bool = False) -> str:
    """Draw a bar."""
    done = round(share * width)
    return "#" * done + "-" * (width - done) if plain else "━" * done + "╌" * (width - done)


def _parts(now: Progress) -> list[tuple[str, int]]:
    """Give the parts of the line in order, each with how much it matters; padded, so that nothing jumps."""
    digits = len(str(now.steps))
    step = f"step {now.step:>{digits}}/{now.steps}" if now.steps else f"step {now.step}"
    epoch = f"epoch {now.epoch:>{len(str(now.epochs))}}/{now.epochs}" if now.epochs else f"epoch {now.epoch}"
    parts = [(epoch, 9), (step, 2)]
    if math.isfinite(now.loss):
        parts += [(f"loss {now.loss:.3f}", 8), (f"lr {now.lr:<7.2g}", 3)]
    parts.append((_speed(now.speed) if math.isfinite(now.speed) else "     … samples/s", 4))
    if now.total:
        left = duration(now.left) if now.left is not None else "…"
        parts.append((f"{left:>5} left", 5))
    return parts


def _speed(speed: float) -> str:
    return f"{speed:>6,.0f} samples/s" if speed >= 10 else f"{speed:>6.2g} samples/s"


def _wide(parts: list[tuple[str, int]]) -> int:
    return sum(len(text) for text, _ in parts) + 2 * (len(parts) - 1)
