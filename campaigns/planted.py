"""Faults planted on purpose: whether a sanitizer, as it is used here, would see one.

Each trial forks, and in the child code with a known fault runs on a tensor of torch's; the
child must end with a report.
"""

import ctypes
import os
import re
import tempfile
from collections.abc import Callable

import torch
from torch import Tensor

from campaigns.drawn import Draw
from elision.native.builder import build_text

__all__ = ["REPORT", "planted"]

#: First line of what a sanitizer says.
REPORT = re.compile(r"(ERROR|WARNING): \w+Sanitizer:|: runtime error:")

_SOURCE = """
#include <cstdint>
#include <thread>
extern "C" {
int planted_read(const int32_t* x, int64_t place) { return x[place]; }
int planted_write(int32_t* x, int64_t place) { return x[place] = 1; }
int planted_overflow(const int32_t* x, int64_t place) { return x[place] + INT32_MAX; }
int planted_race(int32_t* x, int64_t place) {
  auto add = [=] { for (int i = 0; i < 100; ++i) ++x[place]; };
  std::thread other(add);
  add();
  other.join();
  return 0;
}
}
"""


def _beyond(draw: Draw, x: Tensor) -> int:
    """The place before the first or after the last."""
    return draw.choice((-1, len(x)))


def _within(draw: Draw, x: Tensor) -> int:
    return draw.size(0, len(x) - 1)


#: Functions of the source that a sanitizer must see, and the places that they are given.
_FAULTS: dict[str, dict[str, Callable[[Draw, Tensor], int]]] = {
    "address,undefined": {
        "planted_read": _beyond,
        "planted_write": _beyond,
        "planted_overflow": _within,
    },
    "thread": {"planted_race": _within},
}


def planted(draw: Draw) -> None:
    """One fault on a tensor of any length.

    Raises:
        ArithmeticError: nobody has seen it.
    """
    library = ctypes.CDLL(str(build_text(_SOURCE)))
    x = torch.ones(draw.size(1, 300), dtype=torch.int32)
    faults = _FAULTS[os.environ["ELISION_SANITIZE"]]
    name = draw.choice(tuple(faults))
    place = faults[name](draw, x)
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if child == 0:
            os.dup2(said.fileno(), 2)
            library[name](ctypes.c_void_p(x.data_ptr()), ctypes.c_int64(place))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        said.seek(0)
        text = said.read().decode("utf-8", "replace")
    if status == 0 or not REPORT.search(text):
        raise ArithmeticError(f"{name} of {len(x)} values at {place} was not seen")
