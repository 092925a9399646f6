from __future__ import annotations

import json
import subprocess
import sys

import pytest

from torchgraft.cli.sources import sources
from torchgraft.errors import SourceError


def test_the_kinds_of_sources_are_listed_without_importing_torch():
    code = (
        "import sys; from torchgraft.cli.sources import sources; sources(); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'timm', 'transformers')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0
    assert "torchvision:NAME[@WEIGHTS]" in done.stdout
    assert "version:FOLDER@VERSION" in done.stdout


def test_models_are_found_by_a_glob_with_their_weights(capsys):
    assert sources("torchvision:resnet1*", json=True) == 0
    rows = {row["source"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert set(rows) == {"torchvision:resnet18", "torchvision:resnet101", "torchvision:resnet152"}
    assert rows["torchvision:resnet101"]["weights"] == ["IMAGENET1K_V2", "IMAGENET1K_V1"]


def test_a_part_of_a_name_finds_models_of_every_source(capsys):
    sources("*:convnext_tiny")
    out = capsys.readouterr().out
    assert "torchvision:convnext_tiny" in out
    assert "timm:convnext_tiny" in out
    sources("bundled:")
    assert "bundled:glyphs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("torchvision:resnte18", "did you mean resnet18"),
        ("tim:*", "did you mean timm"),
        ("bundled:zzzzzz", "torchgraft sources"),
    ],
)
def test_what_matches_nothing_names_the_nearest(pattern, hint):
    with pytest.raises(SourceError, match=hint):
        sources(pattern)


def test_a_source_of_another_package_is_listed_too(capsys):
    from torchgraft.sources.base import Base, Offer, Source

    class Mine(Source):
        """Models of mine."""

        def load(self, *, seed: int = 0, trust: bool = False) -> Base:
            raise NotImplementedError

        @classmethod
        def offers(cls):
            return [Offer("small", ("trained",))]

    try:
        sources("mine:*")
        assert "mine:small" in capsys.readouterr().out
    finally:
        del Source.registry["mine"]
