"""Writers: small jobs of the library that write files, each by a command of its own."""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

__all__ = ["AT_HOME", "WRITERS", "Writer"]

Job = Callable[[Path], None]


@dataclass(frozen=True)
class Writer:
    """Work that writes into a folder, and again into one that it has written to.

    Attributes:
        name: for tables.
        run: the work, in a folder.
        before: an earlier and lesser work in the same folder; None: there is none.
        falls_back: whether the work ends well where nothing can be written.
        weight: in the draw of a trial's writer; small for what takes a second.
    """

    name: str
    run: Job
    before: Job | None = None
    falls_back: bool = False
    weight: int = 6


#: A training of a blink.
_SMALL = """[workload]
name = "small"
dataset = "digits"
model = "mlp"
model_options = {width = 8}
epochs = 2
batch = 32
train_images = 64
test_images = 32
"""


def _base(folder: Path) -> Path:
    """The folder of all trials: a job's folder lies on a disk, which lies in it."""
    return folder.parents[1]


def _command(*words: str) -> Job:
    """A command; in its words ``{out}`` is the folder, ``{base}`` that of all trials."""

    def run(folder: Path) -> None:
        from elision.cli.main import main

        base = _base(folder)
        try:
            main([word.format(out=folder, base=base) for word in words])
        except SystemExit as end:
            if end.code:
                raise

    return run


def _on_small(*words: str) -> Job:
    """A command on the small training."""
    run = _command(*words, "--workload", "{base}/small.toml")

    def small(folder: Path) -> None:
        workload = _base(folder) / "small.toml"
        if not workload.exists():
            workload.write_text(_SMALL, encoding="utf-8")
        run(folder)

    return small


def _after_training(run: Job) -> Job:
    """A job that reads a finished run, ``{base}/source``, made once for all trials."""

    def after(folder: Path) -> None:
        base = _base(folder)
        if not (base / "source" / "run").exists():
            _on_small(*_TRAIN)(base / "source" / "run")
        run(folder)

    return after


def _offloading(folder: Path) -> None:
    """A training whose saved activations go to the disk of the run."""
    with patch.object(tempfile, "tempdir", str(folder.parent)):
        _on_small(*_TRAIN, "--memory", "offload")(folder)


def _kernels(folder: Path) -> None:
    """A small library built in a cache of its own."""
    with patch.dict(os.environ, ELISION_CACHE=str(folder)):
        _built(folder)


def _built(folder: Path) -> None:
    """The same in the user's cache."""
    from elision.native.builder import build_text

    build_text('extern "C" int elision_one() { return 1; }\n')


def _choices(count: int) -> Job:
    def decide(folder: Path) -> None:
        from elision.engines.decision import Decision, Decisions

        kept = Decisions(folder / "decisions.json")
        for number in range(count):
            kept.add(Decision(f"forward of layer {number}", {"torch": 0.003}))

    return decide


def _doubled(x: float) -> float:
    return 2 * x


def _machine_code(folder: Path) -> None:
    """A function compiled by Numba, with a cache of its own."""
    import numba

    from elision.common.machine_code import compiled_once

    with patch.object(numba.config, "CACHE_DIR", str(folder)):
        doubled = compiled_once()(_doubled)
    if doubled(2.0) != 4.0:
        raise RuntimeError("the compiled function is another")


_OUT = ("--out", "{out}")
_TRAIN = ("train", "dense", "--engine", "torch", *_OUT)
_STUDY = ("study", "--accelerator", "dense", "ant", *_OUT, "--recipe", "dense")
_SWEEP = (
    *("simulate", "--model", "cnn", "--input", "8", "--workers", "1"),
    *("--accelerator", "dense", "ant", "--sparsity", "0.5"),
)
_ROWS = ("--out", "{out}/rows.csv", "--plot", "{out}/rows.svg")
_SEARCH = ("search", "--choices", "*=dense;swat:sparsity=0.8", "--budget", "0.9", *_OUT)
_TEACHER = ("--teacher", "{base}/source/run", "--distill", "hinton(4)")
_FEDERATE = ("federate", "--clients", "iid:clients=2", "--engine", "torch", *_OUT)
_FAULTS = (
    *("faults", "--recipe", "dense", "--format", "fp32", "--no-layers"),
    *("--trials", "20", "--examples", "16", *_OUT),
)
_EXPORT = (
    *("export", "{base}/source/run", "--calibration", "16", "--examples", "4"),
    *_OUT,
)
_TRACE = ("--out", "{out}/t.safetensors")
_TABLE = ("compare", "{base}/source/run", "--out", "{out}/table.csv")

WRITERS = (
    Writer("study", _on_small(*_STUDY, "swat"), _on_small(*_STUDY), weight=1),
    Writer("train", _on_small(*_TRAIN, "--seeds", "2"), _on_small(*_TRAIN), weight=1),
    Writer("offload", _offloading, weight=1),
    Writer("teacher", _after_training(_on_small(*_TRAIN, *_TEACHER)), weight=1),
    Writer("sensitivity", _on_small("sensitivity", *_OUT), weight=1),
    Writer("faults", _on_small(*_FAULTS), weight=1),
    Writer("pipeline", _command("pipeline", "--processors", "2", *_OUT), weight=1),
    Writer(
        "figures", _command("size", "--model", "cnn", "--input", "8", *_OUT), weight=2
    ),
    Writer("C export", _after_training(_command(*_EXPORT, "--target", "c")), weight=2),
    Writer(
        "ONNX export", _after_training(_command(*_EXPORT, "--target", "onnx")), weight=2
    ),
    Writer("federate", _on_small(*_FEDERATE, "--rounds", "2"), weight=2),
    Writer("search", _on_small(*_SEARCH, "--method", "random", "--count", "2")),
    Writer("knapsack", _on_small(*_SEARCH)),
    Writer("sweep", _command(*_SWEEP, "0.8", *_ROWS), _command(*_SWEEP, *_ROWS)),
    Writer("sweep as JSON", _command(*_SWEEP, "--out", "{out}/rows.json")),
    Writer("trace", _command("trace", "--model", "cnn", "--input", "8", *_TRACE)),
    Writer("compare", _after_training(_command(*_TABLE))),
    Writer("map", _command("map", "--model", "cnn", "--array", "4x4", *_OUT)),
    Writer("kernel build", _kernels),
    Writer("choice file", _choices(8), _choices(4), falls_back=True),
    Writer("machine code", _machine_code, falls_back=True, weight=2),
)

#: Writers into the user's home.
AT_HOME = (Writer("kernels at home", _built),)
