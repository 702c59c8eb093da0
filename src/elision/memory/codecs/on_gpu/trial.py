"""Whether the kernels give on a device what the torch version gives on the CPU."""

import numpy as np
import torch

from elision.memory.codecs import group_torch
from elision.memory.codecs.cosine import cosine_transform
from elision.memory.codecs.on_gpu import compaction, group, jpeg, masks

__all__ = ["differing"]

#: Values that each kernel is tried on: several programs, the last of which is not full.
_COUNT = 5000

#: A start of random numbers that runs over the end of 32 bits.
_SEED = 0xFFFFFF00

#: Error of a sum of 64 products in float32, in units of its largest result.
_ROUNDED = 64 * torch.finfo(torch.float32).eps * 127


def differing(device: torch.device) -> str | None:
    """The first kernels whose results are not what they have to be; None: none."""
    generator = torch.Generator("cpu").manual_seed(0)
    values = torch.randn(_COUNT, generator=generator, dtype=torch.float32, device="cpu")
    for name, agrees in _TRIALS.items():
        if not agrees(values, device):
            return f"wrong results of {name}"
    return None


def _groups_agree(values: torch.Tensor, device: torch.device) -> bool:
    # Together they read and write sections of every width, with and without a code of zero.
    cases = ((7, True), (8, False), (4, False))
    return all(_same_groups(values, 64, *case, device) for case in cases)


def _same_groups(
    values: torch.Tensor, size: int, bits: int, support: bool, device: torch.device
) -> bool:
    groups = len(values) // size
    found = []
    for module, where in ((group_torch, torch.device("cpu")), (group, device)):
        x = values[: groups * size].to(where)
        codes = x.new_empty(len(x) // 8 * bits, dtype=torch.uint8)
        low, step = x.new_empty(2, groups)
        restored, mask = x.new_empty(2, len(x))
        grid = low, step
        module.quantise(x, size, bits, _SEED, True, support, codes, *grid)
        module.dequantise(codes, size, bits, _SEED, True, support, *grid, restored)
        module.mask(codes, size, bits, mask)
        found.append([t.cpu() for t in (codes, *grid, restored, mask)])
    return all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def _masks_agree(values: torch.Tensor, device: torch.device) -> bool:
    mask = values > 0
    packed = masks.pack(mask.to(device))
    return _is_mask(packed, mask) and torch.equal(
        masks.unpack(packed, len(mask)).cpu(), mask
    )


def _is_mask(packed: torch.Tensor, mask: torch.Tensor) -> bool:
    return packed.tolist() == np.packbits(mask.numpy(), bitorder="little").tolist()


def _compaction_agrees(values: torch.Tensor, device: torch.device) -> bool:
    whole = (2 * values).to(torch.int8)
    bits, kept = compaction.compact(whole.to(device))
    same = _is_mask(bits, whole != 0) and torch.equal(kept.cpu(), whole[whole != 0])
    ends = compaction.ends(bits, len(whole))
    if not same or int(ends[-1]) != len(kept):
        return False
    again = compaction.spread(bits, ends, kept, len(whole))
    return torch.equal(again.cpu(), whole)


def _transforms_agree(values: torch.Tensor, device: torch.device) -> bool:
    """Both transforms of whole blocks, within what float32 may round the other way."""
    images = values[: 2 * 3 * 24 * 32].view(2, 3, 24, 32)
    step = images.abs().amax((0, 2, 3)) / 127
    dct = cosine_transform()
    table = torch.full((8, 8), 3.0, dtype=torch.float32, device="cpu")
    there = images.to(device)
    given = step.to(device), dct.to(device), table.to(device)
    found = jpeg.transformed(there, *given)
    q = (images / step.view(3, 1, 1)).round().double()
    blocks = q.view(2, 3, 3, 8, 4, 8).transpose(3, 4).reshape(2, 3, 12, 8, 8)
    exact = (dct.double() @ blocks @ dct.double().T / table).flatten(3)
    if float((found.cpu() - exact).abs().max()) > 0.5 + _ROUNDED:
        return False
    restored = torch.empty_like(there)
    jpeg.restored(found, *given, restored)
    coefficients = found.cpu().double().view(2, 3, 12, 8, 8) * table
    blocks = dct.double().T @ coefficients @ dct.double()
    planes = blocks.view(2, 3, 3, 4, 8, 8).transpose(3, 4).reshape(2, 3, 24, 32)
    errors = planes - restored.cpu() / step.view(3, 1, 1)
    return float(errors.abs().max()) <= 127 * _ROUNDED


_TRIALS = {
    "group quantisation": _groups_agree,
    "masks": _masks_agree,
    "compaction": _compaction_agrees,
    "the cosine transforms": _transforms_agree,
}
