"""Errors of Winograd's convolution by number format, tile and product.

A 3x3 layer, normally distributed operands that the format has already rounded. What is
written between the stages and the result are stored in the format, sums are made in
float32; *direct* is the plain product, stored in the format. The error is the root mean
square of the difference from float64, over that of the exact result.

    python benchmarks/winograd_error.py [--channels 128] [--filters 64] [--side 24]
                                        [--batch 2] [--seeds 3] [--out FOLDER]
"""

import argparse
import math
from pathlib import Path
from typing import Any

import torch

from elision import winograd
from elision.common.files import write_json
from elision.engines.bench import machine
from elision.products import Conv2dGeometry, LayerProduct, Product
from elision.report.table import rows_as_text

FORMATS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
TILES = (2, 4, 6)


def errors(layer: Conv2dGeometry, seed: int) -> dict[tuple[str, str, str], float]:
    """Relative error by format, way and product."""
    generator = torch.Generator().manual_seed(seed)
    values = {
        name: torch.randn(layer.shape_of(name), generator=generator)
        for name in ("input", "weight", "grad_output")
    }
    found: dict[tuple[str, str, str], float] = {}
    for name, dtype in FORMATS.items():
        for kind in Product:
            first, second = (values[o].to(dtype).float() for o in kind.operands)
            product = LayerProduct(kind, layer, first, second)
            exact = LayerProduct(kind, layer, first.double(), second.double()).compute()
            ways = {"direct": product.compute().to(dtype)} | {
                f"F({m},3)": winograd.compute(product, m, dtype) for m in TILES
            }
            for way, result in ways.items():
                error = (result.double() - exact).norm() / exact.norm()
                found[name, way, kind.value] = error.item()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for option, default in (("channels", 128), ("filters", 64), ("side", 24)):
        parser.add_argument(f"--{option}", type=int, default=default)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    layer = Conv2dGeometry(
        given.batch, given.channels, given.side, given.side, given.filters, 3, 1, 1
    )
    runs = [errors(layer, seed) for seed in range(given.seeds)]
    rows: list[dict[str, Any]] = []
    for key in runs[0]:
        finite = [run[key] for run in runs if math.isfinite(run[key])]
        # None, where sums overflow the format in any run.
        values: list[Any] = [*finite] if len(finite) == len(runs) else [None]
        number_format, way, product = key
        rows.append(
            {
                "format": number_format,
                "way": way,
                "product": product,
                "error": sorted(values)[len(values) // 2],
                "lowest": min(values),
                "highest": max(values),
            }
        )
    print(rows_as_text(_table(rows)))
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        record = {"machine": machine(), "layer": layer.to_json(), "errors": rows}
        write_json(given.out / "errors.json", record)


def _table(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    table: dict[str, dict[str, str]] = {}
    for row in rows:
        line = table.setdefault(row["format"], {"format": row["format"]})
        before = f"{line[row['way']]} / " if row["way"] in line else ""
        line[row["way"]] = f"{before}{_words(row['error'])}"
    return list(table.values())


def _words(error: float | None) -> str:
    return "overflow" if error is None else f"{error:.1e}"


if __name__ == "__main__":
    main()
