"""Rates and break-even sparsities of sparse kernels on this machine, per layer.

A sparse kernel beats the dense one above the *break-even sparsity*::

    s* = 1 − R_sparse / R_dense

where ``R_sparse`` is its useful rate (dense operations x density / time) and ``R_dense``
the dense rate. ``R_sparse`` falls as lists get short, so s* is solved from measured
times: it is where the sparse time, interpolated log-linearly in the density, equals the
dense time.

Sparse and dense calls alternate in one process, so that other load on the machine meets
both; medians are quoted. With one thread, the clock is the calling thread's CPU time,
which leaves out the time that other processes had the core; with more, the wall clock
(:mod:`elision.common.timing`).
"""

import itertools
import math
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from elision.common.timing import interleaved, quoted_clock
from elision.engines.base import Hint
from elision.engines.decision import cpu_name
from elision.engines.native import library
from elision.engines.native.engine import NativeEngine
from elision.engines.roofline import Ceilings, Roof, measured_ceilings, roof_of
from elision.products import (
    Conv2dGeometry,
    Geometry,
    LayerProduct,
    MatmulGeometry,
    Product,
)

__all__ = [
    "LAYERS",
    "SPARSE",
    "BenchRow",
    "bench",
    "break_even",
    "machine",
]

_ONE = (1, 1)

#: Layers measured unless others are given: the stride-1 convolutions of a CIFAR
#: ResNet-18 (named by their channels), one with a stride, and two linear layers.
LAYERS: dict[str, Geometry] = {
    "conv 64 @ 32x32": Conv2dGeometry(32, 64, 32, 32, 64, (3, 3), _ONE, _ONE, _ONE, 1),
    "conv 128 @ 16x16": Conv2dGeometry(
        32, 128, 16, 16, 128, (3, 3), _ONE, _ONE, _ONE, 1
    ),
    "conv 256 @ 8x8": Conv2dGeometry(32, 256, 8, 8, 256, (3, 3), _ONE, _ONE, _ONE, 1),
    "conv 512 @ 4x4": Conv2dGeometry(32, 512, 4, 4, 512, (3, 3), _ONE, _ONE, _ONE, 1),
    "conv 128-256 /2 @ 16x16": Conv2dGeometry(
        32, 128, 16, 16, 256, (3, 3), (2, 2), _ONE, _ONE, 1
    ),
    "linear 1024x1024": MatmulGeometry(512, 1024, 1024),
    "linear 768x3072": MatmulGeometry(1024, 768, 3072),
}

#: Operand that holds the zeros of each product, unless given: those of SWAT.
SPARSE = {
    Product.FORWARD: "weight",
    Product.INPUT_GRAD: "weight",
    Product.WEIGHT_GRAD: "input",
}


@dataclass(frozen=True)
class BenchRow:
    """One product of one layer, sparse against dense.

    Attributes:
        layer: name of the layer.
        product: ``forward``, ``input_grad`` or ``weight_grad``.
        sparsity: fraction of zeros of the sparse operand.
        sparse_seconds: median of the native engine, layout and compression included.
        dense_seconds: median of torch in float32, the better of its two layouts.
        bf16_seconds: the same in bfloat16.
        sparse_gflops: useful rate, dense operations x density / time.
        dense_gflops: rate of torch in float32.
        bf16_gflops: rate of torch in bfloat16.
        ratio: dense over sparse seconds; above 1 sparse is faster.
        ratio_bf16: bfloat16 over sparse seconds.
        spread: half the interquartile range of the rounds' ratios.
        break_even: s* over float32; 0 if sparse wins at every density measured, 1 if at
            none.
        break_even_bf16: s* over bfloat16.
        error: largest difference from the dense result, relative to its largest value.
        intensity: float32 operations per byte of the layer's three tensors, all dense.
        bound: what limits the dense product on this machine: ``compute``, ``bandwidth``
            or ``latency`` (:mod:`elision.engines.roofline`).
        dense_of_roof: rate of torch in float32, as a share of the attainable one; above 1
            where it leaves out products with padding.
    """

    layer: str
    product: str
    sparsity: float
    sparse_seconds: float
    dense_seconds: float
    bf16_seconds: float
    sparse_gflops: float
    dense_gflops: float
    bf16_gflops: float
    ratio: float
    ratio_bf16: float
    spread: float
    break_even: float
    break_even_bf16: float
    error: float
    intensity: float
    bound: str
    dense_of_roof: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and tables."""
        return asdict(self)


def machine() -> dict[str, Any]:
    """Facts about the machine that affect the figures."""
    features = torch.backends.cpu.get_cpu_capability()
    reason = library.unavailable()
    return {
        "cpu": f"{cpu_name()}, {features}",
        "cores": os.cpu_count(),
        "load": [round(value, 1) for value in os.getloadavg()],
        "kernels": reason or library.path().stem,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "clock": "wall" if quoted_clock() == "wall" else "CPU time of the thread",
    }


def break_even(sparse: Mapping[float, float], dense: float) -> float:
    """Sparsity from which on the sparse time is below the dense one.

    Args:
        sparse: seconds by sparsity, at least one.
        dense: seconds.

    Returns:
        s*, interpolated log-linearly in the density between the two measured points
        around it; 0 if sparse wins at all of them, 1 if at none.
    """
    points = sorted(sparse.items())
    if points[-1][1] >= dense:
        return 1.0
    for (low, slow), (high, fast) in reversed(list(itertools.pairwise(points))):
        if slow >= dense > fast:
            share = math.log(slow / dense) / math.log(slow / fast)
            density = (1 - low) ** (1 - share) * (1 - high) ** share
            return 1 - density
    return 0.0


def bench(
    layers: Mapping[str, Geometry] | None = None,
    *,
    sparse: Mapping[Product, str] = SPARSE,
    channels: bool = False,
    sparsities: Sequence[float] = (0.5, 0.8, 0.9, 0.95, 0.98),
    rounds: int = 7,
    ceilings: Ceilings | None = None,
    progress: Callable[[str], None] | None = None,
) -> list[BenchRow]:
    """Measure products sparse and dense, with ``torch.get_num_threads()`` threads.

    The zeros are at random places. Times include the conversion from and to torch's
    layout.

    Args:
        layers: geometries by name; :data:`LAYERS` if None.
        sparse: the products to measure, and the operand of each that holds the zeros.
        channels: whether the zeros are whole channels of the batch, and not anywhere.
        sparsities: fractions of zeros to measure.
        rounds: timed rounds of each candidate.
        ceilings: limits of this machine, measured if None.
        progress: called with the name of each layer before it is measured.

    Returns:
        One row per layer, product and sparsity.

    Raises:
        RuntimeError: the native kernels are not available here.
    """
    if (reason := library.unavailable()) is not None:
        raise RuntimeError(f"there is nothing to measure: {reason}")
    if ceilings is None:
        ceilings = measured_ceilings()
    rows = []
    for name, geometry in (LAYERS if layers is None else layers).items():
        if progress is not None:
            progress(name)
        for kind, operand in sparse.items():
            case = (name, geometry, kind, operand, channels)
            rows += _measure(
                *case, sorted(sparsities), rounds, roof_of(geometry, ceilings)
            )
    return rows


def _measure(
    name: str,
    geometry: Geometry,
    kind: Product,
    sparse: str,
    channels: bool,
    sparsities: list[float],
    rounds: int,
    roof: Roof,
) -> list[BenchRow]:
    generator = torch.Generator().manual_seed(0)
    values = {
        o: torch.randn(geometry.shape_of(o), generator=generator) for o in kind.operands
    }
    candidates: dict[str, Callable[[], torch.Tensor]] = {}
    for dtype in (torch.float32, torch.bfloat16):
        for layout in _layouts(geometry):
            pair = [
                v.to(dtype).contiguous(memory_format=layout) for v in values.values()
            ]
            product = LayerProduct(kind, geometry, pair[0], pair[1])
            candidates[f"{dtype} {layout}"] = product.compute
    errors = {}
    for s in sparsities:
        zeroed = dict(values)
        keep = _kept(values[sparse].shape, s, channels, generator)
        zeroed[sparse] = values[sparse] * keep
        first, second = zeroed.values()
        product = LayerProduct(kind, geometry, first, second)
        call = candidates[f"sparse {s}"] = _compressing(product, Hint(sparse))
        expected = product.compute()
        scale = expected.abs().max().item() or 1.0
        errors[s] = (call() - expected).abs().max().item() / scale
    seconds = interleaved(candidates, rounds)
    median = {n: statistics.median(t) for n, t in seconds.items()}
    best = {
        dtype: min(
            (n for n in median if n.startswith(str(dtype))), key=median.__getitem__
        )
        for dtype in (torch.float32, torch.bfloat16)
    }
    dense, bf16 = (median[n] for n in best.values())
    times = {s: median[f"sparse {s}"] for s in sparsities}
    operations = 2 * geometry.dense_macs / 1e9
    rows = []
    for s in sparsities:
        ratios = [
            d / t
            for d, t in zip(
                seconds[best[torch.float32]], seconds[f"sparse {s}"], strict=True
            )
        ]
        low, _, high = statistics.quantiles(ratios, n=4)
        rows.append(
            BenchRow(
                layer=name,
                product=kind.value,
                sparsity=s,
                sparse_seconds=times[s],
                dense_seconds=dense,
                bf16_seconds=bf16,
                sparse_gflops=operations * (1 - s) / times[s],
                dense_gflops=operations / dense,
                bf16_gflops=operations / bf16,
                ratio=dense / times[s],
                ratio_bf16=bf16 / times[s],
                spread=(high - low) / 2,
                break_even=break_even(times, dense),
                break_even_bf16=break_even(times, bf16),
                error=errors[s],
                intensity=roof.intensity,
                bound=roof.bound,
                dense_of_roof=roof.share(operations / dense),
            )
        )
    return rows


def _kept(
    shape: torch.Size, sparsity: float, channels: bool, generator: torch.Generator
) -> torch.Tensor:
    """Mask of an operand's non-zeros: at random places, or whole channels (axis 1)."""
    if not channels:
        return torch.rand(shape, generator=generator) >= sparsity
    order = torch.randperm(shape[1], generator=generator)
    kept = order >= round(sparsity * shape[1])
    return kept.view(1, -1, *(1 for _ in shape[2:]))


def _layouts(geometry: Geometry) -> list[torch.memory_format]:
    plain = [torch.contiguous_format]
    is_conv = len(geometry.shape_of("input")) == 4
    return [*plain, torch.channels_last] if is_conv else plain


def _compressing(product: LayerProduct, hint: Hint) -> Callable[[], torch.Tensor]:
    """A native product that compresses its weight anew, as after a training step."""
    engine = NativeEngine()

    def call() -> torch.Tensor:
        engine.forget()
        return engine.compute(product, hint)

    return call
