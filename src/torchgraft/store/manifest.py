"""What is known about a kept state: everything but the values of its tensors."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from torchgraft.errors import StoreError
from torchgraft.history import History, figure_name, shown
from torchgraft.schema import Schema

__all__ = ["UNSEALED", "UTF8", "Manifest", "describing"]

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # a digest becomes a path: nothing else may stand there
_ID = 10
UTF8 = ("utf-8", "surrogatepass")  # a class may be named by a badly encoded folder
UNSEALED = "0" * _ID
"""The id of a manifest that has none yet."""


class Manifest(Schema):
    """One version: its recipe, what it was made from, how good it is, and which tensors differ from the base.

    `tensors` gives the digests of those that differ; a name that is not in it holds the bytes of the base.
    `aliases` names tied tensors: the second name -> the first. A tie is in `tensors` with all its names or
    with none. `id` is the beginning of the sha256 of all the rest.
    """

    id: Annotated[str, Field(pattern=rf"^[0-9a-f]{{{_ID}}}$")]
    number: Annotated[int, Field(ge=1)]
    created: str
    note: str = ""
    recipe: str
    base: str
    base_digest: str = ""
    classes: tuple[str, ...] = ()
    metrics: dict[str, float] = Field(default_factory=dict)
    history: History | None = None
    tensors: dict[str, Digest]
    aliases: dict[str, str] = Field(default_factory=dict)
    torchgraft: str
    torch: str

    @property
    def judged_by(self) -> str:
        """The name of the figure that says how good the version is; nothing where there is none."""
        asked = self.history.metric if self.history is not None else "accuracy"
        return asked if asked in self.metrics else next((one for one in self.metrics if one != "loss"), "")

    @property
    def figure(self) -> str:
        """That figure in words, such as `accuracy 97.2%`."""
        name = self.judged_by
        return f"{figure_name(name)} {shown(name, self.metrics[name])}" if name else ""

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read a manifest; one that is not what was written is a StoreError."""
        try:
            data = json.loads(path.read_bytes().decode(*UTF8))
            manifest = cls.model_validate(data)
        except (OSError, ValueError, ValidationError) as error:
            raise _unreadable(path, str(error).splitlines()[0]) from error
        if not manifest.id == path.stem == _fingerprint(data):
            raise _unreadable(path, "its id is not that of its content")
        return manifest

    def sealed(self) -> Manifest:
        """Give the manifest with the id that its content has."""
        return self.model_copy(update={"id": _fingerprint(self._plain())})

    def text(self) -> str:
        """Give the manifest as JSON."""
        return json.dumps(self._plain(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def _plain(self) -> dict[str, Any]:
        plain = _finite(self.model_dump(mode="json"))
        assert isinstance(plain, dict)
        return plain


@contextlib.contextmanager
def describing() -> Iterator[None]:
    """Turn a field that a manifest can't hold into a StoreError."""
    try:
        yield
    except ValidationError as error:
        raise StoreError("the version can't be described", "manifest", str(error)) from error


def _fingerprint(data: dict[str, Any]) -> str:
    """Take the digest of what stands in the file: a later field with a default then changes no id."""
    content = json.dumps({**data, "id": ""}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(content.encode()).hexdigest()[:_ID]


def _finite(value: object) -> object:
    """Write NaN and the infinities as words, which JSON has no numbers for and a float field reads again."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _unreadable(path: Path, why: str) -> StoreError:
    hint = "bring the file back from a copy; if a newer torchgraft wrote it, use that one"
    return StoreError(f"the version's manifest is damaged: {why}", str(path), hint)
