"""Work that is killed and started twice: commands that own a folder, and caches."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["JOBS", "Job"]


def _tree(folder: Path) -> dict[str, bytes]:
    """Content of every file below a folder, by path; lock files are empty and stay."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


@dataclass(frozen=True)
class Job:
    """Work that continues where it was stopped.

    Attributes:
        name: for tables.
        run: the work, in a folder.
        times: patterns of the files that hold times, and so differ between two runs.
        is_shared: whether two processes may work in the folder at a time, as in a cache;
            else the second is refused.
        read: what must be equal of a folder, by path.
    """

    name: str
    run: Callable[[Path], Any]
    times: tuple[str, ...] = ()
    is_shared: bool = False
    read: Callable[[Path], dict[str, bytes]] = _tree


def _command(*words: str) -> Callable[[Path], None]:
    """A command line; its folder stands where ``{}`` is."""

    def run(folder: Path) -> None:
        from elision.cli.main import main

        folder.parent.mkdir(exist_ok=True)
        main([word.replace("{}", str(folder)) for word in words])

    return run


_SMALL = """[workload]
name = "small"
dataset = "digits"
model = "mlp"
model_options = {width = 16}
epochs = 3
train_images = 256
test_images = 64
"""


def _small(*words: str) -> Callable[[Path], None]:
    """A command line on a small workload."""

    def run(folder: Path) -> None:
        workload = folder.parent / "small.toml"
        workload.write_text(_SMALL, encoding="utf-8")
        _command(*words, "--workload", str(workload), "--out", "{}")(folder)

    return run


#: Takes a compiler half a second.
_SOURCE = """#include <algorithm>
#include <string>
extern "C" int elision_one(const char *text) {
    std::string sorted(text);
    std::sort(sorted.begin(), sorted.end());
    return sorted.size();
}
"""


def _called(function: Callable[[Path], None]) -> Callable[[Path], None]:
    """A function of the library, called where a request to end is never lost."""

    def run(folder: Path) -> None:
        from elision.cli.signals import requests_kept

        with requests_kept():
            function(folder)

    return run


def _kernels(folder: Path) -> None:
    """A small library, built in a cache of its own."""
    from elision.native.builder import build_text

    os.environ["ELISION_CACHE"] = str(folder)
    build_text(_SOURCE)


def _choices(folder: Path) -> None:
    """Choices between engines, kept in a file of their own."""
    from elision.engines.decision import Decision, Decisions

    kept = Decisions(folder / "decisions.json")
    for number in range(40):
        kept.add(Decision(f"forward of layer {number}", {"torch": 0.003}))


def _machine_code(folder: Path) -> None:
    """A function that Numba compiles for several types, kept in a cache of its own."""
    import numba.core.config as settings
    import numpy as np

    from elision.common.machine_code import compiled_once

    folder.mkdir(exist_ok=True)
    settings.CACHE_DIR = str(folder)
    doubled = compiled_once(nogil=True)(_doubled)
    for kind in (np.float32, np.float64, np.int32, np.int64):
        found = doubled(np.ones(4, kind))
        if found.dtype != kind or not (found == 2).all():
            raise RuntimeError(f"the kept code computes {found}")


def _doubled(x: Any) -> Any:
    return x + x


def _paths(folder: Path) -> dict[str, bytes]:
    """Paths of all files: the bytes of machine code depend on what was compiled before."""
    return dict.fromkeys(_tree(folder), b"")


_RUN = ("energy.json", "*/energy-by-epoch.json", "report.html", "timing.json")
_SEARCH = (*_RUN, "tables/work.csv", "*/seconds.jsonl", "spent.json")

_CHOICES = ("--choices", "*=dense;swat:sparsity=0.9", "--budget", "0.8")

#: Every command that owns a folder and can be made to take a second, and the caches.
JOBS: tuple[Job, ...] = (
    Job(
        "study",
        _small(
            *("study", "--recipe", "swat", "rigl", "--seeds", "2", "--epochs", "2"),
            *("--accelerator", "dense", "ant", "--memory", "bits(4)"),
        ),
        _RUN,
    ),
    Job("train", _small("train", "w-resprop", "--engine", "torch"), _RUN),
    Job(
        "search",
        _small("search", *_CHOICES, "--examples", "32", "--epochs", "2"),
        _SEARCH,
    ),
    Job(
        "search by training",
        _small("search", *_CHOICES, "--method", "halving", "--count", "3"),
        _SEARCH,
    ),
    Job(
        "federate",
        _small(
            *("federate", "swat", "--rounds", "4", "--clients", "iid:clients=4"),
            *("--rule", "fedavg:every=2", "--engine", "torch"),
        ),
    ),
    Job(
        "faults",
        _small(
            *("faults", "--recipe", "dense", "gradual:sparsity=0.8", "--epochs", "1"),
            *("--trials", "64", "--examples", "16", "--training", "gradient"),
            *("--first", "1", "--steps", "2"),
        ),
        ("networks/*/energy-by-epoch.json",),
    ),
    Job(
        "sensitivity",
        _small(
            *("sensitivity", "--arithmetic", "8a-4w", "--formats", "4", "8"),
            *("--operand", "weight", "--examples", "16"),
        ),
    ),
    Job(
        "export",
        _small("export", "--target", "c", "--calibration", "32", "--examples", "32"),
        ("network/energy-by-epoch.json",),
    ),
    Job(
        "reproduce",
        _command(
            *("reproduce", "sparse-training", "--network", "resnet8", "--method"),
            *("set", "--sparsity", "0.9", "--seeds", "1", "--epochs", "1"),
            *("--train-images", "64", "--test-images", "32", "--out", "{}"),
        ),
        ("resnet8/set-90-0.json", "study.json"),
    ),
    Job(
        "sweep",
        _command(
            *("simulate", "--model", "cnn", "--input", "8", "--sparsity"),
            *("0.5", "0.8", "0.9", "--accelerator", "dense", "scnn", "ant"),
            *("--workers", "1", "--out", "{}/rows.csv"),
        ),
        is_shared=True,
    ),
    Job("kernel build", _called(_kernels), is_shared=True),
    Job("choice file", _called(_choices), is_shared=True),
    Job("machine code", _called(_machine_code), is_shared=True, read=_paths),
)
