"""V schedules: each processor has one stage on the way there and one on the way back.

A pattern repeats every six units, one for each product of both stages of a processor. On
the way there a micro-batch moves on every ``there[0]`` units, on the way back every
``there[1]``; its gradients every ``back[0]`` and ``back[1]``. The slower it moves, the
longer activations are kept, and the fewer gaps are left. The pattern gives the order of
forward products and input gradients; weight gradients fill the gaps.

The offsets were derived here from the published memory, and hold for equal durations.
"""

import math
from collections.abc import Callable
from functools import partial

from elision.training.pipeline.scheduler import (
    Action,
    Operation,
    Pipeline,
    list_schedule,
)
from elision.training.pipeline.schedules.base import Schedule

__all__ = ["V_HALF", "V_MIN", "ZBV"]

#: Units of the pattern: three products in each of a processor's two stages.
_PATTERN = 6


def _arrange(
    there: tuple[int, int],
    back: tuple[int, int],
    cap: Callable[[int], int],
    pause: Callable[[int], int],
    pipeline: Pipeline,
) -> list[Action]:
    """The repeated pattern, under a cap of activations per processor.

    Args:
        there: units between processors on the way there and back.
        back: likewise, of the gradients.
        cap: activations of a processor, of the number of processors.
        pause: units before the gradients, which keep the parts of a pattern from falling
            on the same unit, of the number of processors.
        pipeline: with two stages per processor.
    """
    count = pipeline.processors
    last, final = count - 1, pipeline.stages - 1
    # When the first micro-batch starts on the way back, and its gradients on each way.
    returning = there[0] * last + 1
    turning = returning + there[1] * last + 1 + pause(count)
    leaving = turning + back[0] * last + 1
    orders = []
    for p in range(count):
        starts = (
            (there[0] * p, "F", p),
            (returning + there[1] * (last - p), "F", final - p),
            (turning + back[0] * p, "I", final - p),
            (leaving + back[1] * (last - p), "I", p),
        )
        timed = sorted(
            (_PATTERN * i + start, Operation(kind, stage, i))
            for i in range(pipeline.microbatches)
            for start, kind, stage in starts
        )
        orders.append([operation for _, operation in timed])
    return list_schedule(pipeline, [cap(count)] * count, orders)


_CONTROLLABLE = (
    "Qi et al., Pipeline Parallelism with Controllable Memory, NeurIPS 2024, "
    "arXiv 2405.15362; offsets derived here"
)

ZBV = Schedule(
    name="zbv",
    title="ZBV",
    source="Qi et al., Zero Bubble Pipeline Parallelism, ICLR 2024, arXiv 2401.10241; "
    "offsets derived here",
    arrange=partial(_arrange, (2, 4), (2, 4), lambda p: 2 * p, lambda p: 0),
    splits=True,
    chunks=2,
    route="v",
)

V_HALF = Schedule(
    name="v-half",
    title="V-Half",
    source=_CONTROLLABLE,
    arrange=partial(_arrange, (1, 2), (1, 2), lambda p: p + 2, lambda p: 0),
    splits=True,
    chunks=2,
    route="v",
)

V_MIN = Schedule(
    name="v-min",
    title="V-Min",
    source=_CONTROLLABLE,
    arrange=partial(
        _arrange,
        (1, 1),
        (1, 1),
        lambda p: math.ceil(2 * p / 3) + 2,
        lambda p: int(p % 3 == 0),
    ),
    splits=True,
    chunks=2,
    route="v",
)
