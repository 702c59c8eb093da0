"""Ternary residual networks, and the ternary kernel, on this machine.

    python benchmarks/ternary.py networks    [--weights DIR]   our own networks, real data
    python benchmarks/ternary.py photographs                   MobileNetV2 on photographs
    python benchmarks/ternary.py kernel                        against int8 and fp32

Each writes its part of ``--out`` (a JSON file) and prints it. ``networks`` trains the
networks as their presets say, or takes state dicts ``DIR/NAME.pt``; half of the test
images are the calibration data, the other half the test.
"""

import argparse
import itertools
import json
import statistics
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elision.common.files import write_json
from elision.common.timing import interleaved
from elision.engines.bench import machine
from elision.engines.native.ternary import PackedTernary, quantised
from elision.engines.native.ternary_sums import AddedTernary, planes
from elision.formats.ternary_blocks import TernaryBlocks, rows_of, ternary_blocks
from elision.layers import restore
from elision.methods import Dense
from elision.precision import ternary_residual
from elision.precision.calibration import Calibration
from elision.precision.ternary_counts import PUBLISHED, fewer_multiplications, smaller
from elision.precision.ternary_network import network_of
from elision.products import Conv2dGeometry
from elision.report.table import rows_as_text
from elision.training.loop import RunPlan, train
from elision.workloads import find_workload

NETWORKS = ("digits-cnn", "mnist5k-cnn", "photo-resnet8")
SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)

#: Share of the weights that a pruned layer keeps.
_SPARSE = 0.25

#: Batch, channels, side, outputs, kernel: a ResNet-18's stages, and linear layers.
SHAPES = (
    (8, 64, 32, 64, 3),
    (8, 128, 16, 128, 3),
    (8, 256, 8, 256, 3),
    (8, 512, 4, 512, 3),
    (256, 1024, 1, 1024, 1),
    (1, 1024, 1, 1024, 1),
    (1, 4096, 1, 4096, 1),
)


def trained(name: str, weights: Path | None) -> Callable[[], nn.Module]:
    """A function that makes copies of a trained network."""
    workload = find_workload(name)
    dataset = workload.load_dataset()
    file = weights / f"{name}.pt" if weights else None
    if file is not None and file.is_file():
        state = torch.load(file, weights_only=True)
    else:
        model = restore(train(workload, Dense(), dataset, RunPlan(seed=0)).model)
        state = model.state_dict()
        if file is not None:
            torch.save(state, file)

    def make() -> nn.Module:
        model = workload.make_model(dataset)
        model.load_state_dict(state)
        return model.eval()

    return make


def networks(args: argparse.Namespace) -> dict[str, Any]:
    """Accuracy, terms, work and size for 1 and 2 points and blocks of 64 and 256."""
    found, rows = {}, []
    for name in NETWORKS:
        make = trained(name, args.weights)
        dataset = find_workload(name).load_dataset()
        batches = list(find_workload(name).test_batches(dataset))
        images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
        calibration = images[::2], labels[::2]
        test = images[1::2], labels[1::2]
        judge = Calibration.of(make(), test)
        # Without labels, every class that changes counts against the drop.
        for drop, block, data in (
            *itertools.product((0.01, 0.02), (64, 256), (calibration,)),
            (0.01, 64, calibration[0]),
        ):
            labelled = data is calibration
            key = f"{name}, drop {drop:g}, blocks of {block}" + ", no labels" * (
                not labelled
            )
            try:
                model = ternary_residual(make(), data, drop, block)
            except ValueError as error:  # a drop that is not met
                found[key] = {"not met": str(error)}
                print(key, error, flush=True)
                continue
            accuracy = judge.score(model)
            counts = network_of(model).counts()
            rows.append(
                {
                    "network": name,
                    "drop": drop,
                    "block": block,
                    "labels": "yes" if labelled else "no",
                    "float": judge.accuracy,
                    "ternary": accuracy,
                    "lost points": 100 * (judge.accuracy - accuracy),
                    "terms a block": counts.mean_terms,
                    "fewer multiplications": counts.fewer,
                    "smaller": counts.smaller,
                }
            )
            found[key] = {
                **rows[-1],
                "test_images": len(test[1]),
                "standard error, points": 100 * judge.lost(model)[1],
                "report": network_of(model).to_dict(),
                "curve": network_of(model).curve(test, SHARES),
            }
            print(rows_as_text(rows[-1:]), flush=True)
    print(rows_as_text(rows))
    return {"test images": "every second one; the others calibrate", "runs": found}


def published() -> list[dict[str, Any]]:
    """The published rows beside the formulas."""
    return [
        {
            "block": row.block,
            "terms a block": row.terms,
            "fewer, published": row.fewer,
            "fewer, formula": fewer_multiplications(row.block, row.terms),
            "smaller, published": row.smaller,
            "smaller, formula": smaller(row.block, row.terms),
        }
        for row in PUBLISHED
    ]


def photographs(args: argparse.Namespace) -> dict[str, Any]:
    """MobileNetV2 by terms a block, uniform and by the greedy rule."""
    del args
    from elision.workloads.data.photographs import imagenet_photographs
    from elision.workloads.models.trained import trained_mobilenet_v2

    photos = imagenet_photographs()
    x, y = photos.images, photos.labels
    with torch.no_grad():
        plain = trained_mobilenet_v2()(x)
    rows = [_judged("float", plain, plain, y)]
    uniform: Any = {"sensitivity": "relative", "batch_norm": "kept"}
    for terms in (1, 2, 3, 4, 5, 6):
        model = trained_mobilenet_v2()
        ternary_residual(model, x, None, budget=terms, terms=terms, **uniform)
        rows.append(_photo_row(f"{terms} everywhere", model, plain, x, y))
    worth: Any = "measured"
    for budget in (2, 3, 4, 5):
        model = trained_mobilenet_v2()
        ternary_residual(
            model,
            x,
            None,
            budget=budget,
            terms=10,
            sensitivity=worth,
            batch_norm="kept",
        )
        worth = network_of(model).worth
        rows.append(_photo_row(f"greedy, {budget} on average", model, plain, x, y))
    depthwise = [row for row in network_of(model).rows() if row["weights"] % 9 == 0]
    print(rows_as_text(rows))
    return {"rows": rows, "layers at 5": network_of(model).rows(), "9s": len(depthwise)}


def _photo_row(
    name: str, model: nn.Module, plain: Tensor, x: Tensor, y: Tensor
) -> dict[str, Any]:
    with torch.no_grad():
        row = _judged(name, model(x), plain, y)
    counts = network_of(model).counts()
    row |= {
        "terms a block": counts.mean_terms,
        "fewer multiplications": counts.fewer,
        "smaller": counts.smaller,
    }
    print(rows_as_text([row]), flush=True)
    return row


def _judged(name: str, z: Tensor, plain: Tensor, y: Tensor) -> dict[str, Any]:
    return {
        "weights": name,
        "right of 20": int((z.argmax(1) == y).sum()),
        "same of 20": int((z.argmax(1) == plain.argmax(1)).sum()),
        "logit error": ((z - plain).norm() / plain.norm()).item(),
    }


def kernel(args: argparse.Namespace) -> dict[str, Any]:
    """Time of a layer, float image in and out, over that of the best of torch's."""
    found = {}
    for shape in args.shapes or SHAPES:
        candidates = _candidates(*shape)
        seconds = interleaved(candidates, args.rounds)
        median = {n: statistics.median(s) for n, s in seconds.items()}
        best = {
            kind: min(v for n, v in median.items() if n.startswith(kind))
            for kind in ("fp32", "int8")
        }
        rows = [
            {
                "candidate": name,
                "ms": 1e3 * value,
                "over fp32": best["fp32"] / value,
                "over int8": best["int8"] / value,
            }
            for name, value in median.items()
        ]
        words = "batch {}, {} channels, side {}, {} outputs, kernel {}".format(*shape)
        even = {
            f"{design} and {kind}": _break_even(
                [median[f"{design} {t}"] for t in (1, 2, 3, 4)], value
            )
            for design in ("packed", "sums")
            for kind, value in best.items()
        }
        print(f"{words}; break-even terms {even}\n{rows_as_text(rows)}", flush=True)
        found[words] = {"rows": rows, "break_even_terms": even}
    return {
        "rounds": args.rounds,
        "dense_terms_density": "Gaussian weights, 0.55 of the first term's codes not zero",
        "break_even_terms": "4: at all four measured; below 1: at none, the ratio of 1",
        "layers": found,
    }


def _break_even(times: list[float], dense: float) -> float:
    """Mean terms at which the kernel's time, linear between the points, is the other's."""
    if times[0] >= dense:
        return dense / times[0]
    for terms, (low, high) in enumerate(itertools.pairwise(times), 1):
        if high >= dense:
            return terms + (dense - low) / (high - low)
    return float(len(times))


def _candidates(n: int, c: int, side: int, k: int, kernel: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, c, side, side, generator=generator).relu()
    w = torch.randn(k, c, kernel, kernel, generator=generator)
    pad, step = kernel // 2, x.max().item() / 255
    geometry = Conv2dGeometry(n, c, side, side, k, kernel, 1, pad)
    terms, bias = ternary_blocks(rows_of(w), 64, 4), torch.zeros(k)

    def ternary(
        design: Any, prepare: Any, blocks: TernaryBlocks, count: int
    ) -> Callable[[], Any]:
        shape = blocks.scales.shape[1:]
        made = design([blocks.first(count)], [torch.full(shape, count)])

        def call() -> Tensor:
            q, _ = prepare(x, step, -128, (pad, pad))
            return made.product(q, geometry, bias, step, (pad, pad))

        return call

    made: dict[str, Any] = {}
    for count in (1, 2, 3, 4):
        made[f"packed {count}"] = ternary(PackedTernary, quantised, terms, count)
        made[f"sums {count}"] = ternary(AddedTernary, planes, terms, count)
    # Pruned first: only the sums leave zeros out.
    kept = torch.rand(w.shape, generator=generator) < _SPARSE
    sparse = ternary_blocks(rows_of(w * kept), 64, 1)
    name = f"sums 1, density {sparse.nonzeros.sum() / w.numel():.2f}"
    made[name] = ternary(AddedTernary, planes, sparse, 1)
    if side > 1:
        last = x.contiguous(memory_format=torch.channels_last)
        made["fp32"] = lambda: F.conv2d(x, w, None, 1, pad)
        made["fp32 channels last"] = lambda: F.conv2d(last, w, None, 1, pad)
    else:
        flat, matrix = x.view(n, c), w.view(k, c)
        made["fp32"] = lambda: F.linear(flat, matrix)
    for engine in ("fbgemm", "onednn"):
        if engine in torch.backends.quantized.supported_engines:
            made[f"int8 {engine}"] = _int8(engine, x, w, pad, step)
    return made


def _int8(
    engine: str, x: Tensor, w: Tensor, pad: int, step: float
) -> Callable[[], Any]:
    """Torch's own 8-bit layer, weights per channel, from a float input."""
    ops = torch.ops.quantized
    torch.backends.quantized.engine = engine
    conv = x.shape[-1] > 1
    scales, zeros = torch.full((len(w),), 0.02), torch.zeros(len(w), dtype=torch.long)
    x = x.contiguous(memory_format=torch.channels_last) if conv else x.flatten(1)
    w = w if conv else w.flatten(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces the end of this interface
        quantised_weight = torch.quantize_per_channel(w, scales, zeros, 0, torch.qint8)
        packed = (
            ops.conv2d_prepack(quantised_weight, None, [1, 1], [pad] * 2, [1, 1], 1)
            if conv
            else ops.linear_prepack(quantised_weight, None)
        )

    def call() -> Any:
        torch.backends.quantized.engine = engine
        q = torch.quantize_per_tensor(x, step, 0, torch.quint8)
        y = (ops.conv2d if conv else ops.linear)(q, packed, 0.1, 0)
        return y.dequantize()

    return call


PARTS = {"networks": networks, "photographs": photographs, "kernel": kernel}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument(
        "--shapes", type=lambda s: [tuple(map(int, p.split("x"))) for p in s.split(",")]
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    facts = machine()
    result = PARTS[args.part](args)
    if args.out:
        everything = json.loads(args.out.read_text()) if args.out.is_file() else {}
        everything[args.part] = {"machine": facts, **result}
        everything["published"] = published()
        args.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(args.out, everything)


if __name__ == "__main__":
    sys.exit(main())
