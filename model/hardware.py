"""What the networks run on here."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn


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


def choose_device(wish: str) -> torch.device:
    """The device for `auto`, `cpu` or `cuda`. Raises ValueError where CUDA is asked for and absent."""
    if wish == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wish == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is cuda, but this machine or this torch has no CUDA; write cpu or auto")
    return torch.device(wish)


def has_bf16(device: torch.device) -> bool:
    """The device multiplies bf16 in hardware; emulated, it would be slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    abilities = torch.cpu.get_capabilities()
    return bool(abilities.get("avx512_bf16") or abilities.get("amx_bf16"))


def placed(network: nn.Module, device: torch.device) -> nn.Module:
    """On its device, in the memory format that convolutions of its dimensions are quickest in."""
    is_volumetric = any(isinstance(layer, nn.Conv3d) for layer in network.modules())
    layout = torch.channels_last_3d if is_volumetric else torch.channels_last
    # torch's stub of Module.to lacks memory_format
    moved: nn.Module = network.to(device).to(memory_format=layout)  # type: ignore[call-overload]
    return moved
