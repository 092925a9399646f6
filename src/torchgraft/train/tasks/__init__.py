"""What a model is trained for, one file a kind of task."""

from torchgraft.train.tasks.fit import task_for
from torchgraft.train.tasks.make import task_of

__all__ = ["task_for", "task_of"]
