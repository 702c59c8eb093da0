"""The shortest schedule of a small pipeline, by mixed-integer programming.

Every operation has a start; two operations of a processor exclude one another, in either
order. Micro-batches are alike, so those of one kind and stage may be taken in order, and
an activation is freed in the order in which it was made; that leaves orders to be chosen
between different kinds only. The programme is solved by HiGHS, by way of scipy, which
scikit-learn brings.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from elision.training.pipeline.scheduler import Operation, Pipeline

__all__ = ["shortest_makespan"]


def shortest_makespan(
    pipeline: Pipeline, caps: Sequence[int] | None = None, seconds: float = 60.0
) -> float:
    """Smallest time from the first start to the last end.

    Exponential: for a few stages and micro-batches.

    Args:
        pipeline: one stage per processor, micro-batches on one lane.
        caps: activations that each processor may keep; None: any number.
        seconds: after which the solver gives up.

    Raises:
        ValueError: several stages on a processor, or several lanes.
        RuntimeError: the solver did not prove an optimum in time.

    Example:
        >>> two = Pipeline(2, (1.0, 1.0), (1.0, 1.0), (1.0, 1.0), ((0, 1),), splits=True)
        >>> round(shortest_makespan(two), 6)
        7.0
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    if pipeline.lanes != (tuple(range(pipeline.stages)),) or pipeline.parts:
        raise ValueError("the exact solver takes one stage per processor, on one lane")
    operations = pipeline.operations()
    place = {operation: i for i, operation in enumerate(operations)}
    # No schedule is longer than all operations one after the other.
    horizon = sum(map(pipeline.duration, operations)) + sum(pipeline.transfer) * (
        2 * pipeline.microbatches
    )
    pairs = [
        (a, b)
        for a, b in itertools.combinations(operations, 2)
        if a.stage == b.stage and a.kind != b.kind
    ]
    variables = len(operations) + len(pairs) + 1
    rows: list[np.ndarray] = []
    least: list[float] = []

    def after(late: Operation, early: Operation, lag: float = 0.0) -> np.ndarray:
        """A constraint: one operation starts when the other has ended, or later."""
        row = np.zeros(variables)
        row[place[late]], row[place[early]] = 1.0, -1.0
        rows.append(row)
        least.append(pipeline.duration(early) + lag)
        return row

    for operation in operations:
        for before, lag in pipeline.needs(operation):
            after(operation, before, lag)
        if operation.microbatch:
            after(operation, operation._replace(microbatch=operation.microbatch - 1))
        last = np.zeros(variables)
        last[-1], last[place[operation]] = 1.0, -1.0
        rows.append(last)
        least.append(pipeline.duration(operation))
        cap = pipeline.microbatches if caps is None else caps[operation.stage]
        if operation.kind == "F" and operation.microbatch >= cap:
            freeing = "W" if pipeline.splits else "B"
            freed = operation.microbatch - cap
            after(operation, Operation(freeing, operation.stage, freed))
    for i, (a, b) in enumerate(pairs, start=len(operations)):
        # The choice is 1 where a comes first.
        after(b, a)[i] = -horizon
        least[-1] -= horizon
        after(a, b)[i] = horizon
    whole = np.zeros(variables)
    whole[len(operations) : -1] = 1
    # Their annotations say float; they take arrays.
    upper: Any = np.where(whole, 1.0, horizon)
    lower: Any = np.array(least)
    found = milp(
        np.eye(variables)[-1],
        constraints=LinearConstraint(np.array(rows), lower),
        integrality=whole,
        bounds=Bounds(0, upper),
        options={"time_limit": seconds},
    )
    if not found.success:
        raise RuntimeError(f"no optimum in {seconds:g} s: {found.message}")
    return float(found.fun)
