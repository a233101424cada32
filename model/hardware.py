"""What the networks would run on here, for whoever has to judge it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from model.engine import choose_device, has_bf16


@dataclass(frozen=True)
class Hardware:
    """A device as torch sees it. `memory_gb` is the accelerator's own, None for the CPU."""

    kind: str
    name: str
    memory_gb: float | None
    threads: int
    has_bf16: bool


def find_hardware(device: str, threads: int | None = None) -> Hardware:
    """The device that `device` (auto, cpu or cuda) means here. Raises ValueError where there is none."""
    chosen = choose_device(device)
    used = threads or torch.get_num_threads()
    if chosen.type == "cuda":
        properties = torch.cuda.get_device_properties(chosen)
        return Hardware("cuda", properties.name, properties.total_memory / 1e9, used, has_bf16(chosen))
    name = str(torch.cpu.get_capabilities().get("cpu_name") or "CPU")
    return Hardware("cpu", name, None, used, has_bf16(chosen))
