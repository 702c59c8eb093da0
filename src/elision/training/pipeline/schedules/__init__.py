"""Pipeline schedules, a short file for each family: data for the one scheduler."""

from elision.common.names import lookup
from elision.training.pipeline.schedules.base import Schedule as Schedule
from elision.training.pipeline.schedules.dualpipe import DUALPIPE, DUALPIPE_V
from elision.training.pipeline.schedules.gpipe import GPIPE
from elision.training.pipeline.schedules.interleaved import INTERLEAVED
from elision.training.pipeline.schedules.layerpipe import (
    LAYERPIPE,
    LAYERPIPE2,
    LAYERPIPE_INTRA,
)
from elision.training.pipeline.schedules.one_f_one_b import ONE_F_ONE_B
from elision.training.pipeline.schedules.pipedream import (
    PIPEDREAM,
    PIPEDREAM_2BW,
    PIPEDREAM_NO_STASH,
    PIPEDREAM_REPLICATED,
)
from elision.training.pipeline.schedules.v_shaped import V_HALF, V_MIN, ZBV
from elision.training.pipeline.schedules.zero_bubble import ZB1P, ZB2P

__all__ = ["SCHEDULES", "Schedule", "find_schedule"]

#: Schedules by name.
SCHEDULES: dict[str, Schedule] = {
    schedule.name: schedule
    for schedule in (
        GPIPE,
        ONE_F_ONE_B,
        INTERLEAVED,
        ZB1P,
        ZB2P,
        ZBV,
        V_HALF,
        V_MIN,
        DUALPIPE,
        DUALPIPE_V,
        PIPEDREAM,
        PIPEDREAM_NO_STASH,
        PIPEDREAM_REPLICATED,
        PIPEDREAM_2BW,
        LAYERPIPE_INTRA,
        LAYERPIPE,
        LAYERPIPE2,
    )
}


def find_schedule(name: str) -> Schedule:
    """The schedule called ``name``.

    Raises:
        ValueError: there is none; the message lists the known ones.
    """
    return lookup("schedule", name, SCHEDULES)
