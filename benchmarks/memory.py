"""What keeping activations costs: codecs by themselves, and the hooks that keep nothing.

    python benchmarks/memory.py --out costs.json
    python benchmarks/memory.py --only hooks --rounds 21 --out hooks.json
    python benchmarks/memory.py --only hooks --networks resnet50-imagenet --size 224 \
        --batch 32 --rounds 5 --out hooks-resnet50.json

``codecs``: processor time per byte of float32 input, packing and unpacking, on the map of
a convolution and on the result of a ReLU. ``hooks``: steps under the policy "none" over
steps in plain autograd. ``offload``: steps whose tensors go to files, brought back one
ahead or not, beside PyTorch's ``save_on_cpu``. ``compiled``: what a compiled model keeps,
and its peak. Whole policies on whole networks: ``elision reproduce memory``.
"""

import argparse
import os
import statistics
from pathlib import Path
from typing import Any

import torch
from gpu import GROUP_CODECS

from elision.common.files import write_json
from elision.common.timing import elapsed
from elision.memory import Rule, codecs, saver, watch_peak
from elision.memory.measures.measure import SAVE_ON_CPU, loss_under, step_peak
from elision.memory.saved.roles import Role, Slot
from elision.study.folder import environment
from elision.study.papers.memory.paper import photographs
from elision.workloads.models import make_model

CODECS = {
    **GROUP_CODECS,
    "fixed point 8": codecs.FixedPoint(8),
    "fp8": codecs.Float8(),
    "zero-value": codecs.ZeroValue(),
    "jpeg": codecs.Jpeg(),
    "jpeg, deflate": codecs.Jpeg(coding="deflate"),
    "division": codecs.Division(),
    "offload": codecs.Offload(),
}
EXTRAS = {"sz3": codecs.Sz3, "zfp": codecs.Zfp}


def measured(rounds):
    """One row per codec and kind of tensor."""
    found = dict(CODECS)
    for name, make in EXTRAS.items():
        try:
            found[name] = make(0.05)
        except ModuleNotFoundError as missing:
            print(missing)
    # A first convolution's maps: smooth, as real ones are.
    torch.manual_seed(0)
    with torch.no_grad():
        maps = torch.nn.Conv2d(3, 64, 3, padding=1)(photographs(32, 56))
    for relu in (False, True):
        x = maps.relu() if relu else maps
        slot = Slot(
            "ConvolutionBackward0", "input", Role.LINEAR_INPUT, nonnegative=relu
        )
        for name, codec in found.items():
            yield timed(name, codec, x, slot, rounds)


def timed(name, codec, x, slot, rounds):
    packed = codec.pack(x, slot)
    row = {"codec": name, "tensor": "relu" if slot.nonnegative else "maps"}
    if packed is None:
        return row | {"ratio": 1.0}
    off = float((codec.unpack(packed) - x).norm() / x.norm())
    seconds = {"pack": [], "unpack": []}
    for _ in range(rounds):
        for what, call in (
            ("pack", lambda: codec.pack(x, slot)),
            ("unpack", lambda: codec.unpack(packed)),
        ):
            seconds[what].append(elapsed(call).process)
    speeds = {
        f"{what}_mb_per_s": x.nbytes / statistics.median(taken) / 1e6
        for what, taken in seconds.items()
    }
    return row | {"ratio": x.nbytes / max(packed.nbytes, 1), "error": off} | speeds


def hooks(rounds, networks, batch, size):
    """Steps whose every saved tensor goes through hooks that keep it.

    Plain steps and such steps take turns; the ratio is taken within each turn.
    """
    for name in networks:
        torch.manual_seed(0)
        model = make_model(name, image_size=size).train()
        images, labels = photographs(batch, size), torch.arange(batch) % 10
        ratios, added, plain = [], [], []
        for turn in range(rounds + 1):
            order = (None, "none") if turn % 2 else ("none", None)
            taken = {policy: step(model, images, labels, policy) for policy in order}
            if turn:  # the first warms up
                ratios.append(taken["none"] / taken[None])
                added.append(taken["none"] - taken[None])
                plain.append(taken[None])
        lower, median, upper = statistics.quantiles(ratios, n=4)
        yield {
            "network": name,
            "batch": batch,
            "size": size,
            "processor_time_ratios": ratios,
            "quartiles": [lower, median, upper],
            "plain_ms": 1000 * statistics.median(plain),
            "added_ms": [1000 * t for t in statistics.quantiles(added, n=4)],
        }


def step(model, images, labels, policy):
    """Processor seconds of a forward and a backward pass."""
    return step_seconds(model, images, labels, policy).process


def step_seconds(model, images, labels, policy):
    """Seconds of a forward and a backward pass, by all clocks."""
    model.zero_grad(set_to_none=True)
    return elapsed(lambda: loss_under(policy, model, images, labels).backward())


def offload(rounds):
    """Wall-clock and processor time of steps whose tensors go to files.

    Every kind of step takes its turn in every round; ratios are taken within a round.
    """
    torch.manual_seed(0)
    model = make_model("resnet18", image_size=64).train()
    images, labels = photographs(32, 64), torch.arange(32) % 10
    arms = {
        "plain": None,
        "offload, ahead": Rule((codecs.Offload(ahead=True),)),
        "offload, when asked for": Rule((codecs.Offload(ahead=False),)),
        SAVE_ON_CPU: SAVE_ON_CPU,
    }
    taken = {name: [] for name in arms}
    for turn in range(rounds + 1):
        for name, policy in arms.items():
            seconds = step_seconds(model, images, labels, policy)
            if turn:  # the first warms up
                taken[name].append((seconds.wall, seconds.process))
    plain_peak = step_peak(model, images, labels, None)
    for name, policy in arms.items():
        pairs = list(zip(taken[name], taken["plain"], strict=True))
        wall, processor = ([a[i] / b[i] for a, b in pairs] for i in (0, 1))
        yield {
            "step": name,
            "wall_time_ratios": wall,
            "quartiles": statistics.quantiles(wall, n=4),
            "processor_time_ratio": statistics.median(processor),
            "peak_ratio": plain_peak / step_peak(model, images, labels, policy),
        }


def compiled(backend="inductor"):
    """A compiled ResNet-8: bytes after the forward pass, peak, gradient errors."""
    torch.manual_seed(0)
    model = make_model("resnet8", image_size=32).train()
    images, labels = photographs(64, 32), torch.arange(64) % 10
    made: Any = torch.compile(model, backend=backend)
    exact = None
    for policy in ("none", "exact", "int8", "bits(4)", "fp8"):
        step(made, images, labels, policy)  # compiles
        weights = [p for p in model.parameters() if p.dim() > 1]
        gradients = [p.grad.clone() for p in weights if p.grad is not None]
        exact = exact or gradients
        off = [
            float((a - b).norm() / b.norm())
            for a, b in zip(gradients, exact, strict=True)
        ]
        model.zero_grad()
        with watch_peak() as whole:
            step(made, images, labels, policy)
        with watch_peak() as held, saver(made, policy) as saved:
            out = made(images)
        del out
        yield {
            "policy": policy,
            "peak_bytes": whole.peak_bytes,
            "held_bytes": held.end_bytes,
            "ledger_bytes": saved.ledger.stored_bytes,
            "error_median": statistics.median(off),
            "error_largest": max(off),
        }


def _short(value):
    if isinstance(value, list):
        return f"{len(value)} values" if len(value) > 3 else [_short(v) for v in value]
    return round(value, 4) if isinstance(value, float) else value


def main():
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", choices=("codecs", "hooks", "offload", "compiled"))
    networks = ["resnet18", "vgg16", "transformer"]
    parser.add_argument("--networks", nargs="+", default=networks, help="for hooks")
    parser.add_argument("--batch", type=int, default=16, help="for hooks")
    parser.add_argument("--size", type=int, default=32, help="for hooks")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    found: dict[str, Any] = {
        "environment": environment() | {"load": os.getloadavg()[0]}
    }
    kinds = {
        "codecs": lambda: measured(given.rounds),
        "hooks": lambda: hooks(given.rounds, given.networks, given.batch, given.size),
        "offload": lambda: offload(given.rounds),
        "compiled": compiled,
    }
    for kind, rows in kinds.items():
        if given.only in (None, kind):
            found[kind] = []
            for row in rows():
                print(kind, {k: _short(v) for k, v in row.items()})
                found[kind].append(row)
    if given.out:
        write_json(given.out, found)


if __name__ == "__main__":
    main()
