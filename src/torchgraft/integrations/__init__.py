"""Callbacks for other trainers, one file each, imported only when asked for.

    torchgraft.integrations.lightning       GraftCallback for Lightning's Trainer
    torchgraft.integrations.huggingface     GraftCallback for the Trainer of transformers
    torchgraft.integrations.fastai          GraftCallback for fastai's Learner

Accelerate, Fabric, ignite, skorch and torchtnt leave the loop or the optimizer to their user: `tg.watch(model,
optimizer)` and `tg.still(model)` do there what a callback does (docs/own_loop.md).
"""
