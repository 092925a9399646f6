"""Dotted paths of modules: put together, and taken apart."""

from __future__ import annotations

__all__ = ["homes", "joined"]


def joined(home: str, name: str) -> str:
    """Give the path of a child; the model itself has the empty path."""
    return f"{home}.{name}" if home else name


def homes(path: str) -> list[str]:
    """Give the paths of the modules around a module, the outermost first, the model itself left out."""
    return [path[:end] for end, letter in enumerate(path) if letter == "."]
