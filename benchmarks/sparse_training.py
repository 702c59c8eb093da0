"""What moving masks and thresholds cost, over the step they belong to.

For each method the same network takes a step of the method and one of its baseline by
turns: for mask methods a static mask of the same densities, for the others dense
training. Printed are ratios of medians in this run on this machine, of an ordinary
step and of one that moves or refreshes, and what the moves add at their published
period. Time is that of the processor, which a busy machine disturbs less than the clock
on the wall; a mask method's ordinary step is its baseline's, so how far its ratio is
from 1 shows the noise. Torch's dense kernels compute every product, zeros included: what
kernels that leave the zeros out are worth is measured by ``kernels.py``.

    python benchmarks/sparse_training.py [--width 32] [--batch 32] [--rounds 5]
                                         [--json FILE]
"""

import argparse
import platform
import statistics
from pathlib import Path

import torch
import torch.nn.functional as F

import elision
from elision import methods
from elision.common.files import write_json
from elision.common.timing import elapsed
from elision.workloads import make_model

#: Steps between two moves here; the amortised ratio uses the published period.
EVERY = 10

_STATIC, _DENSE = methods.Static(0.9), methods.Dense()
_SAMPLED = methods.Swat(0.9, threshold="sampled", refresh=EVERY)

#: Name -> method, its baseline, and the published steps between two moves.
CASES = {
    "set": (methods.SET(0.9, every=EVERY), _STATIC, 100),
    "rigl": (methods.RigL(0.9, every=EVERY), _STATIC, 100),
    "srigl": (methods.SRigL(0.9, every=EVERY), _STATIC, 100),
    "snfs": (methods.SNFS(0.9, every=EVERY), _STATIC, 100),
    "dsr": (methods.DSR(0.9, every=EVERY), _STATIC, 1000),
    "top-kast": (methods.TopKAST(0.9, every=EVERY), _STATIC, 100),
    "dst": (methods.DST(), _STATIC, 1),
    "n:m": (methods.NM(), _DENSE, 1),
    "static": (_STATIC, _DENSE, 1),
    "swat, exact thresholds": (methods.Swat(0.9), _DENSE, 1),
    "swat, sampled thresholds": (methods.Swat(0.9, threshold="sampled"), _DENSE, 1),
    "swat, sampled every 10": (_SAMPLED, _DENSE, 10),
    "swat-m": (methods.SwatM(0.9), _DENSE, 1),
    "swat-structured": (methods.SwatStructured(0.9), _DENSE, 1),
    "resprop": (methods.ReSprop(0.9), _DENSE, 1),
    "meprop": (methods.MeProp(0.1), _DENSE, 1),
    "meprop, unified": (methods.MeProp(0.1, unified=True), _DENSE, 1),
}


def prepared(method, width):
    torch.manual_seed(0)
    # One engine for both: what is measured is the method, not the kernels.
    model = elision.elide(make_model("resnet8", width=width), method, engine="torch")
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)
    elision.topology.attach(model, optimizer)
    return model, optimizer


def step_seconds(model, optimizer, images, labels):
    def step():
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return elapsed(step).process


def measure(method, baseline, period, width, rounds, batch):
    ours, theirs = prepared(method, width), prepared(baseline, width)
    usual, moving, plain = [], [], []
    for step in range(1, EVERY * rounds + 1):
        seconds = step_seconds(*ours, *batch)
        # SWAT refreshes in its first step and then every tenth, masks move in the tenth.
        special = step % EVERY in ((0,) if baseline is _STATIC else (1,))
        (moving if special and period > 1 else usual).append(seconds)
        plain.append(step_seconds(*theirs, *batch))
    base = statistics.median(plain)
    often = statistics.median(usual)
    rarely = statistics.median(moving) if moving else often
    low, _, high = statistics.quantiles([seconds / base for seconds in plain], n=4)
    return {
        "baseline": baseline.name,
        "baseline_ms": 1000 * base,
        "baseline_quartiles": [low, high],
        "usual_step": often / base,
        "moving_step": rarely / base,
        "moves_add": (rarely - often) / period / base,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    batch = torch.randn(arguments.batch, 3, 32, 32), torch.arange(arguments.batch) % 10
    results = {}
    print(f"{'method':26} {'baseline':>14} {'usual':>7} {'moving':>7} {'moves add':>9}")
    for name, (method, baseline, period) in CASES.items():
        size = (arguments.width, arguments.rounds)
        results[name] = found = measure(method, baseline, period, *size, batch)
        print(
            f"{name:26} {baseline.name:>6} {found['baseline_ms']:4.0f} ms "
            f"{found['usual_step']:7.3f} {found['moving_step']:7.3f} "
            f"{100 * found['moves_add']:8.2f}%"
        )
    if arguments.json:
        machine = f"{platform.machine()}, torch {torch.__version__}, 1 thread"
        settings = {k: v for k, v in vars(arguments).items() if k != "json"}
        record = {"machine": machine, "settings": settings, "results": results}
        write_json(arguments.json, record)


if __name__ == "__main__":
    main()
