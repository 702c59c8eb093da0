"""Products of integers in chains of 32 bits, over the same products in torch's floats.

ResNet-18's convolutions at 32x32 (batch 32) and a linear layer; operands as a format leaves
them, chains as long as 32 bits allow. Candidates take turns; printed is the median time
over float32's in torch's default layout, and in `channels_last`. The integer time holds all
it takes from rounded float32 operands to a float32 result; torch's own int8 has its
operands as bytes already and its weights packed, and is there for the forward product only.

    python benchmarks/integer.py [--rounds 9] [--threads 1] [--out FILE]
"""

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from elision.common.files import write_json
from elision.common.timing import interleaved, quoted_clock
from elision.engines.accumulating import compute
from elision.operands import Accumulate, Cast
from elision.products import Conv2dGeometry, LayerProduct, MatmulGeometry, Product
from elision.study.folder import environment

BATCH = 32
#: (channels in and out, pixels a side, stride) of ResNet-18's 3x3 convolutions at 32x32.
CONVOLUTIONS = ((64, 64, 32, 1), (64, 128, 32, 2), (128, 128, 16, 1), (512, 512, 4, 1))
#: Formats of the operands, and the terms of a chain; 0: all.
FORMATS = {"dfp8": 0, "int8": 0, "dfp12": 512, "dfp16": 2}


def layers() -> dict[str, Conv2dGeometry | MatmulGeometry]:
    """Layer shapes by name."""
    found: dict[str, Conv2dGeometry | MatmulGeometry] = {
        f"conv {c}-{k}, {size}x{size}, stride {stride}": Conv2dGeometry(
            BATCH, c, size, size, k, kernel=3, stride=stride, padding=1
        )
        for c, k, size, stride in CONVOLUTIONS
    }
    return found | {"linear 512-2048, 256 rows": MatmulGeometry(256, 512, 2048)}


def candidates(
    geometry: Conv2dGeometry | MatmulGeometry, kind: Product
) -> dict[str, Callable[[], object]]:
    """Ways to compute one product."""
    torch.manual_seed(0)
    first, second = (torch.randn(geometry.shape_of(name)) for name in kind.operands)
    whole = LayerProduct(kind, geometry, first, second)
    ways: dict[str, Callable[[], object]] = {"float32": whole.compute}
    if isinstance(geometry, Conv2dGeometry):
        a, b = (
            x.contiguous(memory_format=torch.channels_last) for x in (first, second)
        )
        ways["float32 channels_last"] = LayerProduct(kind, geometry, a, b).compute
    half = LayerProduct(kind, geometry, first.bfloat16(), second.bfloat16())
    ways["bfloat16"] = half.compute
    if kind is Product.FORWARD:
        ways["torch int8"] = of_bytes(geometry, first, second)
    for format, chunk in FORMATS.items():
        cast = Cast(format)
        product = LayerProduct(
            kind, geometry, cast(first, [], True), cast(second, [], True)
        )
        cell = Accumulate("int32", chunk)
        ways[format] = lambda product=product, cell=cell: compute(product, cell)
    return ways


def of_bytes(
    geometry: Conv2dGeometry | MatmulGeometry, x: torch.Tensor, w: torch.Tensor
) -> Callable[[], object]:
    """Torch's product of bytes: a quantized convolution, or a matrix product to int32."""
    if isinstance(geometry, MatmulGeometry):
        codes, turned = (v.mul(32).to(torch.int8) for v in (x, w.t().contiguous()))
        return lambda: torch.ops.aten._int_mm(codes, turned)
    images = torch.quantize_per_tensor(x, 1 / 32, 128, torch.quint8)
    images = images.contiguous(memory_format=torch.channels_last)
    packed = torch.ops.quantized.conv2d_prepack(
        torch.quantize_per_tensor(w, 1 / 32, 0, torch.qint8),
        None,
        geometry.stride,
        geometry.padding,
        geometry.dilation,
        geometry.groups,
    )
    return lambda: torch.ops.quantized.conv2d(images, packed, 1.0, 128)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    results: dict[str, Any] = {}
    for name, geometry in layers().items():
        for kind in Product:
            times = interleaved(candidates(geometry, kind), given.rounds)
            base = statistics.median(times["float32"])
            row = {way: statistics.median(each) / base for way, each in times.items()}
            results[f"{name}, {kind.value}"] = {"float32_ms": 1000 * base, "times": row}
            words = ", ".join(f"{way} {ratio:.2f}" for way, ratio in row.items())
            print(f"{name}, {kind.value}: {1000 * base:.1f} ms; {words}", flush=True)
    if given.out:
        facts = {
            "threads": given.threads,
            "rounds": given.rounds,
            "clock": quoted_clock(),
            "unit": "times of torch's float32 in its default layout",
            "machine": environment(),
            "results": results,
        }
        write_json(given.out, facts)


if __name__ == "__main__":
    main()
