"""What training by another softmax, and through another tanh, does to a network.

First, a small convolutional network is trained on real images by each loss of a grid (the
series' orders, both rules of its gradient, margins, both together) from the same initial
weights, with the same batches; the loss alone differs, the settings are softmax's. Second,
an LSTM over the rows of the digits is trained plainly, with K-TanH in its gates and with
older replacements. Printed are the means over the seeds and their standard deviations; the
whole grid is shown, since the best of twenty is better than softmax by chance alone. A class
is answered by the largest logit and, beside it, by the largest probability of the softmax
that trained the network: where the series falls as the logit grows, these differ.

    python benchmarks/softmax_study.py [--seeds 3] [--out FOLDER]
"""

import argparse
import statistics
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from elision.common.files import write_json
from elision.functional import (
    RangeWarning,
    sm_softmax_loss,
    sm_taylor_softmax_loss,
    taylor_softmax_loss,
)
from elision.study.folder import environment
from elision.study.papers.precision.losses import Loss, trained_by
from elision.workloads import Workload

ORDERS = (2, 4, 6)
MARGINS = (0.2, 0.6, 1.0)

LOSSES: dict[str, Loss] = {
    "softmax": F.cross_entropy,
    **{f"taylor {n}": partial(taylor_softmax_loss, order=n) for n in ORDERS},
    **{
        f"taylor {n}, infinite": partial(
            taylor_softmax_loss, order=n, backward="infinite"
        )
        for n in ORDERS
    },
    **{f"sm {m}": partial(sm_softmax_loss, margin=m) for m in MARGINS},
    **{
        f"sm-taylor {n}, {m}": partial(sm_taylor_softmax_loss, margin=m, order=n)
        for n in ORDERS[:2]
        for m in MARGINS
    },
}

GATES: dict[str, dict[str, str]] = {
    "exact": {},
    "k-tanh": {"tanh": "k-tanh", "sigmoid": "k-sigmoid"},
    "rational": {"tanh": "rational-tanh", "sigmoid": "rational-sigmoid"},
    "plan": {"tanh": "plan-tanh", "sigmoid": "plan-sigmoid"},
    "hard": {"tanh": "hard-tanh", "sigmoid": "hard-sigmoid"},
}

IMAGES: Mapping[str, Workload] = {
    "digits": Workload(name="digits", dataset="digits", model="cnn", epochs=4),
    "photo-patches": Workload(
        name="photo-patches",
        dataset="photo-patches",
        model="cnn",
        epochs=3,
        learning_rate=0.05,
        train_images=1000,
        test_images=500,
        model_options={"width": 8},
    ),
}
ROWS = Workload(
    name="rows", dataset="digits", model="lstm", epochs=8, learning_rate=0.2
)


def summary(runs: list[dict[str, float]]) -> dict[str, Any]:
    """Mean, standard deviation and values over the seeds."""
    return {
        key: {
            "mean": statistics.fmean(values),
            "deviation": statistics.stdev(values) if len(values) > 1 else 0.0,
            "seeds": values,
        }
        for key in runs[0]
        if (values := [run[key] for run in runs])
    }


def show(title: str, rows: dict[str, dict[str, Any]]) -> None:
    print(title)
    for name, row in rows.items():
        accuracy, loss, test = row["accuracy"], row["loss"], row["test_loss"]
        likely = row["accuracy_by_probability"]
        print(
            f"  {name:20} test {100 * accuracy['mean']:.2f} ± "
            f"{100 * accuracy['deviation']:.2f} % (by probability "
            f"{100 * likely['mean']:.2f}), its training loss {loss['mean']:.4f} ± "
            f"{loss['deviation']:.4f}, test cross-entropy {test['mean']:.4f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", RangeWarning)
    seeds = range(arguments.seeds)
    results: dict[str, Any] = {}
    for name, workload in IMAGES.items():
        dataset = workload.load_dataset()
        rows = {
            loss: summary([trained_by(workload, dataset, s, call) for s in seeds])
            for loss, call in LOSSES.items()
        }
        results[name] = {"workload": workload.to_dict(), "losses": rows}
        show(f"{name}: losses", rows)
    dataset = ROWS.load_dataset()
    rows = {
        name: summary(
            [trained_by(ROWS, dataset, s, functions=functions) for s in seeds]
        )
        for name, functions in GATES.items()
    }
    results["lstm"] = {"workload": ROWS.to_dict(), "gates": rows}
    show("LSTM over the rows of the digits: tanh and sigmoid of its gates", rows)
    if arguments.out:
        facts = {
            "seeds": arguments.seeds,
            "machine": environment(),
            "results": results,
        }
        arguments.out.mkdir(parents=True, exist_ok=True)
        write_json(arguments.out / "softmax.json", facts)


if __name__ == "__main__":
    main()
