"""One timer: its turns, its clock, and whose time that clock counts."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F

from elision.common import timing
from elision.common.timing import Elapsed, elapsed, fastest, interleaved, quoted_clock
from elision.engines import bench
from elision.engines.native import library
from elision.products import MatmulGeometry, Product


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_interleaved_runs_every_candidate_once_a_round_in_rotation(
    monkeypatch: pytest.MonkeyPatch, threads: Callable[[int], None]
) -> None:
    threads(1)
    ran = []
    clock = iter(range(1000))
    monkeypatch.setattr("elision.common.timing.time.thread_time", lambda: next(clock))
    candidates = {n: lambda n=n: ran.append(n) for n in "abc"}
    seconds = interleaved(candidates, 3)
    assert "".join(ran) == "abc" + "abc" + "bca" + "cab"
    assert seconds == {n: [1, 1, 1] for n in "abc"}


@pytest.mark.parametrize(("number", "clock"), [(1, "thread"), (2, "wall")])
def test_one_thread_is_timed_by_its_cpu_time_more_by_the_wall_clock(
    monkeypatch: pytest.MonkeyPatch,
    threads: Callable[[int], None],
    number: int,
    clock: str,
) -> None:
    threads(number)
    taken = Elapsed(wall=3.0, process=2.0, thread=1.0)
    monkeypatch.setattr(timing, "elapsed", lambda call: taken)
    expected = {"thread": 1.0, "wall": 3.0}[clock]
    assert quoted_clock() == clock
    assert fastest({"a": lambda: None}, 2) == {"a": expected}
    assert interleaved({"a": lambda: None}, 2) == {"a": [expected] * 2}
    if library.unavailable() is None:
        said = bench.machine()["clock"]
        assert said == {"thread": "CPU time of the thread", "wall": "wall"}[clock]
        geometry = {"layer": MatmulGeometry(4, 5, 6)}
        sparse = {Product.FORWARD: "weight"}
        (row,) = bench.bench(geometry, sparse=sparse, sparsities=(0.5,), rounds=2)
        assert row.dense_seconds == row.sparse_seconds == expected


def test_another_thread_and_waiting_lengthen_other_clocks_only() -> None:
    def work() -> None:
        end = time.thread_time() + 0.05
        while time.thread_time() < end:
            pass

    def call() -> None:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    seconds = elapsed(call)
    assert seconds.thread < 0.04
    assert seconds.process >= 0.05
    assert seconds.wall >= 0.05


def test_a_step_on_one_thread_runs_in_the_calling_thread(
    threads: Callable[[int], None],
) -> None:
    threads(1)
    x, weight = torch.ones(8, 16, 32, 32), torch.ones(16, 16, 3, 3, requires_grad=True)

    def threads_of_backward() -> set[int]:
        ran: set[int] = set()
        y = F.conv2d(x, weight)
        y.register_hook(lambda grad: ran.add(threading.get_native_id()))
        y.sum().backward()
        return ran

    assert threads_of_backward() == {threading.get_native_id()}
