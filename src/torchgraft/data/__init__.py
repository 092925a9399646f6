"""Where samples come from: inputs with targets named by `scheme:rest`, one kind of data in each file.

Nothing heavy is imported before a source is opened, so that a recipe can be read without torch.
"""

from __future__ import annotations

from torchgraft.data.base import DataSet, DataSource, Samples, Stream, parse_data

__all__ = ["DataSet", "DataSource", "Samples", "Stream", "parse_data"]
