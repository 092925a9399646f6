"""Families: folders whose files are the extension points.

A new member is one new file in the family's folder. Other packages add theirs through the entry point
group `torchgraft.<family>`, whose value names a module; importing it is enough.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import re
from importlib.metadata import entry_points


@functools.cache
def gather(package: str) -> None:
    """Import every file of a family's folder, then what other packages registered for it."""
    home = importlib.import_module(package)
    for entry in pkgutil.iter_modules(home.__path__):
        importlib.import_module(f"{package}.{entry.name}")
    for point in entry_points(group=package):
        point.load()


def kind_of(name: str) -> str:
    """Turn a class name into the kind that recipes use: `SqueezeExcite` -> `squeeze_excite`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
