"""Functions between the layers: K-TanH, and the alternatives to softmax."""

import statistics
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from elision.common.timing import interleaved
from elision.functional import (
    PUBLISHED,
    RangeWarning,
    fitted,
    k_gelu,
    k_sigmoid,
    k_silu,
    k_tanh,
    sm_softmax_loss,
    sm_taylor_softmax_loss,
    taylor_softmax_loss,
)
from elision.study.papers.precision.losses import Loss, trained_by
from elision.workloads import Dataset, Workload

__all__ = ["GATES", "LOSSES", "k_tanh_errors", "k_tanh_lstm", "softmax_losses"]

#: Losses of the study, a member of each family; order and margin are own choices.
LOSSES: dict[str, Loss] = {
    "softmax": F.cross_entropy,
    "taylor, order 2": partial(taylor_softmax_loss, order=2),
    "taylor, order 4": partial(taylor_softmax_loss, order=4),
    "sm, margin 0.6": partial(sm_softmax_loss, margin=0.6),
    "sm-taylor, order 2, margin 0.6": partial(
        sm_taylor_softmax_loss, margin=0.6, order=2
    ),
}

#: Functions in the gates of the LSTM.
GATES: dict[str, dict[str, str]] = {
    "exact": {},
    "k-tanh": {"tanh": "k-tanh", "sigmoid": "k-sigmoid"},
}

#: Range over which errors are taken; swish's grows beyond it (an own choice).
_RANGE = 8.0

#: Values and rounds of the timing, out of the caches (own choices).
_VALUES, _ROUNDS = 1 << 20, 9


def k_tanh_errors() -> dict[str, Any]:
    """Largest and mean errors of K-TanH and what is reckoned through it, and its time.

    Returns:
        ``errors``: rows of ``function``, ``largest`` and ``mean`` over evenly spaced
        float32 values in [-8, 8] (for the table over the bfloat16 values of its range);
        ``speed``: torch's time over that of the whole call, median of interleaved rounds,
        by type.
    """
    x = torch.linspace(-_RANGE, _RANGE, 1 << 18)
    exact = x.double()
    pairs = {
        "tanh": (k_tanh(x), exact.tanh()),
        "sigmoid": (k_sigmoid(x), exact.sigmoid()),
        "swish": (k_silu(x), F.silu(exact)),
        "gelu": (k_gelu(x), F.gelu(exact)),
    }
    errors = [
        {
            "function": f"tanh, {name} table on bfloat16",
            "largest": table.largest_error,
            "mean": float(table.errors.mean()),
        }
        for name, table in (("published", PUBLISHED), ("our fitted", fitted()))
    ]
    for name, (ours, right) in pairs.items():
        error = (ours.double() - right).abs()
        errors.append(
            {
                "function": f"{name}, float32 inputs",
                "largest": float(error.max()),
                "mean": float(error.mean()),
            }
        )
    return {"errors": errors, "speed": _speed()}


def _speed() -> dict[str, float]:
    """Torch's time over K-TanH's."""
    found = {}
    for dtype in (torch.bfloat16, torch.float32):
        x = torch.linspace(-_RANGE, _RANGE, _VALUES).to(dtype)
        calls = {"ours": partial(k_tanh, x), "torch": partial(torch.tanh, x)}
        seconds = interleaved(calls, _ROUNDS)
        ratios = [
            theirs / ours
            for theirs, ours in zip(seconds["torch"], seconds["ours"], strict=True)
        ]
        found[str(dtype).removeprefix("torch.")] = statistics.median(ratios)
    return found


def k_tanh_lstm(
    workload: Workload, dataset: Dataset, seeds: Sequence[int]
) -> dict[str, Any]:
    """An LSTM trained with exact gates and with K-TanH in them.

    Returns:
        ``rows``: ``gates``, ``accuracy`` and ``loss`` of the last epoch, one a seed.
    """
    rows = []
    for name, functions in GATES.items():
        runs = [
            trained_by(workload, dataset, seed, functions=functions) for seed in seeds
        ]
        rows.append({"gates": name, **_by_seed(runs)})
    return {"rows": rows}


def softmax_losses(
    workload: Workload, dataset: Dataset, seeds: Sequence[int]
) -> dict[str, Any]:
    """A network trained by each loss; everything but the loss is the same.

    Returns:
        ``rows``: ``training loss`` (its name), ``accuracy``, ``loss`` and
        ``by probability``, one a seed. The latter is the accuracy of the class with the
        largest probability of the softmax that trained the network: a series falls with
        its logit where that is small, so that the largest logit may be of another class.
    """
    rows = []
    for name, loss in LOSSES.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RangeWarning)
            runs = [trained_by(workload, dataset, seed, loss) for seed in seeds]
        rows.append({"training loss": name, **_by_seed(runs)})
    return {"rows": rows}


def _by_seed(runs: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    names = {"by probability": "accuracy_by_probability"}
    return {
        column: [run[names.get(column, column)] for run in runs]
        for column in ("accuracy", "loss", "by probability")
    }
