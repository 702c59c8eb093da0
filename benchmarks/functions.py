"""The K-TanH kernel against vectorised tanhs, and the replaced functions against torch's.

Kernels write into memory that is there, on one thread, float32 or bfloat16 in and out, on an
array that the caches hold and on one that they do not. Beside torch's and NumPy's tanh stand
two of our own: odd polynomials fitted to tanh, clamped, one about as inaccurate as K-TanH and
one of bfloat16's accuracy, compiled with the kernels' flags; no division, no table. The
best of all with the same input and output is the bar. Then whole calls with their gradient, an
LSTM with K-TanH in its gates, and attention by the Taylor softmax, each against torch's.

Candidates take turns in every round; the time is that of the processor on one thread, and
ratios are medians over the rounds of the ratios in one round.

    python benchmarks/functions.py [--rounds 15] [--out FOLDER]
"""

import argparse
import ctypes
import statistics
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import elision
from elision.common.files import write_json
from elision.common.timing import interleaved
from elision.functional import PUBLISHED, fitted, k_tanh
from elision.native import builder
from elision.native.shared_object import load
from elision.study.folder import environment

IN_CACHE, OUT_OF_CACHE = 1 << 15, 1 << 24
#: Degrees of the odd polynomials, and where they are clamped (own choices, by their error).
POLYNOMIALS = {"polynomial, coarse": (9, 3.0), "polynomial, fine": (17, 4.0)}

_SOURCE = """
#include <cstdint>
#include <cstring>
static inline float wide(uint16_t h) {
  uint32_t b = uint32_t(h) << 16; float f; std::memcpy(&f, &b, 4); return f;
}
static inline float wide(float f) { return f; }
static inline void put(uint16_t& to, float f) {
  uint32_t b; std::memcpy(&b, &f, 4); to = uint16_t((b + 0x7FFF + (b >> 16 & 1)) >> 16);
}
static inline void put(float& to, float f) { to = f; }
template <int TERMS, typename T>
static void run(const float* c, float edge, const T* x, T* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    float v = wide(x[i]);
    v = v < -edge ? -edge : v; v = v > edge ? edge : v;
    float s = v * v, p = c[TERMS - 1];
    for (int k = TERMS - 2; k >= 0; --k) p = p * s + c[k];
    put(y[i], v * p);
  }
}
extern "C" void coarse(const float* c, float e, const void* x, void* y, int64_t n, int h) {
  if (h) run<5>(c, e, (const uint16_t*)x, (uint16_t*)y, n);
  else run<5>(c, e, (const float*)x, (float*)y, n);
}
extern "C" void fine(const float* c, float e, const void* x, void* y, int64_t n, int h) {
  if (h) run<9>(c, e, (const uint16_t*)x, (uint16_t*)y, n);
  else run<9>(c, e, (const float*)x, (float*)y, n);
}
"""


def polynomial(degree: int, edge: float) -> np.ndarray:
    """Coefficients of x, x³, ... nearly minimax on [0, edge], by reweighted least squares."""
    x = edge * np.sin(np.linspace(0, np.pi / 2, 4000))
    powers = x[:, None] ** np.arange(1, degree + 1, 2)
    weight, found = np.ones_like(x), None
    for _ in range(60):
        root = np.sqrt(weight)
        found = np.linalg.lstsq(powers * root[:, None], np.tanh(x) * root, rcond=None)[
            0
        ]
        error = np.abs(powers @ found - np.tanh(x))
        weight = weight * (error / error.max() + 0.05)
        weight /= weight.sum()
    assert found is not None
    return found.astype(np.float32)


def polynomials(folder: Path) -> dict[str, Callable[[Tensor, Tensor], None]]:
    """The polynomials' kernels, compiled like the library's."""
    source, made = folder / "polynomial.cpp", folder / "polynomial.so"
    source.write_text(_SOURCE)
    compiler, _ = builder._compiler()
    flags = (
        "-std=c++17",
        "-O3",
        "-shared",
        "-fPIC",
        *builder.VARIANTS[builder.variant()],
    )
    # The same code with fewer roundings: what a programmer would also allow.
    command = [compiler, *flags, "-ffast-math", str(source), "-o", str(made)]
    subprocess.run(command, check=True)
    library = ctypes.CDLL(str(made))
    found: dict[str, Callable[[Tensor, Tensor], None]] = {}
    for name, (degree, edge) in POLYNOMIALS.items():
        entry = getattr(library, name.rpartition(" ")[2])
        pointer = ctypes.c_void_p
        entry.argtypes = [
            *(pointer, ctypes.c_float, pointer, pointer, ctypes.c_int64, ctypes.c_int)
        ]
        c = torch.from_numpy(polynomial(degree, edge))

        def call(
            x: Tensor, y: Tensor, entry: Any = entry, c: Any = c, edge: float = edge
        ):
            halves = x.dtype == torch.bfloat16
            entry(c.data_ptr(), edge, x.data_ptr(), y.data_ptr(), x.numel(), halves)

        found[name] = call
    return found


def kernel(x: Tensor, y: Tensor) -> None:
    base, shift = PUBLISHED.integers
    pointers = (t.data_ptr() for t in (base, shift, x, y))
    load().elision_k_tanh(*pointers, x.numel(), x.dtype == torch.bfloat16, 1)


def numpy_tanh(x: Tensor, y: Tensor) -> None:
    np.tanh(x.numpy(), out=y.numpy())


def ratios(
    calls: Mapping[str, Callable[[], object]], ours: str, rounds: int, values: int
) -> dict[str, Any]:
    """Nanoseconds a value, and times of the others in those of ours."""
    seconds = interleaved(calls, rounds)
    row: dict[str, Any] = {}
    for name, times in seconds.items():
        pairs = zip(times, seconds[ours], strict=True)
        low, middle, high = statistics.quantiles([a / b for a, b in pairs], n=4)
        row[name] = {
            "ns_a_value": 1e9 * statistics.median(times) / values,
            "times_ours": middle,
            "quartiles": [low, high],
        }
    return row


def repeated(call: Callable[[], object], times: int) -> Callable[[], None]:
    def run() -> None:
        for _ in range(times):
            call()

    return run


def kernels(rounds: int) -> dict[str, Any]:
    """K-TanH and the other tanhs, by type and size, with their largest errors."""
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        candidates = {
            "k-tanh": kernel,
            "torch": lambda x, y: torch.tanh(x, out=y),
            **polynomials(Path(folder)),
            "numpy": numpy_tanh,
        }
        for dtype in (torch.float32, torch.bfloat16):
            for where, n in (("in cache", IN_CACHE), ("out of cache", OUT_OF_CACHE)):
                x = (3 * torch.randn(n)).to(dtype)
                y = torch.empty_like(x)
                times = max(1, (1 << 21) // n)
                calls = {
                    name: repeated(partial(call, x, y), times)
                    for name, call in candidates.items()
                    if name != "numpy" or dtype == torch.float32
                }
                key = f"{str(dtype).removeprefix('torch.')}, {where}"
                row = ratios(calls, "k-tanh", rounds, n * times)
                exact = x.double().tanh()
                for name, call in candidates.items():
                    if name in row:
                        call(x, y)
                        row[name]["largest_error"] = float(
                            (y.double() - exact).abs().max()
                        )
                others = {k: v["times_ours"] for k, v in row.items() if k != "k-tanh"}
                best = min(others, key=others.__getitem__)
                results[key] = {"candidates": row, "bar": best, "ratio": others[best]}
    return results


def with_gradient(call: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], None]:
    grad = torch.randn_like(x)

    def run() -> None:
        torch.autograd.grad(call(x), x, grad)

    return run


def calls(rounds: int) -> dict[str, Any]:
    """Whole calls with gradient, in times of ours."""
    results: dict[str, Any] = {}
    for dtype in (torch.float32, torch.bfloat16):
        for n in (1 << 12, 1 << 20):
            x = (3 * torch.randn(n)).to(dtype).requires_grad_()
            pair = {
                "k-tanh": repeated(with_gradient(k_tanh, x), max(1, (1 << 18) // n)),
                "torch": repeated(with_gradient(torch.tanh, x), max(1, (1 << 18) // n)),
            }
            key = f"tanh and gradient, {str(dtype).removeprefix('torch.')}, {n}"
            results[key] = ratios(pair, "k-tanh", rounds, n * max(1, (1 << 18) // n))
    return results


def models(rounds: int) -> dict[str, Any]:
    """Training steps of small models, replaced and plain."""
    gates = {"tanh": "k-tanh", "sigmoid": "k-sigmoid"}
    exact = {"tanh": torch.tanh, "sigmoid": torch.sigmoid}
    taylor = {"softmax": "taylor-softmax:order=2,check=false"}
    cases: dict[
        str, tuple[Callable[[], nn.Module], tuple[int, ...], dict[str, Any]]
    ] = {
        "LSTM 128, 20 steps, batch 32": (
            lambda: nn.LSTM(64, 128),
            (20, 32, 64),
            {"plain": None, "loop, torch's functions": exact, "k-tanh": gates},
        ),
        "attention 4 x 64, 128 tokens, batch 8": (
            lambda: nn.MultiheadAttention(256, 4, batch_first=True),
            (8, 128, 256),
            {
                "plain": None,
                "written out, torch's softmax": {"softmax": torch.softmax},
                "taylor-softmax": taylor,
            },
        ),
    }
    results: dict[str, Any] = {}
    for name, (make, shape, forms) in cases.items():
        steps: dict[str, Callable[[], None]] = {}
        for form, functions in forms.items():
            torch.manual_seed(0)
            model, x = make(), torch.randn(shape)
            if functions:
                elision.elide(model, "dense", functions=functions)

            def step(model: nn.Module = model, x: Tensor = x) -> None:
                y = (
                    model(x, x, x)
                    if isinstance(model, nn.MultiheadAttention)
                    else model(x)
                )
                y[0].square().mean().backward()

            steps[form] = step
        results[name] = ratios(steps, "plain", rounds, 1)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    warnings.simplefilter("ignore", elision.functional.RangeWarning)
    results = {
        "kernels": kernels(arguments.rounds),
        "calls": calls(arguments.rounds),
        "models": models(arguments.rounds),
    }
    for key, row in results["kernels"].items():
        print(f"{key}: bar {row['bar']}, ratio {row['ratio']:.2f}")
        for name, found in row["candidates"].items():
            print(
                f"  {name:20} {found['ns_a_value']:.3f} ns a value, "
                f"{found['times_ours']:.2f} times k-tanh's, largest error "
                f"{found['largest_error']:.2e}"
            )
    for part in ("calls", "models"):
        for key, row in results[part].items():
            words = [f"{n} {found['times_ours']:.2f}" for n, found in row.items()]
            print(f"{key}: {', '.join(words)}")
    if arguments.out:
        facts = {
            "rounds": arguments.rounds,
            "variant": builder.variant(),
            "unit": "processor time, one thread",
            "machine": environment(),
            "table": {
                "published_largest_error": PUBLISHED.largest_error,
                "fitted_largest_error": fitted().largest_error,
                "published_mean_error": float(PUBLISHED.errors.mean()),
                "fitted_mean_error": float(fitted().errors.mean()),
            },
            "results": results,
        }
        arguments.out.mkdir(parents=True, exist_ok=True)
        write_json(arguments.out / "functions.json", facts)


if __name__ == "__main__":
    main()
