"""What the networks would run on is told as torch sees it."""

from __future__ import annotations

import pytest
import torch

from model.hardware import find_hardware


def test_the_cpu_is_told_with_its_threads() -> None:
    found = find_hardware("cpu", threads=3)
    assert (found.kind, found.threads, found.memory_gb) == ("cpu", 3, None)
    assert found.name


def test_a_gpu_is_told_with_its_memory_or_its_absence_is_an_error() -> None:
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no CUDA"):
            find_hardware("cuda")
        return
    found = find_hardware("auto")
    assert found.kind == "cuda"
    assert found.memory_gb is not None
    assert found.memory_gb > 1
