"""TensorBoard's event files, by its own writer of records and without TensorFlow.

`torch.utils.tensorboard` and TensorBoard's `EventFileWriter` import TensorFlow where it is installed, which takes
seconds, and start a thread; the writer of records does neither, and a point of five curves costs it 20 to 40 µs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torchgraft.train.news.curves import Place
from torchgraft.train.watch import Begin

__all__ = ["TensorBoard"]

SHOW_EVERY = 10.0
"""Seconds after which what was written can be read."""


class TensorBoard(Place):
    """Event files of one training in one folder; a resumed one adds a file that replaces what it does again.

    Args:
        folder: that `tensorboard --logdir` is given, or one within it.
    """

    name = "TensorBoard"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._shown = 0.0
        self._file: Any = None

    def open(self, begin: Begin, recipe: str) -> None:
        """Write the head of a file; what earlier files say of steps after `begin.done` counts no more."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns()}.torchgraft"  # by name they stand in order
        self._file = RecordWriter((self.folder / name).open("wb"))
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        start = SessionLog(status=SessionLog.START)
        self._write(Event(wall_time=time.time(), step=begin.done and begin.done + 1, session_log=start))
        if recipe and not begin.done:
            self._write(_text("recipe", recipe))
        self.flush()

    def put(self, step: int, values: Mapping[str, float]) -> None:
        """Write one event."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        now = time.time()
        points = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(Event(wall_time=now, step=step, summary=Summary(value=points)))
        if now - self._shown > SHOW_EVERY:
            self.flush()

    def flush(self) -> None:
        """Let readers see what was put."""
        self._file.flush()
        self._shown = time.time()

    def close(self, *, finished: bool) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, event: Any) -> None:
        self._file.write(event.SerializeToString())


def _text(name: str, text: str) -> Any:
    """Give a text as TensorBoard shows it: Markdown, so that YAML is a block of code."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING
    from tensorboard.plugins.text.metadata import create_summary_metadata

    code = f"```yaml\n{text.rstrip()}\n```".encode()
    value = Summary.Value(
        tag=name,
        metadata=create_summary_metadata(name, ""),
        tensor=TensorProto(dtype=DT_STRING, string_val=[code]),
    )
    return Event(wall_time=time.time(), step=0, summary=Summary(value=[value]))
