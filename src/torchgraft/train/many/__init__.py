"""Several processes that train one model: torch's own engines, put together.

torchrun starts the processes, DDP copies a model to each, `fully_shard` shares it out, and what is shared out is
saved by `torch.distributed.checkpoint`. A training in one process imports `joining` alone.
"""
