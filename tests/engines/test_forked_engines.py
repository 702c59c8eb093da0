"""Native products in processes that are forked while other threads compute some."""

import os
import signal
import threading
import time

import pytest
import torch
from torch import nn

import elision
from elision.engines import Hint, NativeEngine
from elision.engines.native import library
from elision.engines.native.blocked.layer_lists import LayerLists
from elision.products import Conv2dGeometry, LayerProduct, Product

pytestmark = pytest.mark.skipif(
    library.unavailable() is not None, reason=str(library.unavailable())
)

GEOMETRY = Conv2dGeometry(4, 8, 6, 6, 8, 3, 1, 1, 1, 1)


def status_of(child: int, seconds: float = 60) -> int | str:
    """How a child ended; it is killed if it hangs."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hangs"


class Held:
    """A lock that another thread holds while the block runs."""

    def __init__(self, lock: elision.common.forking.Lock) -> None:
        self._lock = lock
        self._has, self._done = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._hold)

    def _hold(self) -> None:
        with self._lock:
            self._has.set()
            self._done.wait()

    def __enter__(self) -> None:
        self._thread.start()
        self._has.wait()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def test_an_engine_that_another_thread_used_computes_in_the_child() -> None:
    engine = NativeEngine()
    operands = torch.randn(4, 8, 6, 6), torch.randn(8, 8, 3, 3)
    product = LayerProduct(Product.FORWARD, GEOMETRY, *operands)
    expected = engine.compute(product, Hint("weight"))
    with Held(engine._lock):
        child = os.fork()
        if not child:
            torch.set_num_threads(1)  # more of torch's own hang in a forked child
            same = torch.equal(engine.compute(product, Hint("weight")), expected)
            os._exit(0 if same else 1)
        assert status_of(child) == 0


def test_a_blocked_layer_that_another_thread_used_computes_in_the_child() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 8, 3, padding=1)
    elision.elide(layer, elision.methods.Swat(0.5, dense=()), engine="native")
    x = torch.randn(4, 8, 6, 6)
    expected = layer(x).detach()
    blocked = layer._elision_forms._blocked
    assert isinstance(blocked._lists, LayerLists)
    with Held(blocked._lists.lock):
        child = os.fork()
        if not child:
            torch.set_num_threads(1)
            os._exit(0 if torch.equal(layer(x).detach(), expected) else 1)
        assert status_of(child) == 0
