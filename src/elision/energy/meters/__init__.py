"""Meters: the counters of joules that machines have, one file each."""

import torch

from elision.energy.meters.base import Meter
from elision.energy.meters.nvml import Nvml
from elision.energy.meters.rapl import Rapl

__all__ = ["Meter", "Nvml", "Rapl", "found_meters"]


def found_meters(device: str | torch.device = "cpu") -> list[Meter]:
    """The counters of this machine that matter for work on a device.

    Args:
        device: ``"cpu"``, or a GPU, whose counter then joins the processor's.
    """
    found: list[Meter | None] = [Rapl.found()]
    device = torch.device(device)
    if device.type == "cuda":
        uuid = torch.cuda.get_device_properties(device).uuid
        found.append(Nvml.found(f"GPU-{uuid}"))
    return [meter for meter in found if meter is not None]
