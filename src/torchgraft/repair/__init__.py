"""Make an edit fit: each way applies further edits to the model that the edit was made on.

adapt      restores the contract of the edited place: the new module's inside is fitted to what arrives, and its
           output is projected back to what the place gave before. No other parameter is touched.
propagate  resizes what consumes the new shape, wherever it goes, keeping the weights that overlap. What can't be
           resized is given what it took before by a projection.
"""

from torchgraft.repair.adapt import adapt
from torchgraft.repair.bench import Bench
from torchgraft.repair.price import described, size_of
from torchgraft.repair.propagate import propagate
from torchgraft.repair.ways import WAYS, Way

__all__ = ["WAYS", "Bench", "Way", "adapt", "described", "propagate", "size_of"]
