"""Several processes that train one model: torch's own engines, put together.

torchrun starts the processes, DDP copies a model to each, `fully_shard` shares it out, and what is shared out is
saved by `torch.distributed.checkpoint`.
"""

from torchgraft.train.many.joining import joined
from torchgraft.train.many.shards import Shards
from torchgraft.train.many.spread import Spread, still
from torchgraft.train.many.states import fitted, taken

__all__ = ["Shards", "Spread", "fitted", "joined", "still", "taken"]
