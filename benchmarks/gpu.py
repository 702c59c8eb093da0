"""What the library is worth on one NVIDIA GPU, beside torch's best, in under 8 minutes.

    python benchmarks/gpu.py --out records/gpu.json
    python benchmarks/gpu.py --only codecs --rounds 15

``steps``: training steps, dense in float32, TF32, bfloat16 and ``channels_last``, and under
recipes. ``codecs``: packing and unpacking by Triton's kernels and by torch's operators,
beside a copy to pinned memory and back. ``savers``: steps under policies, their time and
their peak, beside plain autograd and ``save_on_cpu``. ``sparse``: products of 2:4 and of
block-sparse weights as torch has them, beside the dense product of the same type.

Every row has the seconds of all candidates in turns: the wall clock between two waits for
the device, over as many calls as take 20 ms. What is not begun when the time is over is
named. Without a GPU there is nothing to measure, and the command says so.
"""

import argparse
import contextlib
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elision.common.files import write_json
from elision.layers import elide
from elision.memory import codecs, saver, watch_peak
from elision.memory.codecs import on_gpu
from elision.memory.saved.roles import Role, Slot
from elision.methods import make_recipe
from elision.study.folder import environment
from elision.workloads.models import make_model

#: Seconds of one timed round: far above the clock's and the launch's noise (own choice).
_ROUND = 0.02

RECIPES = ("swat", "rigl", "meprop", "n-m", "int8", "fp8")
POLICIES = ("exact", "bits(4)", "bits(2)", "jpeg", "fp8", "offload")

#: Codecs that are measured on a GPU and, by ``memory.py``, on the CPU.
GROUP_CODECS = {
    "group 8-bit": codecs.GroupQuant(8),
    "group 4-bit": codecs.GroupQuant(4),
    "group 4-bit, stochastic": codecs.GroupQuant(4, rounding="stochastic"),
    "group 2-bit": codecs.GroupQuant(2),
    "sparse group 4-bit": codecs.SparseGroupQuant(4),
}
CODECS = {
    **GROUP_CODECS,
    "two-valued": codecs.TwoValued(),
    "jpeg": codecs.Jpeg(),
}


@dataclass(frozen=True)
class Bench:
    """Device, sizes and rounds of a run.

    Attributes:
        device: where it is measured.
        rounds: timed rounds of every candidate.
        network: name of the network whose steps are taken.
        batch, image: images of a step, and their edge.
        elements: of a packed tensor, about.
        width: edge of the matrices of sparse products.
    """

    device: torch.device
    rounds: int = 9
    network: str = "resnet18"
    batch: int = 128
    image: int = 128
    elements: int = 2**25
    width: int = 4096

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(
        self, candidates: dict[str, Callable[[], object]]
    ) -> dict[str, list[float]]:
        """Seconds of a call of each candidate in each round, in turns."""
        calls = {}
        for name, call in candidates.items():
            for _ in range(2):  # compiles, chooses algorithms
                call()
            calls[name] = max(1, int(_ROUND / self._timed(call, 1)))
        names = list(candidates)
        found: dict[str, list[float]] = {name: [] for name in names}
        for turn in range(self.rounds):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                found[name].append(self._timed(candidates[name], calls[name]))
        return found

    def _timed(self, call: Callable[[], object], count: int) -> float:
        self.wait()
        began = time.perf_counter()
        for _ in range(count):
            call()
        self.wait()
        return (time.perf_counter() - began) / count


def compared(name: str, seconds: dict[str, list[float]], base: str) -> dict[str, Any]:
    """A row: milliseconds, and the time of the base over each candidate's, quartiles."""
    return {
        "of": name,
        "ms": {n: 1000 * statistics.median(s) for n, s in seconds.items()},
        "faster_than": base,
        "times": {
            n: statistics.quantiles(
                [b / a for a, b in zip(s, seconds[base], strict=True)],
                n=4,
                method="inclusive",
            )
            for n, s in seconds.items()
            if n != base
        },
    }


@contextlib.contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Products of float32 in TF32, or in float32."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def _network(
    bench: Bench, recipe: str | None = None
) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    model = make_model(bench.network, image_size=bench.image).to(bench.device).train()
    images = torch.randn(bench.batch, 3, bench.image, bench.image).to(bench.device)
    labels = (torch.arange(bench.batch) % 10).to(bench.device)
    if recipe is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # no optimiser: its masks do not move here
            model = elide(model, make_recipe(recipe), engine="auto")
    return model, images, labels


def _step(
    bench: Bench,
    recipe: str | None = None,
    *,
    in_tf32: bool = False,
    half: bool = False,
    channels_last: bool = False,
) -> Callable[[], object]:
    model, images, labels = _network(bench, recipe)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        images = images.to(memory_format=torch.channels_last)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        cast = torch.autocast(bench.device.type, torch.bfloat16, enabled=half)
        with tf32(in_tf32):
            with cast:
                loss = F.cross_entropy(model(images), labels)
            loss.backward()

    return step


def steps(bench: Bench) -> Iterator[dict[str, Any]]:
    """Dense steps as fast as torch makes them, and each recipe's beside them."""
    dense = {
        "float32": _step(bench),
        "TF32": _step(bench, in_tf32=True),
        "TF32, channels_last": _step(bench, in_tf32=True, channels_last=True),
        "bfloat16": _step(bench, half=True),
        "bfloat16, channels_last": _step(bench, half=True, channels_last=True),
    }
    yield compared(f"{bench.network}, dense", bench.seconds(dense), "float32")
    for recipe in RECIPES:
        candidates = {"float32": dense["float32"], recipe: _step(bench, recipe)}
        row = compared(
            f"{bench.network}, {recipe}", bench.seconds(candidates), "float32"
        )
        yield row
        del candidates


@contextlib.contextmanager
def torch_alone() -> Iterator[None]:
    """Codecs by torch's operators, where the kernels would be used."""
    kernels = on_gpu.unavailable
    on_gpu.unavailable = lambda device: "switched off"  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        on_gpu.unavailable = kernels


def codecs_alone(bench: Bench) -> Iterator[dict[str, Any]]:
    """Packing and unpacking a ReLU's result."""
    torch.manual_seed(0)
    shape = (max(1, bench.elements // (64 * 32 * 32)), 64, 32, 32)
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(shape, dtype=dtype).to(bench.device).relu()
        for name, codec in CODECS.items():
            role, given = Role.LINEAR_INPUT, x
            if isinstance(codec, codecs.TwoValued):
                role, given = Role.FACTOR, (x > 0).to(dtype)
            slot = Slot("ConvolutionBackward0", "input", role, nonnegative=True)
            yield _codec_row(bench, f"{name}, {dtype}", codec, given, slot)


def _codec_row(
    bench: Bench, name: str, codec: Any, x: Tensor, slot: Slot
) -> dict[str, Any]:
    packed = codec.pack(x, slot)
    if packed is None:
        return {"of": name, "ratio": 1.0}
    host = torch.empty(x.shape, dtype=x.dtype, pin_memory=bench.device.type == "cuda")

    def by_torch(call: Callable[[], object]) -> Callable[[], object]:
        def alone() -> None:
            with torch_alone():
                call()

        return alone

    calls = {
        "pack": (lambda: codec.pack(x, slot), lambda: host.copy_(x, non_blocking=True)),
        "unpack": (
            lambda: codec.unpack(packed),
            lambda: host.to(bench.device, non_blocking=True),
        ),
    }
    row: dict[str, Any] = {
        "of": name,
        "ratio": x.nbytes / packed.nbytes,
        "by_triton": on_gpu.usable(x),
    }
    for what, (call, copied) in calls.items():
        found = bench.seconds(
            {"codec": call, "by torch": by_torch(call), "copy to pinned memory": copied}
        )
        gigabytes = x.nbytes / statistics.median(found["codec"]) / 1e9
        row[what] = compared(what, found, "by torch") | {"GB_per_s": gigabytes}
    return row


def savers(bench: Bench) -> Iterator[dict[str, Any]]:
    """Steps under policies for saved activations: time, and peak above what was there."""
    model, images, labels = _network(bench)

    def under(policy: str | None) -> Callable[[], object]:
        def step() -> None:
            model.zero_grad(set_to_none=True)
            if policy == "save_on_cpu":
                pinned = bench.device.type == "cuda"
                context: Any = torch.autograd.graph.save_on_cpu(pin_memory=pinned)
            else:
                context = saver(model, policy or "none", seed=0)
            with contextlib.nullcontext() if policy is None else context:
                loss = F.cross_entropy(model(images), labels)
            loss.backward()

        return step

    def peak(step: Callable[[], object]) -> int:
        model.zero_grad(set_to_none=True)
        with watch_peak(bench.device) as measured:
            step()
        return measured.peak_bytes

    plain = under(None)
    for policy in ("save_on_cpu", *POLICIES):
        step = under(policy)
        row = compared(policy, bench.seconds({"plain": plain, policy: step}), "plain")
        yield row | {"peak_ratio": peak(plain) / peak(step)}


def sparse(bench: Bench) -> Iterator[dict[str, Any]]:
    """Products of sparse weights as torch has them; the dense one is of the same type."""
    for dtype in (torch.bfloat16, torch.float16):
        torch.manual_seed(0)
        n = bench.width
        x, w = (torch.randn(n, n, dtype=dtype).to(bench.device) for _ in range(2))
        pairs = w.view(-1, 4).abs().argsort(1).argsort(1) >= 2
        halved = torch.where(pairs, w.view(-1, 4), 0).view(n, n)
        yield _product(bench, f"2:4, {dtype}", x, halved, _semi_structured)
        for density in (0.5, 0.2, 0.1):
            blocks = torch.rand(n // 64, n // 64) < density
            mask = blocks.repeat_interleave(64, 0).repeat_interleave(64, 1)
            held = w * mask.to(bench.device)
            name = f"blocks of 64, density {density}, {dtype}"
            yield _product(bench, name, x, held, lambda v: v.to_sparse_bsr((64, 64)))


def _semi_structured(weight: Tensor) -> Tensor:
    return torch.sparse.to_sparse_semi_structured(weight)


def _product(
    bench: Bench, name: str, x: Tensor, weight: Tensor, made: Callable[[Tensor], Tensor]
) -> dict[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls these layouts a prototype
            held = made(weight)
            found, expected = F.linear(x, held), F.linear(x, weight)
    except (RuntimeError, NotImplementedError) as error:
        return {"of": name, "refused": f"{error}".partition("\n")[0]}
    off = float((found - expected).float().norm() / expected.float().norm())
    seconds = bench.seconds(
        {"dense": lambda: F.linear(x, weight), "sparse": lambda: F.linear(x, held)}
    )
    return compared(name, seconds, "dense") | {"relative_difference": off}


SECTIONS = {
    "steps": steps,
    "codecs": codecs_alone,
    "savers": savers,
    "sparse": sparse,
}


def measured(bench: Bench, only: str | None, minutes: float) -> dict[str, Any]:
    """The rows of every section, in equal shares of the time."""
    found: dict[str, Any] = {"cut_short": []}
    chosen = [only] if only else list(SECTIONS)
    began = time.monotonic()
    for number, name in enumerate(chosen, 1):
        found[name] = []
        for row in SECTIONS[name](bench):
            print(name, row, flush=True)
            found[name].append(row)
            if time.monotonic() - began > 60 * minutes * number / len(chosen):
                found["cut_short"].append(name)
                print(f"{name}: the time is over; what follows is not measured")
                break
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--only", choices=tuple(SECTIONS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--minutes", type=float, default=7.0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit(
            "benchmarks/gpu.py: needs an NVIDIA GPU of compute capability 8.0 or more and "
            "torch's build for it; torch finds no CUDA device here"
        )
    device = torch.device("cuda", torch.cuda.current_device())
    found: dict[str, Any] = {
        "environment": environment()
        | {
            "gpu": torch.cuda.get_device_name(device),
            "capability": torch.cuda.get_device_capability(device),
            "kernels": on_gpu.unavailable(device) or "Triton's agree with torch's",
        }
    }
    found |= measured(Bench(device, given.rounds), given.only, given.minutes)
    if given.out:
        write_json(given.out, found)


if __name__ == "__main__":
    main()
