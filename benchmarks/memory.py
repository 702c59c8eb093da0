"""Saved-activation policies on one model: bytes, measured peak, time, gradient error.

    python benchmarks/memory.py --model resnet18 --batch 32 --out resnet18.json

Plain autograd and every policy take turns within each round, so that what else the
machine does falls on all of them alike; times are medians over rounds and are given as
ratios to plain autograd of the same run. Weights are random; the images are crops of
photographs (``--data photo``) or noise.
"""

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from elision.memory import measure_peak, saver, watch_peak
from elision.workloads.models import make_model

POLICIES = ["none", "exact", "int8", "bits(4)", "bits(2.5)", "sfpr", "jpeg", "fp8"]
POLICIES += ["guaranteed(0.1)", "offload", "rad(0.1)"]
MIB = 2**20


def photographs(batch, size):
    """Crops of two public-domain photographs, standardised."""
    from skimage import data

    generator = torch.Generator().manual_seed(0)
    crops = []
    for index in range(batch):
        photo = torch.from_numpy(getattr(data, ("astronaut", "coffee")[index % 2])())
        photo = photo.permute(2, 0, 1).float()[None] / 255
        edge = min(photo.shape[2:]) // 2
        top, left = (
            int(torch.randint(n - edge, (), generator=generator))
            for n in photo.shape[2:]
        )
        crop = photo[..., top : top + edge, left : left + edge]
        crops.append(F.interpolate(crop, (size, size), mode="area")[0])
    x = torch.stack(crops)
    return (x - x.mean()) / x.std()


def machine():
    """What ran it."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = [line.split(":")[1].strip() for line in file if "model name" in line]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "accelerator": torch.accelerator.is_available(),
        "load": os.getloadavg()[0],
    }


def step(model, x, y, policy):
    """One forward and backward pass; policy None is plain autograd."""
    torch.manual_seed(1)
    model.zero_grad(set_to_none=True)
    saved = None
    if policy is None:
        loss = F.cross_entropy(model(x), y)
    else:
        with saver(model, policy, seed=0) as saved:
            loss = F.cross_entropy(model(x), y)
    loss.backward()
    return saved


def errors(model, x, y, policy, exact):
    """Relative error of every convolution's and linear layer's weight gradient."""
    step(model, x, y, policy)
    parameters = {n: p for n, p in model.named_parameters() if p.dim() > 1}
    off = {n: float((p.grad - exact[n]).norm()) for n, p in parameters.items()}
    return {n: off[n] / max(float(exact[n].norm()), 1e-30) for n in parameters}


def held(model, x, policy):
    """Bytes that are alive after the forward pass, and the ledger's account of them."""
    with watch_peak() as measured, saver(model, policy, seed=0) as saved:
        out = model(x)
    del out
    return measured.end_bytes, saved.ledger


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", choices=["photo", "noise"], default="photo")
    parser.add_argument("--policies", nargs="*", default=POLICIES)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()

    torch.manual_seed(0)
    model = make_model(given.model, classes=given.classes, image_size=given.size)
    shape = (given.batch, 3, given.size, given.size)
    noise = given.data == "noise"
    x = torch.randn(shape) if noise else photographs(given.batch, given.size)
    y = torch.arange(given.batch) % given.classes

    arms = [None, *given.policies]
    for arm in arms:  # compile, learn, allocate
        step(model, x, y, arm)
    step(model, x, y, None)
    exact = {n: p.grad.clone() for n, p in model.named_parameters()}
    seconds = {arm: [] for arm in arms}
    for _ in range(given.rounds):
        for arm in arms:
            start = time.perf_counter()
            step(model, x, y, arm)
            seconds[arm].append(time.perf_counter() - start)
    plain = statistics.median(seconds[None])
    rows = []
    # The gradients themselves are part of the peak: they are dropped before each step.
    plain_peak = measure_peak(lambda: step(model, x, y, None)).peak_bytes
    for arm in given.policies:
        off = errors(model, x, y, arm, exact)
        alive, ledger = held(model, x, arm)
        model.zero_grad(set_to_none=True)
        peak = measure_peak(lambda arm=arm: step(model, x, y, arm)).peak_bytes
        times = [t / p for t, p in zip(seconds[arm], seconds[None], strict=True)]
        rows.append(
            {
                "policy": arm,
                "logical_mib": ledger.logical_bytes / MIB,
                "stored_mib": ledger.stored_bytes / MIB,
                "tensor_ratio": ledger.ratio,
                "held_after_forward_mib": alive / MIB,
                "batch_mib": x.nbytes / MIB,
                "peak_mib": peak / MIB,
                "plain_peak_mib": plain_peak / MIB,
                "peak_ratio": plain_peak / peak,
                "time_ratio": statistics.median(times),
                "time_ratio_spread": [min(times), max(times)],
                "largest_gradient_error": max(off.values()),
                "median_gradient_error": statistics.median(off.values()),
                "gradient_errors": off,
            }
        )
        r = rows[-1]
        print(
            f"{given.model:>18} {arm:<16} tensors {r['tensor_ratio']:6.2f}x  "
            f"peak {r['peak_ratio']:5.2f}x ({r['plain_peak_mib']:.0f} -> "
            f"{r['peak_mib']:.0f} MiB)  ledger {r['stored_mib'] - r['batch_mib']:.1f} "
            f"measured {r['held_after_forward_mib']:.1f}  time {r['time_ratio']:.2f}x "
            f"[{min(times):.2f}, {max(times):.2f}]  gradient error median "
            f"{r['median_gradient_error']:.4f} largest {r['largest_gradient_error']:.4f}",
            flush=True,
        )
    record = {
        "machine": machine(),
        "settings": {k: str(v) for k, v in vars(given).items()},
        "plain_seconds": plain,
        "rows": rows,
    }
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        temporary = given.out.with_suffix(".tmp")
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        temporary.replace(given.out)


if __name__ == "__main__":
    main()
