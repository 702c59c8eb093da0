"""Peak memory of whole training steps, sparse against dense.

    python benchmarks/step_memory.py --out memory.json
    python benchmarks/step_memory.py --model VGG-16 --batch 128 --sparsity 0.9

Every case is measured three times, each time in a process of its own that builds the
model and its optimiser and makes some steps:

* *allocator*: the most that torch's allocator held at any moment, parameters, gradients
  and momentum included (:mod:`elision.memory.peak`);
* *process*: how far the resident set grew at its highest, beyond what it was after the
  imports and small steps, while the C allocator gives back at once whatever is freed.
  This also sees what the kernels and oneDNN take for themselves;
* *as it is*: the same with the C allocator's own settings, under which the holes between
  blocks count, too. That differs by some percent from run to run.
"""

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from kernels import MODELS, swat, training_step
from torch import nn

from elision.common.files import write_json
from elision.engines.bench import machine
from elision.layers import elide
from elision.memory import measure_peak
from elision.methods import RigL
from elision.workloads.models.resnet import resnet8

MIB = 2**20
STEPS = 3
#: What each witness asks of glibc, if anything.
WITNESSES: dict[str, dict[str, str]] = {
    "allocator": {},
    "process": {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"},
    "as it is": {},
}


def fixed_mask(model: nn.Module, sparsity: float) -> nn.Module:
    """The model under RigL's masks, between two of their moves."""
    masks = RigL(sparsity=sparsity, distribution="uniform", every=1_000_000)
    return elide(model, masks, engine="native")


#: Ways of a step: what becomes of a dense model, at a sparsity.
WAYS: dict[str, Callable[[nn.Module, float], nn.Module]] = {
    "dense NCHW": lambda model, _: model,
    "dense channels_last": lambda model, _: model.to(
        memory_format=torch.channels_last  # pyright: ignore[reportCallIssue]
    ),
    "SWAT": lambda model, s: swat(model, s, "sampled", dense=(":first",)),
    "fixed mask": fixed_mask,
}


def train(way: str, make: Callable[..., nn.Module], batch: int, sparsity: float) -> Any:
    """Build a model and make some steps; returns what a training run keeps."""
    torch.manual_seed(0)
    model = WAYS[way](make(in_channels=3, classes=10), sparsity)
    x = torch.randn(batch, 3, 32, 32)
    if way == "dense channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    step = training_step(model, x, torch.randint(0, 10, (batch,)))
    for _ in range(STEPS):
        step()
    return model, step


def resident(field: str) -> float:
    """``VmRSS`` or ``VmHWM`` of this process, in MiB."""
    status = Path("/proc/self/status").read_text()
    found = re.search(rf"{field}:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) / 1024


def measure(args: argparse.Namespace) -> float:
    """Peak MiB of one case by one witness, in this process."""
    case = (args.batch[0], args.sparsity[0])
    train(args.way, resnet8, 2, case[1])  # what is loaded and built once
    make = MODELS[args.model[0]]
    if args.witness == "allocator":
        return measure_peak(lambda: train(args.way, make, *case)).peak_bytes / MIB
    before = resident("VmRSS")
    kept = train(args.way, make, *case)
    grown = resident("VmHWM") - before
    del kept
    return grown


def apart(witness: str, way: str, model: str, batch: int, sparsity: float) -> float:
    """Peak MiB of one case, in a process of its own."""
    command = [sys.executable, __file__, "--witness", witness, "--way", way]
    command += ["--model", model, "--batch", str(batch), "--sparsity", str(sparsity)]
    settings = os.environ | WITNESSES[witness]
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=settings
    )
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--out", type=Path, help="JSON file for all figures")
    parser.add_argument("--model", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--batch", type=int, nargs="+", default=[32, 128])
    parser.add_argument("--sparsity", type=float, nargs="+", default=[0.9, 0.95])
    parser.add_argument("--way", choices=WAYS, help="only this one")
    parser.add_argument(
        "--witness", choices=WITNESSES, help="of --way, in this process"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.witness is not None:
        print(measure(args))
        return
    rows = []
    for name, batch in itertools.product(args.model, args.batch):
        print(f"{name}, batch {batch}: MiB by " + " and by ".join(WITNESSES))
        for way in [args.way] if args.way else WAYS:
            for s in [0.0] if way.startswith("dense") else args.sparsity:
                row: dict[str, Any] = {"way": way, "sparsity": s}
                row |= {"model": name, "batch": batch}
                row |= {w: apart(w, way, name, batch, s) for w in WITNESSES}
                rows.append(row)
                figures = "".join(f"{row[w]:9.1f}" for w in WITNESSES)
                print(f"  {way:20s} {s or '':5} {figures}", flush=True)
    if args.out is not None:
        write_json(args.out, {"machine": machine(), "steps": STEPS, "rows": rows})


if __name__ == "__main__":
    main()
