from __future__ import annotations

import pytest
import torch

import torchgraft.profile.machine as calibration
from torchgraft.profile.record import Machine


@pytest.fixture(scope="session")
def machine() -> Machine:
    return calibration.machine(torch.device("cpu"))
