"""Pipeline schedules, a short file for each family: data for the one scheduler."""

from elision.common.names import lookup
from elision.training.pipeline.schedules.base import Schedule as Schedule
from elision.training.pipeline.schedules.gpipe import GPIPE
from elision.training.pipeline.schedules.one_f_one_b import ONE_F_ONE_B
from elision.training.pipeline.schedules.pipedream import (
    PIPEDREAM,
    PIPEDREAM_2BW,
    PIPEDREAM_NO_STASH,
)
from elision.training.pipeline.schedules.zero_bubble import ZB1P, ZB2P

__all__ = ["SCHEDULES", "Schedule", "find_schedule"]

#: Schedules by name.
SCHEDULES: dict[str, Schedule] = {
    schedule.name: schedule
    for schedule in (
        GPIPE,
        ONE_F_ONE_B,
        ZB1P,
        ZB2P,
        PIPEDREAM,
        PIPEDREAM_NO_STASH,
        PIPEDREAM_2BW,
    )
}


def find_schedule(name: str) -> Schedule:
    """The schedule called ``name``.

    Raises:
        ValueError: there is none; the message lists the known ones.
    """
    return lookup("schedule", name, SCHEDULES)
