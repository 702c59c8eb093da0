"""Names of torch that it does not document, in this one file.

The fake back end of ``torch.distributed``: collectives that return at once, so that one
process plays one rank of many.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["one_of_many"]


@contextmanager
def one_of_many(ranks: int) -> Iterator[None]:
    """Be rank 0 of a process group of which no other process exists.

    Raises:
        RuntimeError: a process group is there already.
    """
    from torch.testing._internal.distributed.fake_pg import FakeStore

    if torch.distributed.is_initialized():
        raise RuntimeError(
            "a process group is connected already; count the buckets in a process "
            "without one"
        )
    torch.distributed.init_process_group(
        "fake", rank=0, world_size=ranks, store=FakeStore()
    )
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()
