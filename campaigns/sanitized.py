"""The process that a sanitizer watches, and the kernels that it tries.

:mod:`campaigns.sanitizers` starts it with the sanitizer's library and asks for trials.
Before each it says the trial's number, so that the one that a report ends is known; after
the last, how often each function of the kernels was called. Both sides speak in lines of
JSON.
"""

import functools
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from campaigns import kernels, passes
from campaigns.drawn import Draw
from campaigns.planted import planted
from elision.native.shared_object import load

__all__ = ["KERNELS", "Kernels"]


@dataclass(frozen=True)
class Kernels:
    """Kernels that are tried together.

    Attributes:
        trial: draws operands and calls the kernels.
        entries: the C functions that its trials reach, without ``elision_``.
        forks: whether a trial forks, which needs a process of one thread.
    """

    trial: Callable[[Draw], None]
    entries: tuple[str, ...] = ()
    forks: bool = False


_BLOCKED = ("to_blocked", "from_blocked")

#: All kernels; together their entries are all that the library exports.
KERNELS = {
    "sparse convolution": Kernels(
        kernels.sparse_convolution,
        (
            *_BLOCKED,
            *("weights_new", "weights_free", "weights_compress", "weights_follow"),
            *("weights_fill", "weights_release", "multiplies_halves"),
            *("forward", "input_grad", "masked_grad"),
            *("weight_grad", "sparse_input_grad"),
        ),
    ),
    "rows": Kernels(kernels.rows, ("rows_weight_grad",)),
    "direct": Kernels(
        kernels.direct,
        (
            *("direct_forward", "direct_input_grad", "direct_weight_grad"),
            "multiplies_pairs",
        ),
    ),
    "winograd": Kernels(kernels.winograd, ("winograd_forward",)),
    "recurrent": Kernels(
        kernels.recurrent,
        ("lstm_forward", "lstm_backward", "gru_forward", "gru_backward"),
    ),
    "bf16 recurrent": Kernels(
        kernels.bf16_recurrent,
        (
            *("multiplies_tiles", "bf16_lstm_forward", "bf16_lstm_backward"),
            *("bf16_gru_forward", "bf16_gru_backward"),
        ),
    ),
    "sparse recurrent": Kernels(
        kernels.sparse_recurrent,
        (
            *("lists_count", "lists_fill", "sparse_lstm_forward"),
            *("sparse_lstm_backward", "sparse_gru_forward", "sparse_gru_backward"),
        ),
    ),
    "between layers": Kernels(
        passes.between_layers,
        (
            *_BLOCKED,
            *("norm_statistics", "norm_apply", "norm_backward"),
            *("max_pool_forward", "max_pool_backward"),
        ),
    ),
    "largest": Kernels(passes.largest, ("threshold", "places_above", "keep_largest")),
    "sent": Kernels(passes.sent, ("narrow", "widen")),
    "rounding": Kernels(passes.rounding, ("round", "round_scaled")),
    "accumulated": Kernels(passes.accumulated, ("accumulate",)),
    "integer sums": Kernels(
        passes.integer_sums,
        ("integers_scan", "integers_of", "integer_sums", "multiplies_bytes"),
    ),
    "ternary": Kernels(
        passes.ternary,
        ("ternary_quantise", "ternary_forward", "ternary_planes", "ternary_sums"),
    ),
    "k-tanh": Kernels(passes.k_tanh_of_values, ("k_tanh", "k_tanh_backward")),
    "ceilings": Kernels(passes.ceilings, ("multiply_adds", "triad", "chase")),
    "planted": Kernels(planted, forks=True),
}


def main() -> None:
    """Run the trials of each line of the input: name, numbers as of a range, seed."""
    os.environ.pop("LD_PRELOAD", None)  # not for the compilers that are started here
    calls = Counter[str]()
    for line in sys.stdin:
        name, numbers, seed = json.loads(line)
        calls.clear()
        for entry in KERNELS[name].entries:
            _count(entry, calls)
        _run(name, range(*numbers), seed)
        _say({"calls": calls})


def _run(name: str, numbers: Sequence[int], seed: int) -> None:
    tried = KERNELS[name]
    for number in numbers:
        _say({"trial": number})
        draw = Draw(f"{seed}/{name}/{number}")
        torch.manual_seed(number)
        if not tried.forks:
            torch.set_num_threads(draw.threads)
        try:
            tried.trial(draw)
        except Exception as error:
            _say({"wrong": f"{type(error).__name__}: {error}"})


@functools.cache
def _library() -> tuple[Any, set[str]]:
    """The kernels, and those functions of theirs that are counted already."""
    return load(), set()


def _count(entry: str, calls: Counter[str]) -> None:
    """Count the calls of a function from now on."""
    library, counted = _library()
    if entry in counted:
        return
    counted.add(entry)
    function: Callable[..., Any] = getattr(library, f"elision_{entry}")

    def call(*arguments: Any) -> Any:
        calls[entry] += 1
        return function(*arguments)

    setattr(library, f"elision_{entry}", call)


def _say(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main()
