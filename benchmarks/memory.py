"""What keeping activations costs: codecs by themselves, and the hooks that keep nothing.

    python benchmarks/memory.py --out codecs.json

Processor time per byte of float32 input, packing and unpacking, on the map of a
convolution and on the result of a ReLU; and steps under the policy "none" over steps in
plain autograd. Whole policies on whole networks: ``elision reproduce memory``.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch

from elision.files import write_json
from elision.memory import codecs
from elision.memory.measure import measure_policies
from elision.memory.roles import Role, Slot
from elision.reproduce.memory import photographs
from elision.runfolder import environment
from elision.workloads.models import make_model

CODECS = {
    "group 8-bit": codecs.GroupQuant(8),
    "group 4-bit": codecs.GroupQuant(4),
    "group 4-bit, stochastic": codecs.GroupQuant(4, rounding="stochastic"),
    "group 2-bit": codecs.GroupQuant(2),
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
            began = time.process_time()
            call()
            seconds[what].append(time.process_time() - began)
    speeds = {
        f"{what}_mb_per_s": x.nbytes / statistics.median(taken) / 1e6
        for what, taken in seconds.items()
    }
    return row | {"ratio": x.nbytes / max(packed.nbytes, 1), "error": off} | speeds


def hooks(rounds):
    """Steps whose every saved tensor goes through hooks that keep it."""
    rows = []
    for name, batch in (("resnet18", 64), ("vgg16", 64)):
        torch.manual_seed(0)
        model = make_model(name).train()
        labels = torch.arange(batch) % 10
        (row,) = measure_policies(
            model, photographs(batch, 32), labels, ("none",), rounds
        )
        rows.append(
            {
                "network": name,
                "batch": batch,
                "processor_time_ratios": row.processor_time_ratios,
                "median": row.processor_time_ratio,
            }
        )
    return rows


def main():
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found = {"environment": environment(), "codecs": [], "hooks": []}
    for row in measured(given.rounds):
        print(
            {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()},
            flush=True,
        )
        found["codecs"].append(row)
    for row in hooks(given.rounds):
        print(f"{row['network']}: hooks alone {row['median']:.3f}x", flush=True)
        found["hooks"].append(row)
    if given.out:
        write_json(given.out, found)


if __name__ == "__main__":
    main()
