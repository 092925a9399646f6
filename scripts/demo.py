"""What `make demo` runs: does the bundled base help? Then the main job, step by step."""

from __future__ import annotations

from statistics import mean

import torch
from benchmarks.transfer import FRESH, compare

from torchgraft.cli.main import main

SEEDS = 2


def does_it_pay() -> None:
    """Compare the adapted base with the same network from scratch, on few labelled digits."""
    print("Does a trained base help? The same network, adapted and from scratch, on handwritten digits, with two")
    print(f"labelled images a class; tested on 899 others, mean of {SEEDS} seeds. All ten seeds, also with five")
    print(
        "images a class, with their intervals, stand in benchmarks/RESULTS.md (python -m benchmarks transfer).\n"
    )
    one = compare(2, range(SEEDS), fresh=FRESH[1:2])
    print(
        f"  adapted {mean(one.adapted):.1f} %   from scratch {mean(one.fresh):.1f} %   "
        f"gain {mean(one.gains):+.1f} points   ({one.seconds:.0f} s)",
        flush=True,
    )


if __name__ == "__main__":
    cores = torch.get_num_threads()
    does_it_pay()
    torch.set_num_threads(cores)
    print("\n$ torchgraft adapt bundled:glyphs --data sklearn:digits\n", flush=True)
    main(["adapt", "bundled:glyphs", "--data", "sklearn:digits"])
