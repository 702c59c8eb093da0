"""Sparse training against dense, on this machine.

    python benchmarks/kernels.py products  [--out FILE]   every product, every layer
    python benchmarks/kernels.py layers    [--out FILE]   whole SWAT layers, NCHW to NCHW
    python benchmarks/kernels.py linear    [--out FILE]   whole SWAT linear layers
    python benchmarks/kernels.py network   [--out FILE]   whole training steps
    python benchmarks/kernels.py others    [--out FILE]   other sparse kernels, fixed mask
    python benchmarks/kernels.py modes     [--out FILE]   steps under autocast, compiled
    python benchmarks/kernels.py gradients [--out FILE]   zeros in the gradient
    python benchmarks/kernels.py grouped   [--out FILE]   grouped convolutions

Peak memory of the steps: ``step_memory.py``; training curves: ``training_curves.py``.

All candidates of a table run once a round, in rotating order, in one process. With one
thread (the default) the CPU time of the calling thread is taken, with more the wall clock.
Printed are medians, and half the interquartile range of the rounds' ratios as the
spread; ``--out`` writes everything as JSON, with the machine.
"""

import argparse
import copy
import importlib
import itertools
import json
import statistics
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from elision.common.files import write_text
from elision.common.timing import interleaved
from elision.engines.bench import bench, machine
from elision.layers import elide, elided_layers
from elision.methods import RigL, Static, Swat
from elision.products import Conv2dGeometry, Geometry, Product
from elision.topology import attach
from elision.workloads.models.resnet import resnet18
from elision.workloads.models.vgg import vgg16

#: Stride-1 3x3 layers of a CIFAR ResNet-18: channels, side, how many.
STAGES = [(64, 32, 4), (128, 16, 3), (256, 8, 3), (512, 4, 3)]
#: Channels, side, groups.
GROUPED = [(128, 32, 2), (256, 16, 2), (256, 16, 4), (256, 16, 8)]
BF16 = "dense bfloat16 last"
LINEAR = [(512, 1024, 1024), (1024, 1024, 1024), (1024, 768, 3072), (1024, 3072, 768)]


def compare(
    candidates: dict[str, Callable[[], Any]], dense: list[str], rounds: int
) -> dict[str, dict[str, float]]:
    """Median seconds, ratio to the best of ``dense``, and the ratio's spread."""
    seconds = interleaved(candidates, rounds)
    median = {n: statistics.median(t) for n, t in seconds.items()}
    best = min(dense, key=median.__getitem__)
    rows = {}
    for name, times in seconds.items():
        ratios = [d / t for d, t in zip(seconds[best], times, strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4)
        rows[name] = {
            "seconds": median[name],
            "ratio": median[best] / median[name],
            "spread": (high - low) / 2,
        }
    return rows


def swat(
    model: nn.Module, sparsity: float, threshold: str, dense: tuple[str, ...] = ()
) -> nn.Module:
    """A copy of a model under SWAT, native, as a user gets it."""
    recipe = Swat(sparsity=sparsity, threshold=threshold, dense=dense)  # pyright: ignore
    return elide(copy.deepcopy(model), recipe, engine="native")


def swats(
    args: argparse.Namespace, model: nn.Module, dense: tuple[str, ...] = ()
) -> dict[str, nn.Module]:
    """SWAT at every sparsity, with sampled and with exact thresholds."""
    return {
        f"SWAT {s:g}{', exact' * (kind == 'exact')}": swat(model, s, kind, dense)
        for kind in args.threshold
        for s in args.sparsity
    }


def fixed(layers: nn.Sequential, sparsity: float) -> nn.Sequential:
    """A copy of some layers under masks that stand, native."""
    model = copy.deepcopy(layers)
    first = ((":first", sparsity),)  # which "uniform" would leave dense
    masks = Static(sparsity=sparsity, distribution="uniform", layers=first)
    elide(model, masks, engine="native")
    # Announces that no step asks for more of the gradient than the mask's.
    attach(model, torch.optim.SGD(model.parameters(), 0.0))
    return model


def show(title: str, rows: dict[str, dict[str, float]]) -> None:
    print(title)
    for name, row in rows.items():
        print(
            f"  {name:24s} {row['seconds'] * 1e3:9.2f} ms   "
            f"{row['ratio']:5.2f} +- {row['spread']:.2f}"
            + (f"   error {row['error']:.0e}" if "error" in row else "")
        )


def layer_step(layer: nn.Module, x: torch.Tensor, g: torch.Tensor) -> Callable[[], Any]:
    """Forward and backward with all gradients."""

    def step() -> None:
        x.grad = None
        layer.zero_grad()
        layer(x).backward(g)

    return step


def difference(
    layer: nn.Module, oracle: nn.Module, x: torch.Tensor, g: torch.Tensor
) -> float:
    """Largest difference of output and input gradient, relative to their largest."""
    results = []
    for module in (layer, oracle):
        value = x.detach().clone().requires_grad_()
        y = module(value)
        y.backward(g)
        results.append((y.detach(), value.grad))
    pairs = zip(*results, strict=True)
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)


def dense_layers(
    conv: nn.Module, x: torch.Tensor, g: torch.Tensor
) -> dict[str, Callable[[], Any]]:
    made = {}
    for dtype in (torch.float32, torch.bfloat16):
        for layout in (torch.contiguous_format, torch.channels_last):
            layer = copy.deepcopy(conv).to(dtype)
            layer.to(memory_format=layout)  # pyright: ignore[reportCallIssue]
            like = [
                t.detach().to(dtype).contiguous(memory_format=layout) for t in (x, g)
            ]
            order = "NCHW" if layout is torch.contiguous_format else "last"
            name = f"dense {str(dtype)[6:]} {order}"
            made[name] = layer_step(layer, like[0].requires_grad_(), like[1])
    return made


def layers(args: argparse.Namespace) -> dict[str, Any]:
    tables, totals = {}, {}
    for channels, side, count in STAGES:
        conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        x = torch.randn(args.batch, channels, side, side, requires_grad=True)
        g = torch.randn_like(x)
        candidates = dense_layers(conv, x, g)
        for name, native in swats(args, nn.Sequential(conv)).items():
            own = x.detach().clone().requires_grad_()
            candidates[name] = layer_step(native, own, g)
        names = [n for n in candidates if "float32" in n]
        rows = tables[f"C{channels}"] = compare(candidates, names, args.rounds)
        show(f"{channels} channels, {side}x{side}, batch {args.batch}", rows)
        best = {
            "dense float32": min(rows[n]["seconds"] for n in names),
            "dense bfloat16": min(
                r["seconds"] for n, r in rows.items() if "bfloat16" in n
            ),
            **{n: r["seconds"] for n, r in rows.items() if n.startswith("SWAT")},
        }
        for name, seconds in best.items():
            totals[name] = totals.get(name, 0.0) + count * seconds
    print("13 layers (4 + 3 + 3 + 3)")
    for name, seconds in totals.items():
        ratio, bf16 = (totals[f"dense {d}"] / seconds for d in ("float32", "bfloat16"))
        print(f"  {name:24s} {seconds * 1e3:9.2f} ms   {ratio:5.2f}   bf16 {bf16:.2f}")
    return {"layers": tables, "13 layers": totals}


def linear(args: argparse.Namespace) -> dict[str, Any]:
    """Whole linear layers, rows in and rows out."""
    tables = {}
    for tokens, inputs, outputs in LINEAR:
        layer = nn.Linear(inputs, outputs, bias=False)
        x = torch.randn(tokens, inputs, requires_grad=True)
        g = torch.randn(tokens, outputs)
        candidates: dict[str, Callable[[], Any]] = {
            "dense float32": layer_step(layer, x, g)
        }
        low = copy.deepcopy(layer).bfloat16()
        candidates["dense bfloat16"] = layer_step(
            low, x.detach().bfloat16().requires_grad_(), g.bfloat16()
        )
        for name, native in swats(args, nn.Sequential(layer)).items():
            own = x.detach().clone().requires_grad_()
            candidates[name] = layer_step(native, own, g)
        title = f"{tokens} tokens, {inputs} to {outputs}"
        rows = tables[title] = compare(candidates, ["dense float32"], args.rounds)
        show(title, rows)
    return {"linear": tables}


def training_step(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, *, bf16: bool = False
) -> Callable[[], Any]:
    """Forward, loss, backward and SGD with momentum and weight decay."""
    optimizer = torch.optim.SGD(
        model.parameters(), 0.01, momentum=0.9, weight_decay=5e-4
    )
    if any(True for _ in elided_layers(model)):
        attach(model, optimizer)

    def step() -> float:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def network(args: argparse.Namespace) -> dict[str, Any]:
    tables = {}
    for name in args.model:
        make = MODELS[name]
        torch.manual_seed(0)
        model = make(in_channels=3, classes=10)
        x = torch.randn(args.batch, 3, 32, 32)
        y = torch.randint(0, 10, (args.batch,))
        last = x.contiguous(memory_format=torch.channels_last)
        in_last = copy.deepcopy(model).to(memory_format=torch.channels_last)
        candidates = {
            "dense float32 NCHW": training_step(copy.deepcopy(model), x, y),
            "dense float32 last": training_step(copy.deepcopy(in_last), last, y),
        }
        if args.bf16:
            candidates[BF16] = training_step(in_last, last, y, bf16=True)
        for kind, native in swats(args, model, dense=(":first",)).items():
            candidates[kind] = training_step(native, x, y)
        for s in args.sparsity:
            recipe = Swat(sparsity=s, threshold="sampled", dense=(":first",))
            chosen = elide(copy.deepcopy(model), recipe, engine="auto")
            candidates[f"SWAT {s:g}, auto"] = training_step(chosen, x, y)
            # Between two moves of its masks, RigL's steps are those of a fixed mask.
            masks = RigL(sparsity=s, distribution="uniform", every=1_000_000)
            masked = elide(copy.deepcopy(model), masks, engine="native")
            candidates[f"fixed mask {s:g}"] = training_step(masked, x, y)
        dense = [n for n in candidates if "float32" in n]
        rows = tables[name] = compare(candidates, dense, args.rounds)
        for row in rows.values() if args.bf16 else ():
            row["ratio_bf16"] = rows[BF16]["seconds"] / row["seconds"]
        show(f"{name}, batch {args.batch}", rows)
    return {"network": tables, "batch": args.batch}


def modes(args: argparse.Namespace) -> dict[str, Any]:
    """A step as it is, under autocast to bfloat16, and compiled: dense, and as elided."""
    tables = {}
    for name in args.model:
        torch.manual_seed(0)
        model = MODELS[name](in_channels=3, classes=10)
        x = torch.randn(args.batch, 3, 32, 32)
        y = torch.randint(0, 10, (args.batch,))
        last = x.contiguous(memory_format=torch.channels_last)
        in_last = copy.deepcopy(model).to(memory_format=torch.channels_last)

        def elided(sparsity: float, model: nn.Module = model) -> nn.Module:
            return swat(model, sparsity, "sampled", (":first",))

        candidates = {
            "dense float32": training_step(copy.deepcopy(model), x, y),
            "dense float32 last": training_step(copy.deepcopy(in_last), last, y),
            BF16: training_step(copy.deepcopy(in_last), last, y, bf16=True),
            "dense compiled": training_step(_compiled(copy.deepcopy(model)), x, y),
            "dense compiled last": training_step(_compiled(in_last), last, y),
        }
        for s in args.sparsity:
            candidates |= {
                f"SWAT {s:g}": training_step(elided(s), x, y),
                f"SWAT {s:g} bfloat16": training_step(elided(s), x, y, bf16=True),
                f"SWAT {s:g} compiled": training_step(_compiled(elided(s)), x, y),
            }
        rows = tables[name] = compare(candidates, list(candidates)[:2], args.rounds)
        for row in rows.values():
            row["ratio_bf16"] = rows[BF16]["seconds"] / row["seconds"]
        show(f"{name}, batch {args.batch}", rows)
    return {"modes": tables, "batch": args.batch}


def _compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model)  # pyright: ignore[reportReturnType]


def others(args: argparse.Namespace) -> dict[str, Any]:
    """Weights fixed and sparse, gradient at the surviving weights only."""
    tables = {}
    sparseprop = _optional("sparseprop.modules")
    sparselab = _optional("sparselab")
    for s in args.sparsity:
        for (channels, side, _), depth in itertools.product(STAGES, (1, 3)):
            convs = nn.Sequential(
                *(
                    nn.Conv2d(channels, channels, 3, padding=1, bias=False)
                    for _ in range(depth)
                )
            )
            native = fixed(convs, s)
            convs.load_state_dict(native.state_dict(), strict=False)  # zeros in place
            x = torch.randn(args.batch, channels, side, side, requires_grad=True)
            g = torch.randn_like(x)
            candidates = dense_layers(convs, x, g)
            candidates = {n: c for n, c in candidates.items() if "float32" in n}
            dense = list(candidates)
            candidates["elision"] = layer_step(
                native, x.detach().clone().requires_grad_(), g
            )
            if sparseprop is not None:
                for over_on in (False, True):
                    other = nn.Sequential(
                        *(
                            sparseprop.SparseConv2d.from_dense(
                                copy.deepcopy(conv), vectorizing_over_on=over_on
                            )
                            for conv in convs
                        )
                    )
                    name = f"SparseProp over_on={over_on}"
                    candidates[name] = layer_step(
                        other, x.detach().clone().requires_grad_(), g
                    )
            title = f"conv {channels} @ {side}x{side}, {s:g}"
            title = title if depth == 1 else f"{depth} x {title}"
            rows = tables[title] = compare(candidates, dense, args.rounds)
            rows["elision"]["error"] = difference(native, convs, x, g)
            show(title, rows)
        for tokens, inputs, outputs in LINEAR[:1] + LINEAR[2:3]:
            layer = nn.Linear(inputs, outputs, bias=False)
            native = fixed(nn.Sequential(layer), s)
            layer.weight.data.copy_(native[0].weight)  # pyright: ignore
            x, g = torch.randn(tokens, inputs), torch.randn(tokens, outputs)
            csr = layer.weight.detach().to_sparse_csr()
            back = layer.weight.detach().T.contiguous().to_sparse_csr()
            ones = csr.clone()
            ones.values().zero_()
            own_x = x.clone().requires_grad_()

            def csr_step(csr=csr, back=back, ones=ones, x=x, g=g) -> None:
                (csr @ x.T).T.contiguous()
                (back @ g.T).T.contiguous()
                torch.sparse.sampled_addmm(ones, g.T, x, beta=0.0)

            candidates = {
                "dense float32": layer_step(layer, own_x, g),
                "elision": layer_step(native, x.clone().requires_grad_(), g),
                "torch CSR": csr_step,
            }
            if sparseprop is not None:
                other = sparseprop.SparseLinear.from_dense(copy.deepcopy(layer))
                candidates["SparseProp"] = layer_step(
                    other, x.clone().requires_grad_(), g
                )
            if sparselab is not None:
                other = sparselab.SparseLinear(inputs, outputs, bias=False, sparsity=s)
                candidates["SparseLab"] = layer_step(
                    other, x.clone().requires_grad_(), g
                )
            title = f"linear {inputs} to {outputs}, {tokens} tokens, {s:g}"
            rows = tables[title] = compare(candidates, ["dense float32"], args.rounds)
            show(title, rows)
    return {"others": tables}


def _optional(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        print(f"left out: {error}", file=sys.stderr)
        return None


def products(
    args: argparse.Namespace, layers: Mapping[str, Geometry] | None = None, **zeros: Any
) -> dict[str, Any]:
    rows = bench(layers, rounds=args.rounds, progress=print, **zeros)
    for row in rows:
        print(
            f"  {row.layer:24s} {row.product:12s} {row.sparsity:5.2f} "
            f"dense {row.dense_gflops:6.0f} sparse {row.sparse_gflops:6.0f} GFLOP/s  "
            f"x{row.ratio:5.2f} +- {row.spread:.2f}  bf16 x{row.ratio_bf16:5.2f}  "
            f"s* {row.break_even:.2f} (bf16 {row.break_even_bf16:.2f})  "
            f"error {row.error:.0e}"
        )
    return {"products": [row.to_dict() for row in rows]}


def gradients(args: argparse.Namespace) -> dict[str, Any]:
    """Sparse anywhere, as ReSprop's difference, or in whole channels, as meProp's."""
    held = dict.fromkeys((Product.INPUT_GRAD, Product.WEIGHT_GRAD), "grad_output")
    tables = {}
    for kind, channels in (("anywhere", False), ("whole channels", True)):
        print(f"zeros of the gradient: {kind}")
        tables[kind] = products(args, sparse=held, channels=channels)["products"]
    return {"gradients": tables}


def grouped(args: argparse.Namespace) -> dict[str, Any]:
    made = {
        f"conv {c} @ {side}x{side}, {groups} groups": Conv2dGeometry(
            args.batch, c, side, side, c, 3, 1, 1, 1, groups
        )
        for c, side, groups in GROUPED
    }
    return {"grouped": products(args, made)["products"]}


MODELS = {"ResNet-18": resnet18, "VGG-16": vgg16}
TABLES = {
    f.__name__: f
    for f in (products, layers, linear, network, modes, others, gradients, grouped)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--out", type=Path, help="JSON file for all figures")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sparsity", type=float, nargs="+", default=[0.9, 0.95])
    parser.add_argument("--threshold", nargs="+", default=["sampled", "exact"])
    parser.add_argument(
        "--bf16",
        action=argparse.BooleanOptionalAction,
        default=torch.ops.mkldnn._is_mkldnn_bf16_supported(),
        help="network: the dense step in bfloat16, too; by default where oneDNN has it",
    )
    parser.add_argument("--model", nargs="+", default=list(MODELS), choices=MODELS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    start = machine()
    result = TABLES[args.table](args)
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"machine": start, "rounds": args.rounds, **result}, indent=1)
        write_text(args.out, text + "\n")


if __name__ == "__main__":
    main()
