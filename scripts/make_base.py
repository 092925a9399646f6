"""Train the bundled base by its own recipe: `make base`, or `python scripts/make_base.py [COUNT [FILE]]`.

COUNT letters instead of the recipe's make a short trial. On the same machine and the same torch the same file
comes out, byte for byte.
"""

from __future__ import annotations

import hashlib
import sys
from importlib import resources
from pathlib import Path

import torch

from torchgraft.history import Epoch, History
from torchgraft.plan import Planned, Talk, planned
from torchgraft.recipe import Recipe
from torchgraft.store import save_state
from torchgraft.train.loop import Watch, fit

HOME = Path(str(resources.files("torchgraft.bundled")))
NAME = "glyphs"
THREADS = 2
"""Fixed, since sums are split by threads and so rounded by their number."""


def main() -> None:
    """Train, and write the weights beside the recipe."""
    recipe_file = HOME / f"{NAME}.yaml"
    recipe = Recipe.read(recipe_file)
    target = HOME / f"{NAME}.safetensors"
    if len(sys.argv) > 1:
        recipe = _shorter(recipe, int(sys.argv[1]))
        target = Path(sys.argv[2] if len(sys.argv) > 2 else f"{NAME}-trial.safetensors")
    torch.set_num_threads(THREADS)
    torch.manual_seed(recipe.seed)
    torch.use_deterministic_algorithms(True)
    job = planned(recipe, talk=Talk(say=_say))
    history = fit(job.graft, job.data, job.train, job.preprocess, Watch(step=_step, epoch=_epoch))
    _write(job, history, hashlib.sha256(recipe_file.read_bytes()).hexdigest(), target)
    _say("done", f"{target}, {target.stat().st_size:,} bytes, {history.seconds:.0f} s")


def _shorter(recipe: Recipe, count: int) -> Recipe:
    assert recipe.train is not None
    train = recipe.train.model_copy(update={"data": f"letters:{count}"})
    return recipe.model_copy(update={"train": train})


def _write(job: Planned, history: History, recipe_sha256: str, target: Path) -> None:
    accuracy = history.epochs[-1].val_accuracy
    metadata = {"base": f"bundled:{NAME}", "recipe": recipe_sha256, "accuracy": f"{accuracy:.4f}"}
    save_state(target, job.graft.module.state_dict(), metadata)


def _say(step: str, sentence: str) -> None:
    print(f"{step:>6}  {sentence}", flush=True)


def _step(epoch: int, step: int, steps: int, loss: float) -> None:
    if step % 200 == 0:
        _say("", f"epoch {epoch}, step {step} of {steps}: loss {loss:.3f}")


def _epoch(epoch: Epoch) -> None:
    _say(
        "epoch",
        f"{epoch.number}: loss {epoch.train_loss:.3f}, held-out accuracy {epoch.val_accuracy:.4f}, "
        f"{epoch.seconds:.0f} s",
    )


if __name__ == "__main__":
    main()
