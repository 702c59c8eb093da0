"""What each of three processes does in the test of collectives with checksums."""

import sys
from datetime import timedelta

import pytest
import torch
from torch import Tensor, distributed

from elision.training.parallel.wire import CheckedWire, CorruptMessageError, PlainWire

RANKS = 3
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def values(rank: int, size: int, dtype: torch.dtype) -> Tensor:
    random = torch.Generator().manual_seed(10 * size + rank)
    return torch.randn(size, generator=random).to(dtype)


def sums_are_those_of_the_ranks_in_order(rank: int, checked: CheckedWire) -> None:
    """The oracle adds every rank's values itself; lengths that three does not divide."""
    for size in (1, 2, 3, 7, 64, 1000):
        for dtype in DTYPES:
            found = values(rank, size, dtype)
            checked.all_reduce(found, "a test")
            expected = values(0, size, dtype)
            for other in range(1, RANKS):
                expected += values(other, size, dtype)
            assert torch.equal(found, expected), (size, dtype)


def gathers_as_without(rank: int, checked: CheckedWire) -> None:
    plain = PlainWire(None)
    for size in (1, 5, 300):
        whole = values(rank, size, torch.float32).view(torch.uint8)
        found = [[torch.empty_like(whole) for _ in range(RANKS)] for _ in range(2)]
        bits = plain.all_gather(found[0], whole, "a test")
        checked_bits = checked.all_gather(found[1], whole, "a test")
        assert all(torch.equal(*each) for each in zip(*found, strict=True))
        # A checksum of 4 bytes, and a verdict of a byte a rank with its own.
        assert checked_bits - bits == 8 * (RANKS - 1) * (4 + RANKS + 4)


def names_every_link(rank: int, checked: CheckedWire) -> None:
    """Two messages of one collective arrive changed, at different ranks."""
    original = distributed.all_to_all_single

    def faulty(came: Tensor, sent: Tensor, group=None) -> None:
        original(came, sent, group=group)
        if rank in (0, 1):
            came[2, rank] ^= 0x18

    distributed.all_to_all_single = faulty
    try:
        with pytest.raises(
            CorruptMessageError, match=r"^bucket 3: what rank 2"
        ) as error:
            checked.all_reduce(values(rank, 64, torch.float32), "bucket 3")
    finally:
        distributed.all_to_all_single = original
    assert error.value.links == [(2, 0), (2, 1)]


def finds_what_came_late(rank: int, checked: CheckedWire) -> None:
    """Rank 1's message of the collective before, whole and with its own checksum."""
    original, before = distributed.all_gather, []

    def late(everyone: list[Tensor], sent: Tensor, group=None) -> None:
        original(everyone, sent, group=group)
        if len(sent) == 8:  # not the verdicts
            came = everyone[1].clone()
            if before and rank == 2:
                everyone[1].copy_(before[-1])
            before.append(came)

    distributed.all_gather = late
    room = [torch.empty(4, dtype=torch.uint8) for _ in range(RANKS)]
    whole = torch.full((4,), rank, dtype=torch.uint8)
    try:
        checked.all_gather(room, whole, "bucket 0")
        with pytest.raises(CorruptMessageError) as error:
            checked.all_gather(room, whole, "bucket 1")
    finally:
        distributed.all_gather = original
    assert error.value.links == [(1, 2)]


def main(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=RANKS,
        timeout=timedelta(seconds=60),
    )
    checked = CheckedWire(None)
    sums_are_those_of_the_ranks_in_order(rank, checked)
    gathers_as_without(rank, checked)
    names_every_link(rank, checked)
    finds_what_came_late(rank, checked)
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
