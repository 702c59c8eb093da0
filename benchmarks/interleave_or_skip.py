"""Interleave the gradients or skip their zeros: one training step at rising sparsity.

Operands are uniformly random, independent in value and place, which overstates the load
balance of the zero-skipping machines. Simulated cycles and energy; nothing is timed.

    python benchmarks/interleave_or_skip.py records/2026-11-21-intergrad
"""

import sys
from dataclasses import asdict
from pathlib import Path

import torch

from elision.accelerators.design.interleave_or_skip import interleave_or_skip
from elision.accelerators.step import blind_products
from elision.common.files import write_json
from elision.products import OPERANDS, Conv2dGeometry, LayerProduct, MatmulGeometry

#: A VGG-like stack for 32x32 images, one convolution per resolution, batch 4.
LAYERS = [
    ("conv1", Conv2dGeometry(4, 3, 32, 32, 64, 3, padding=1)),
    ("conv2", Conv2dGeometry(4, 64, 32, 32, 64, 3, padding=1)),
    ("conv3", Conv2dGeometry(4, 128, 16, 16, 128, 3, padding=1)),
    ("conv4", Conv2dGeometry(4, 256, 8, 8, 256, 3, padding=1)),
    ("conv5", Conv2dGeometry(4, 512, 4, 4, 512, 3, padding=1)),
    ("fc", MatmulGeometry(4, 512, 10)),
]


def sparse_step(sparsity: float, seed: int = 0) -> list[LayerProduct]:
    """The products of one step, every operand with the same share of zeros."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        (layer, name): torch.randn(geometry.shape_of(name), generator=generator)
        * (torch.rand(geometry.shape_of(name), generator=generator) >= sparsity)
        for layer, geometry in LAYERS
        for name in OPERANDS
    }
    products = []
    for p in blind_products(LAYERS):
        operands = [tensors[p.name, name] for name in p.kind.operands]
        products.append(LayerProduct(p.kind, p.geometry, *operands, name=p.name))
    return products


def main(folder: Path) -> None:
    """Print the table and write it as ``interleave_or_skip.json``."""
    rows = []
    for sparsity in (0.0, 0.25, 0.5, 0.75, 0.9):
        print(f"\nsparsity {sparsity:.0%} of every operand")
        print("  machine                   speed-up  useful slots  on-chip energy/WS")
        table = interleave_or_skip(sparse_step(sparsity))
        for row in table:
            energy = row.energy_on_chip_pj / table[0].energy_on_chip_pj
            print(
                f"  {row.machine:24s} {row.speed_up:8.2f}x {row.useful_share:12.1%} "
                f"{energy:12.2f}"
            )
            rows.append({"sparsity": sparsity, **asdict(row)})
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "interleave_or_skip.json", rows)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
