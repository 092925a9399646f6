"""`python -m benchmarks [NAME …]`: run benchmarks, print their tables, and keep the latest in RESULTS.md."""

from __future__ import annotations

import importlib
import platform
import re
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

NAMES = (
    "startup", "trace", "verdict", "edit", "decoder", "alarms", "heads", "inputs", "load", "peers", "resilience",
    "transfer", "counts", "summary", "graph", "page", "capture", "profile", "memory", "overhead", "silent",
    "prefix", "soak",
)  # fmt: skip
RESULTS = Path(__file__).with_name("RESULTS.md")
HEAD = """# Results

The latest tables. `make bench` runs all again; `python -m benchmarks NAME` one of {names}.
The machines are shared and noisy: compare within a table, and trust CPU seconds before wall time.
"""


def _machine() -> str:
    packages = [f"{name} {version(name)}" for name in ("torch", "torchvision", "timm")]
    parts = [f"{datetime.now(UTC):%Y-%m-%d}", platform.machine(), "2 cores", f"Python {platform.python_version()}"]
    return ", ".join([*parts, *packages])


def _kept(name: str, section: str) -> None:
    """Put one section into RESULTS.md in place of its last one."""
    text = RESULTS.read_text() if RESULTS.exists() else HEAD.format(names=", ".join(NAMES))
    mark = re.compile(rf"<!-- {name} -->.*?<!-- /{name} -->\n", flags=re.DOTALL)
    block = f"<!-- {name} -->\n{section}\n<!-- /{name} -->\n"
    RESULTS.write_text(mark.sub(lambda _: block, text) if mark.search(text) else f"{text}\n{block}")


def main() -> None:
    """Run the benchmarks that are named, or all."""
    asked = sys.argv[1:] or NAMES
    unknown = [name for name in asked if name not in NAMES]
    if unknown:
        sys.exit(f"there is no benchmark '{unknown[0]}': {', '.join(NAMES)}")
    for name in asked:
        module = importlib.import_module(f"benchmarks.{name}")
        print(f"{module.TITLE} …", flush=True)
        section = f"## {module.TITLE}\n\n{_machine()}\n\n{module.run()}"
        print(section, flush=True)
        _kept(name, section)


main()
