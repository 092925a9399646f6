"""In several processes each keeps its own; the weights are the same bit for bit."""

from __future__ import annotations

import pytest
from tests.train.many.launch import differing, figures, ran, tensors


@pytest.mark.slow
def test_two_processes_come_to_the_same_weights(tmp_path):
    jobs = [{"name": cache, "kind": "still", "plan": {"cache": cache, "epochs": 5}} for cache in ("off", "memory")]
    ran(2, tmp_path, jobs)
    assert differing(tensors(tmp_path, "off"), tensors(tmp_path, "memory")) == []
    assert figures(tmp_path, "off") == figures(tmp_path, "memory")
