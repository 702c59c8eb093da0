"""One scratch file for many pieces, whatever happens to them."""

import gc
import os
import resource
import threading
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from elision.memory import saver
from elision.memory.codecs import scratch
from elision.memory.codecs.scratch import Piece, scratch_file
from elision.memory.codecs.threads import in_threads


def content(piece: Piece, size: int) -> bytes:
    target = bytearray(size)
    piece.read(memoryview(target))
    return bytes(target)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.tuples(st.booleans(), st.integers(0, 50)), max_size=60))
def test_pieces_never_overlap_and_their_space_is_used_again(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[bool, int]]
) -> None:
    directory = str(tmp_path_factory.getbasetemp())
    file = scratch_file(directory)
    alive: list[tuple[Piece, bytes]] = []
    most = 0
    for number, (drop, size) in enumerate(steps):
        if drop and alive:
            del alive[size % len(alive)]
        else:
            data = bytes([number % 251]) * size
            alive.append((Piece(memoryview(data), directory), data))
        most = max(most, sum(len(data) for _, data in alive))
        assert all(content(piece, len(data)) == data for piece, data in alive)
    alive.clear()
    assert os.fstat(file._descriptor).st_size == 0
    # All is free again, so the same bytes fit without a gap.
    again = [Piece(memoryview(b"x" * most), directory)]
    assert os.fstat(file._descriptor).st_size == most
    del again, file


def test_a_file_ends_with_its_last_piece(tmp_path: os.PathLike[str]) -> None:
    piece = Piece(memoryview(b"abc"), str(tmp_path))
    descriptor = piece._file._descriptor
    assert os.fstat(descriptor).st_size == 3
    del piece
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    assert os.listdir(tmp_path) == []


def test_a_finalizer_that_interrupts_the_holder_of_the_lock_does_not_wait(
    tmp_path: os.PathLike[str],
) -> None:
    directory = str(tmp_path)
    first, second = (Piece(memoryview(data), directory) for data in (b"abc", b"defg"))
    file = first._file
    with file._lock:
        del first  # as the garbage collector may, in the middle of anything
    third = Piece(memoryview(b"hij"), directory)
    assert third._first == 0
    assert content(second, 4) == b"defg"


def test_threads_share_a_file(tmp_path: os.PathLike[str]) -> None:
    failures: list[str] = []

    def work(number: int) -> None:
        for round_ in range(200):
            data = bytes([number]) * (1 + (7 * round_ + number) % 100)
            pieces = [Piece(memoryview(data), str(tmp_path)) for _ in range(3)]
            if any(content(piece, len(data)) != data for piece in pieces):
                failures.append(f"thread {number}, round {round_}")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def in_child(work: Callable[[], bool]) -> bool:
    """Whether ``work`` is true in a forked process, which has ten seconds."""
    child = os.fork()
    if child == 0:
        threading.Timer(10, os._exit, (2,)).start()
        os._exit(0 if work() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_forked_process_leaves_its_parents_pieces_alone(
    tmp_path: os.PathLike[str],
) -> None:
    directory = str(tmp_path)
    kept = [Piece(memoryview(b"abc"), directory), Piece(memoryview(b"defg"), directory)]

    def work() -> bool:
        kept.pop()
        own = Piece(memoryview(b"0123456789"), directory)
        return content(own, 10) == b"0123456789" and content(kept[0], 3) == b"abc"

    assert in_child(work)
    assert [content(p, n) for p, n in zip(kept, (3, 4), strict=True)] == [
        b"abc",
        b"defg",
    ]
    with scratch._opening:  # forked while another thread opens a file
        assert in_child(work)


def test_a_forked_process_does_not_wait_for_threads_that_it_does_not_have() -> None:
    ran: list[tuple[int, int]] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        in_threads(lambda a, b: ran.append((a, b)), 4, 2**20)

        def work() -> bool:
            ran.clear()
            in_threads(lambda a, b: ran.append((a, b)), 4, 2**20)
            return sorted(ran) == [(0, 2), (2, 4)]

        assert in_child(work)
    finally:
        torch.set_num_threads(threads)


def test_few_descriptors_are_enough_for_many_tensors() -> None:
    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(16, 16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(200):
                x = torch.tanh(self.linear(x))
            return x

    torch.manual_seed(0)
    model, x = Chain(), torch.randn(1024, 16)
    model(x).sum().backward()
    plain = model.linear.weight.grad
    model.zero_grad()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    now = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 128
    resource.setrlimit(resource.RLIMIT_NOFILE, (now + 20, hard))
    try:
        with saver(model, "offload") as saved:
            loss = model(x).sum()
        loss.backward()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert sum(row.codec == "offload" for row in saved.ledger.rows) >= 200
    mine = model.linear.weight.grad
    assert plain is not None
    assert mine is not None
    assert torch.equal(plain, mine)
