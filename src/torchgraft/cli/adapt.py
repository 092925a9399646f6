"""`torchgraft adapt`: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from torchgraft.cli.face import face
from torchgraft.cli.train import carried_out, plan_in_words, talk_of

__all__ = ["adapt"]


def adapt(
    base: str,
    /,
    *,
    data: str,
    classes: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    epochs: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    out: Path = Path("runs"),
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    to: Path = Path("recipe.yaml"),
    strict: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
    every_step: Annotated[bool, Parameter(negative="")] = False,
    trust: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Take a trained base model, fit it to a data set, check it, train it, and keep the result.

    Parameters
    ----------
    base
        torchvision:NAME[@WEIGHTS], timm:NAME, python:pkg.mod:factory, file:weights.safetensors@BASE,
        transformers:NAME for texts, bundled:NAME; a bare name means torchvision. @none takes random weights.
    data
        folder:PATH (a folder of class folders), csv:FILE (paths of images or texts, with labels), hf:NAME,
        torchvision:CIFAR10 and the like, sklearn:digits.
    classes
        How many classes the new head gets; as many as the data have when left out.
    epochs
        Passes over the training images; chosen from their number when left out.
    set_
        Set anything of the plan: train.batch=16, head.hidden=[512], freeze.all_but=head, input=[3,64,64],
        seed=3. May be given several times.
    out
        The folder that the version and the report go to.
    dry_run
        Stop after the plan and write it to a recipe.
    to
        With --dry-run: the file that it is written to.
    strict
        Refuse data with images that can't be read, instead of skipping them.
    json
        Print one JSON object a line for each event, as `torchgraft train --json` does.
    every_step
        With --json: an event for each batch.
    trust
        Allow a base that runs your own code (python:…).
    """
    from torchgraft.plan import plan
    from torchgraft.settings import settings_of

    settings = settings_of(set_ or [])
    if epochs is not None:
        settings["train.epochs"] = epochs
    if strict:
        settings["train.strict"] = True
    with face(json=json, every_step=every_step) as shown:
        job = plan(base, data, classes=classes, settings=settings, trust=trust, talk=talk_of(shown))
        shown.say("train", plan_in_words(job))
        if dry_run:
            written = _free(to, job.recipe.to_yaml())
            job.recipe.write(written)
            shown.say("recipe", f"{written}; run it with: torchgraft train {written}")
            return 0
        return carried_out(job, out, shown)


def _free(path: Path, text: str) -> Path:
    """Give back where a recipe is to be written, unless another stands there: that may be somebody's work."""
    from torchgraft.errors import StoreError

    if path.is_file() and path.read_text(encoding="utf-8", errors="replace") != text:
        raise StoreError(
            f"another recipe stands in {path}", where=str(path), hint="move it away, or name another file: --to …"
        )
    return path
