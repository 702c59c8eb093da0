"""Ternary residual networks of trained networks, beside the published table."""

import itertools
import warnings
from typing import Any

import torch

from elision.layers import Recipe, restore
from elision.precision import ternary_residual
from elision.precision.calibration import Calibration
from elision.precision.ternary_network import network_of
from elision.training.loop import RunPlan, train
from elision.workloads import Dataset, Workload

__all__ = ["BLOCKS", "DROPS", "residual_networks"]

#: Losses of accuracy that are allowed, and sizes of a block: those of the published rows.
DROPS = (0.01, 0.02)
BLOCKS = (64, 256)


def residual_networks(workload: Workload, dataset: Dataset) -> dict[str, Any]:
    """Train in float32 at seed 0, then write the weights as ternary terms.

    Every second test image calibrates, the others judge.

    Args:
        workload: a classification of images.
        dataset: of the workload.

    Returns:
        ``rows``: one for each drop and block, with ``float`` and ``ternary`` accuracy,
        ``terms`` a block, ``fewer`` multiplications and ``smaller`` as factors; only
        ``not met``, the reason, where no number of terms reached the drop.
    """
    trained = train(workload, Recipe("dense"), dataset, RunPlan(seed=0))
    plain = restore(trained.model).eval()
    state = plain.state_dict()
    batches = list(workload.test_batches(dataset))
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    test = images[1::2], labels[1::2]
    judge = Calibration.of(plain, test)
    rows: list[dict[str, Any]] = []
    for drop, block in itertools.product(DROPS, BLOCKS):
        row: dict[str, Any] = {"drop": drop, "block": block}
        rows.append(row)
        model = workload.make_model(dataset)
        model.load_state_dict(state)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ternary_residual(model.eval(), (images[::2], labels[::2]), drop, block)
        except ValueError as error:  # the drop is not met
            row["not met"] = str(error)
            continue
        counts = network_of(model).counts()
        row |= {
            "float": judge.accuracy,
            "ternary": judge.score(model),
            "images": len(test[1]),
            "terms": counts.mean_terms,
            "fewer": counts.fewer,
            "smaller": counts.smaller,
        }
    return {"rows": rows}
