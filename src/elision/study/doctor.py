"""What of the library works on this machine, and what of it will be fast."""

import contextlib
import os
import platform
import shutil
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import torch

from elision import __version__
from elision.common.extras import Extra, found_extras
from elision.energy.meters.rapl import POWERCAP, Rapl
from elision.engines.decision import cpu_name
from elision.memory.codecs import on_gpu
from elision.methods import Swat, elide
from elision.native import builder, shared_object

__all__ = ["Finding", "examined"]

#: What was found of one thing: it works; it works and is slow; it is not there and
#: nothing needs it; or something that is promised does not work.
State = Literal["works", "slow", "absent", "broken"]

#: Largest relative difference of a product by the native kernels from torch's, which sums
#: in another order: an own choice, some hundred roundings of float32.
_AGREES = 1e-4

#: Slowdown by denormal numbers from which on it is said (an own choice; the kernels of
#: this library are held to 1.5).
_DENORMAL_SLOWDOWN = 1.5


@dataclass(frozen=True)
class Finding:
    """What was found of one thing.

    Attributes:
        name: of the thing.
        state: ``"works"``, ``"slow"``, ``"absent"`` or ``"broken"``.
        found: what is there, and what it means for the library.
        mend: what to do about it; empty if there is nothing to do.

    Example:
        >>> Finding("compiler", "slow", "none", "install g++").state
        'slow'
    """

    name: str
    state: State
    found: str
    mend: str = ""


def examined() -> list[Finding]:
    """Look at everything that decides what runs here and how fast.

    The native kernels are built if they are not there yet (about 45 s of one core).

    Example:
        >>> findings = examined()
        >>> [f.name for f in findings[:3]], any(f.state == "broken" for f in findings)
        (['elision', 'torch', 'cores'], False)
    """
    checks: tuple[Callable[[], Finding], ...] = (
        _elision,
        _torch,
        _cores,
        _load,
        _compiler,
        _cache,
        _kernels,
        _numba,
        _denormals,
        _gpu,
        _energy,
    )
    return [*(check() for check in checks), *_extras()]


def _elision() -> Finding:
    found = f"{__version__} on Python {platform.python_version()}, {platform.system()}"
    return Finding("elision", "works", f"{found} {platform.machine()}")


def _torch() -> Finding:
    libraries = {
        "oneDNN": torch.backends.mkldnn.is_available(),
        "MKL": torch.backends.mkl.is_available(),
    }
    missing = [name for name, is_there in libraries.items() if not is_there]
    capability = torch.backends.cpu.get_cpu_capability()
    found = f"{torch.__version__}, dense products by {capability}"
    if platform.machine() == "x86_64" and missing:
        mend = "install the build of torch from PyPI, which has both"
        return Finding(
            "torch", "slow", f"{found}, without {' and '.join(missing)}", mend
        )
    return Finding("torch", "works", found)


def _cores() -> Finding:
    usable = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    ) or (os.cpu_count() or 1)
    threads = torch.get_num_threads()
    found = f"{cpu_name()}; {threads} threads on {usable} usable"
    if threads == usable:
        return Finding("cores", "works", found)
    mend = f"set OMP_NUM_THREADS={usable}, or none"
    return Finding("cores", "slow", found, mend)


def _load() -> Finding:
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    found = f"{load:.1f} processes want {cores} cores"
    if load <= cores:
        return Finding("load", "works", found)
    return Finding("load", "slow", found, "measure times when less is running")


def _compiler() -> Finding:
    try:
        return Finding("compiler", "works", builder.compiler())
    except builder.BuildError as error:
        found = f"{error}; without, torch computes and sparse products save no time"
        return Finding("compiler", "slow", found, "install g++ or clang++, or set CXX")


def _cache() -> Finding:
    try:
        folder = builder.private_folder(builder.cache_folder())
        held = _bytes_below(folder)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        mend = "set ELISION_CACHE to a folder of your own that can be written"
        return Finding("cache", "broken", str(error), mend)
    if not os.access(folder, os.W_OK):
        return Finding("cache", "broken", f"{folder}: not writable", "chmod u+w it")
    found = f"{folder}: holds {held / 2**20:.1f} MiB, {free / 2**30:.1f} GiB are free"
    return Finding("cache", "works", found)


def _bytes_below(folder: Path) -> int:
    """Bytes of all files below a folder; what another process removes meanwhile is none."""
    held = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                held += Path(place, name).lstat().st_size
    return held


def _kernels() -> Finding:
    """The native kernels, built, loaded, and one step by them beside torch's."""
    try:
        builder.compiler()
    except builder.BuildError:
        return Finding("kernels", "slow", "not built, for want of a compiler")
    try:
        best, reason = builder.variant(), shared_object.unavailable()
    except ValueError as error:
        return Finding("kernels", "broken", str(error), "unset ELISION_VARIANT")
    if reason is not None:
        mend = "mend compiler and cache above; until then torch computes"
        return Finding("kernels", "broken", reason, mend)
    library = shared_object.path().stem
    differs = _kernel_difference()
    if not differs <= _AGREES:
        found = f"{library}: a step differs from torch's by {differs:.1e}"
        return Finding(
            "kernels", "broken", found, "use engine='torch', and report this"
        )
    found = f"{library}: sparse products are fast; a step agrees with torch's"
    if not library.startswith(f"kernels-{best}-"):
        mend = "a newer compiler"
        return Finding("kernels", "slow", f"{found}; this CPU runs {best}", mend)
    return Finding("kernels", "works", found)


def _kernel_difference() -> float:
    """Largest difference of a step by the native kernels, relative to its largest value.

    The step is of two convolutions under SWAT, which leaves the first one dense.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 16, 8, 8, generator=generator)
    weights = torch.randn(2, 16, 16, 3, 3, generator=generator)
    results = {}
    for engine in ("torch", "native"):
        convolutions = [torch.nn.Conv2d(16, 16, 3, bias=False) for _ in weights]
        for layer, values in zip(convolutions, weights, strict=True):
            layer.weight = torch.nn.Parameter(values.clone())
        model = elide(torch.nn.Sequential(*convolutions), Swat(0.5), engine=engine)
        output = model(images)
        output.square().sum().backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        results[engine] = [output.detach(), *gradients]
    pairs = zip(results["torch"], results["native"], strict=True)
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs)


def _numba() -> Finding:
    try:
        import numba

        doubled = numba.njit(lambda x: 2 * x)(21)
    except Exception as error:  # whatever another version of NumPy or LLVM makes of it
        said = f"{error}".partition("\n")[0]
        return Finding("numba", "broken", said, "pip install -U numba")
    state = "works" if doubled == 42 else "broken"
    return Finding("numba", state, f"{numba.__version__}: simulators are compiled")


def _denormals() -> Finding:
    if float(torch.tensor(1e-40) * 0.5) == 0:
        return Finding("denormals", "works", "count as zero in this process")
    ratio = _seconds(torch.full((2**18,), 1e-40)) / _seconds(torch.ones(2**18))
    found = f"kept; torch multiplies them in {ratio:.1f} times the time of others"
    if ratio <= _DENORMAL_SLOWDOWN:
        return Finding("denormals", "works", found)
    mend = "torch.set_flush_denormal(True), if they count as zero for you"
    return Finding("denormals", "slow", found, mend)


def _seconds(values: torch.Tensor) -> float:
    """Least processor time of some products of all values with a half."""
    times = []
    for _ in range(9):
        began = time.thread_time()
        values.mul(0.5)
        times.append(time.thread_time() - began)
    return min(times)


def _gpu() -> Finding:
    if not torch.cuda.is_available():
        return Finding("GPU", "absent", "none that torch can use; nothing needs one")
    device = torch.device("cuda", torch.cuda.current_device())
    found = (
        f"{torch.cuda.get_device_name(device)}: recipes are computed by torch's engine"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the reason is told here
        reason = on_gpu.unavailable(device)
    if reason is None:
        told = "Triton's kernels pack saved activations, as torch does"
        return Finding("GPU", "works", f"{found}, {told}")
    told = f"{found}; torch packs saved activations, in more time: {reason}"
    return Finding("GPU", "slow", told, "nothing, if memory is enough without savers")


def _energy() -> Finding:
    meter = Rapl.found()
    if meter is not None:
        return Finding("energy", "works", f"{meter.method}: joules are measured")
    found = "no counters of joules that may be read: energy is estimated"
    unread = sorted(POWERCAP.glob("intel-rapl:*/energy_uj"))
    mend = f"as root: chmod o+r {POWERCAP}/intel-rapl:*/energy_uj" if unread else ""
    return Finding("energy", "absent", found, mend)


def _extras() -> list[Finding]:
    try:
        return [_extra(each) for each in found_extras()]
    except metadata.PackageNotFoundError:
        found = "the library is on the path, and not installed: its extras are unknown"
        return [Finding("extras", "absent", found, "pip install elision")]


def _extra(extra: Extra) -> Finding:
    name, install = f"[{extra.name}]", f"pip install 'elision[{extra.name}]'"
    if extra.differs:
        said = "; ".join(extra.differs)
        return Finding(name, "broken", f"{extra.gives}: {said}", install)
    if extra.missing:
        found = f"{extra.gives}: without {', '.join(extra.missing)}"
        return Finding(name, "absent", found, install)
    return Finding(name, "works", f"{extra.gives}: {', '.join(extra.versions)}")
