"""Schedules run: the code made from a listing, on tensors, beside torch."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from string import ascii_letters
from typing import Any

import torch

from elision.accelerators.spatial.nest import Access
from elision.accelerators.spatial.schedule import Recurrence, Schedule
from elision.accelerators.spatial.schedule.code import sizes_of, source
from elision.common.timing import interleaved, with_threads
from elision.engines.generated import compiled

__all__ = ["Comparison", "by_torch", "compare_with_torch", "operands"]

#: Calls of which the median is taken (an own choice), after one that is not timed.
_CALLS = 5


def operands(
    recurrence: Recurrence, seed: int = 0, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, ...]:
    """Standard normal tensors for the inputs of a recurrence, in its order."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(recurrence.shape(tensor), generator=generator, dtype=dtype)
        for tensor in recurrence.inputs
    )


def by_torch(recurrence: Recurrence) -> tuple[str, Callable[..., torch.Tensor]]:
    """The way of torch to compute a recurrence: the name of its function, and a call.

    Products of tensors whose indices are loops are ``einsum``; a convolution is
    ``conv2d``. Where the output is indexed by sums of loops, as in an input gradient, the
    call is the gradient of the recurrence in which an input is the output.

    Raises:
        ValueError: no tensor of the recurrence is indexed by loops alone.
    """
    output, (first, second) = recurrence.output, recurrence.inputs
    if found := _convolution(recurrence):
        image, weight, options = found

        def convolve(*inputs: torch.Tensor) -> torch.Tensor:
            named = dict(zip(recurrence.inputs, inputs, strict=True))
            stride, dilation, padding = options
            return torch.conv2d(
                named[image], named[weight], None, stride, padding, dilation
            )

        return "conv2d", convolve
    if _alone(recurrence, output):
        return "einsum", lambda *inputs: _einsum(recurrence, output, inputs)
    for given, other in ((first, second), (second, first)):
        if _alone(recurrence, given):
            return "autograd", partial(_gradient, recurrence, given, other)
    raise ValueError(
        f"torch computes no recurrence like {recurrence}: each of its tensors is indexed "
        "by sums of loops"
    )


def _gradient(
    recurrence: Recurrence, given: str, other: str, *inputs: torch.Tensor
) -> torch.Tensor:
    """The output as the gradient of the recurrence that writes an input in its place."""
    output, named = recurrence.output, dict(zip(recurrence.inputs, inputs, strict=True))
    wanted = torch.zeros(recurrence.shape(output), dtype=inputs[0].dtype)
    wanted.requires_grad_()
    names, values = (output, other), (wanted, named[other])
    made = _einsum(recurrence, given, values, names)
    return torch.autograd.grad(made, wanted, named[given])[0]


def _alone(recurrence: Recurrence, tensor: str) -> bool:
    return len(recurrence.separate(tensor)) == len(recurrence.accesses[tensor])


def _convolution(
    recurrence: Recurrence,
) -> tuple[str, str, tuple[list[int], list[int], list[int]]] | None:
    """Input, weight, (stride, dilation, padding), of a forward 2-D convolution alone."""
    axes = {t: [i.one_loop() for i in a] for t, a in recurrence.accesses.items()}
    loops = list(recurrence.loops)
    if len(loops) != 7 or any(len(each) != 4 for each in axes.values()):
        return None
    for image, weight in (recurrence.inputs, recurrence.inputs[::-1]):
        n, k, p, q = axes[recurrence.output]
        own, c, r, s = axes[weight]
        if (
            axes[image] != [n, c, None, None]
            or own != k
            or None in (n, k, c, p, q, r, s)
        ):
            continue
        stride, dilation, padding = [], [], []
        for axis, out, tap in ((2, p, r), (3, q, s)):
            if out is None or tap is None:
                return None
            row, more = recurrence.accesses[image][axis].row(loops, recurrence.sizes)
            used = {
                loop: entry for loop, entry in zip(loops, row, strict=True) if entry
            }
            if set(used) != {out, tap} or min(used.values()) < 1 or more > 0:
                return None
            size = recurrence.shape(image)[axis] - 2 * more
            rest = size - used[tap] * (recurrence.extent(tap) - 1) - 1
            if rest // used[out] + 1 != recurrence.extent(out):
                return None
            stride.append(used[out])
            dilation.append(used[tap])
            padding.append(-more)
        return image, weight, (stride, dilation, padding)
    return None


def _einsum(
    recurrence: Recurrence,
    output: str,
    inputs: Sequence[torch.Tensor],
    names: Sequence[str] | None = None,
) -> torch.Tensor:
    """The recurrence with one of its tensors as output, over views of the others."""
    letter = dict(zip(recurrence.loops, ascii_letters, strict=False))
    nest = recurrence.nest()
    views, words = [], []
    for name, tensor in zip(names or recurrence.inputs, inputs, strict=True):
        access = nest.accesses[name]
        used = [
            at
            for at, column in enumerate(zip(*access.rows, strict=True))
            if any(column)
        ]
        views.append(_view(tensor, access, nest.extents, used))
        words.append("".join(letter[list(recurrence.loops)[at]] for at in used))
    wanted = "".join(letter[i.one_loop() or ""] for i in recurrence.accesses[output])
    return torch.einsum(f"{','.join(words)}->{wanted}", *views)


def _view(
    tensor: torch.Tensor, access: Access, extents: Sequence[int], used: list[int]
) -> torch.Tensor:
    """The element that each iteration meets, as a view with an axis for each loop."""
    pads, start = [], 0
    for row, more, size in zip(access.rows, access.offset, tensor.shape, strict=True):
        reach = [entry * (n - 1) for entry, n in zip(row, extents, strict=True)]
        low = more + sum(min(0, x) for x in reach)
        high = more + sum(max(0, x) for x in reach)
        pads.append((max(0, -low), max(0, high - size + 1)))
    padded = torch.nn.functional.pad(tensor, [x for pad in reversed(pads) for x in pad])
    strides = padded.stride()
    for (low, _), more, stride in zip(pads, access.offset, strides, strict=True):
        start += (low + more) * stride
    steps = [
        sum(row[at] * stride for row, stride in zip(access.rows, strides, strict=True))
        for at in used
    ]
    return padded.as_strided([extents[at] for at in used], steps, start)


@dataclass(frozen=True)
class Comparison:
    """Code made from a schedule, beside torch.

    Attributes:
        code_s, torch_s: median seconds of a call each, taken in turns.
        ratios: torch's seconds over the code's, of each turn.
        function: of torch.
        error: largest difference from torch in float64, in multiples of the largest
            value that a sum of the magnitudes of its products has.
        gflops: of the code, two operations a multiply-accumulate.
        threads: of both.

    Example:
        >>> made = Comparison(2e-3, 1e-3, (0.4, 0.6), "einsum", 1e-7, 50.0, 1)
        >>> made.row()["times torch"]
        0.5
    """

    code_s: float
    torch_s: float
    ratios: tuple[float, ...]
    function: str
    error: float
    gflops: float
    threads: int

    def row(self) -> dict[str, Any]:
        """The comparison as a row of a table."""
        return {
            "code ms": round(1e3 * self.code_s, 3),
            "torch ms": round(1e3 * self.torch_s, 3),
            "by": self.function,
            "times torch": round(statistics.median(self.ratios), 2),
            "GFLOP/s": round(self.gflops, 1),
            "error": f"{self.error:.1e}",
            "threads": self.threads,
        }


#: Error above which a result is wrong, not rounded: float32 has 2^-24 a step, and sums of
#: up to 2^14 terms were seen to stay a hundred times below this.
TOLERANCE = 1e-4


def compare_with_torch(
    schedule: Schedule, language: str = "cpp", threads: int = 1, calls: int = _CALLS
) -> Comparison:
    """Run the code of a schedule and torch in turns on the same float32 operands.

    Args:
        schedule: at the sizes to run.
        language: ``"cpp"`` or ``"python"``.
        threads: of both; Python's code uses one.
        calls: timed, of which the median counts.

    Raises:
        ArithmeticError: the results differ by more than rounding.
        ValueError: an unknown language, a schedule without code, or a recurrence that
            torch does not compute.
        elision.native.builder.BuildError: there is no compiler.
    """
    recurrence = schedule.recurrence
    inputs = operands(recurrence)
    output = torch.empty(recurrence.shape(recurrence.output))
    sizes = [recurrence.sizes[name] for name in sizes_of(schedule)]
    run = compiled(source(schedule, language), language, "product")
    name, call = by_torch(recurrence)
    used = 1 if language == "python" else threads
    with with_threads(used):
        seconds = interleaved(
            {
                "code": lambda: run(inputs, output, sizes, used),
                "torch": lambda: call(*inputs),
            },
            calls,
        )
        exact = call(*(tensor.double() for tensor in inputs))
        scale = float(call(*(tensor.double().abs() for tensor in inputs)).max())
    error = float((output.double() - exact).abs().max()) / (scale or 1.0)
    if not error <= TOLERANCE:
        raise ArithmeticError(
            f"the code computes {recurrence} wrongly: it is {error:.1e} of the largest "
            f"sum away from torch's {name}, where rounding gives {TOLERANCE:g} at most"
        )
    code_s, torch_s = (statistics.median(each) for each in seconds.values())
    work = 2.0
    for loop in recurrence.loops:
        work *= recurrence.extent(loop)
    ratios = tuple(b / a for a, b in zip(*seconds.values(), strict=True))
    rate = 1e-9 * work / code_s
    return Comparison(code_s, torch_s, ratios, name, error, rate, used)
