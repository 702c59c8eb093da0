"""The private names of torch that the pipeline uses, all in this file.

``tests/training/pipeline/test_torch_names.py`` says which one went when torch drops one.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch.distributed import distributed_c10d
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.pipelining import schedules

__all__ = ["NAMES", "Store", "actions_of", "quiet", "runtime", "store_of_group"]

#: (module, name) of everything private that is used.
NAMES = (
    ("torch.distributed.pipelining.schedules", "_PipelineScheduleRuntime"),
    (
        "torch.distributed.pipelining.schedules",
        "_PipelineScheduleRuntime._prepare_schedule_with_comms",
    ),
    ("torch.distributed.pipelining.schedules", "_PipelineScheduleRuntime._simulate"),
    ("torch.distributed.pipelining.schedules", "_Action.from_str"),
    ("torch.distributed.distributed_c10d", "_get_default_store"),
)


def runtime(
    stages: Sequence[object], microbatches: int, loss: object
) -> "schedules._PipelineScheduleRuntime":
    """Torch's runtime for schedules that are given as tables of actions."""
    return schedules._PipelineScheduleRuntime(
        list(stages), microbatches, loss_fn=loss, scale_grads=True
    )


def actions_of(
    orders: Sequence[Sequence[str]],
) -> dict[int, list[schedules._Action | None]]:
    """Torch's actions from texts such as ``"2F0"``, by rank."""
    return {
        rank: [schedules._Action.from_str(text) for text in order]
        for rank, order in enumerate(orders)
    }


@contextmanager
def quiet() -> Iterator[None]:
    """Without the table of actions that torch logs for an error, which is raised anyway."""
    before = schedules.logger.level
    schedules.logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        schedules.logger.setLevel(before)


def store_of_group(prefix: str) -> Store:
    """Keys of their own in the process group's store, for use in another thread."""
    store: Any = distributed_c10d._get_default_store()
    return PrefixStore(prefix, store.clone())
