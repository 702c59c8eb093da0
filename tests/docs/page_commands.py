"""How commands of the documentation are run: on little data, or not, and why."""

import contextlib
import io
import re
import runpy
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest
from pages import ROOT

from elision.cli.main import main
from elision.workloads.presets import WORKLOADS

__all__ = ["NOT_RUN", "NOT_RUN_BLOCKS", "run"]

#: What is not run here, by its beginning, and why.
NOT_RUN = MappingProxyType(
    {
        "apt-get ": "installs a package of the system",
        "pip install ": "installs an extra",
        ".venv/bin/pip ": "CI does it, at full size",
        "torchrun ": "tests/training starts ranks",
        "OMP_NUM_THREADS=1 ": "a measurement of minutes, or ranks",
        "elision serve ": "answers until Ctrl-C; tests/study/test_served.py asks it",
        "python docs/report_picture.py ": "needs a browser; CI does it where there is one",
        "python -m benchmarks.peers": "installs other libraries; tests/benchmarks runs one",
        "python -m campaigns": "hours; tests/campaigns has a short form of each",
        "elision study --device cuda ": "needs a GPU; tests/training has another device",
        "python benchmarks/gpu.py ": "needs a GPU; tests/memory has all of it on the CPU",
        "elision reproduce ": "minutes; tests/study reproduces each paper at a small size",
        "elision simulate --model resnet18 vgg16 ": "288 machines",
        "elision simulate --model resnet18 --sparsity 0.5 0.7 0.9 --ray 10.": "no cluster",
        "elision study --recipe dense 'rigl(0.9)' --probe 'pipeline": "sharpness: minutes",
        "elision study --workload gnmt": "verses that a package of the system installs",
        "elision study --workload verses": "verses that a package of the system installs",
    }
)

#: Languages of blocks that are neither run nor compared, by page.
NOT_RUN_BLOCKS = MappingProxyType(
    {"pipeline-delay": ("py",)}  # a program of ranks; tests/training runs such plans
)

#: What makes a command short.
SHORTER = MappingProxyType(
    {
        r"^python3 -m venv .*/elision study": "elision study",
        r"^(elision study( --workload digits-cnn)?)$": r"\1 --recipe dense --accelerator dense",
        r"^elision bench$": "elision bench --sparsity 0.9 --rounds 2",
        r"^elision study --epochs 2 --record 1 ": "elision study --recipe dense ",
        r"systolic-mixed intergrad intergrad:zero_gating=true scnn ant$": "intergrad ant",
        r"--trials 400 --epochs 5 ": "",
        r"--epochs 5 ": "--epochs 1 ",
        r"^elision faults": "elision faults --trials 4 --examples 8",
        r"--probe stationarity": "--probe stationarity:steps=40 --accelerator dense "
        "--workload digits-cnn",
        r"1\.\.1024": "1..4",
        r"--model resnet18 ": "--model resnet8 ",
        r"--model resnet-50 ": "--model resnet8 ",
        r"--workload cifar10-resnet18 ": "--workload photo-resnet8 ",
        r"--pes 1024": "--pes 64",
        r"^(elision memory .*)--batch 64": r"\1--batch 2 --rounds 1",
        r"timm:resnet18": "resnet8",
        r"--seeds 3": "--seeds 2",
    }
)

#: Run folders that pages take for granted.
FINISHED = re.compile(r"(?<!--out )\bruns/[\w-]+")


def run(command: str) -> None:
    """Run one command of a page, with presets of one epoch on a few examples.

    What it prints is printed, what it says on standard error is not.
    """
    if any(command.startswith(start) for start in NOT_RUN):
        return
    with pytest.MonkeyPatch.context() as patch:
        for name, workload in WORKLOADS.items():
            little = replace(workload, epochs=1, train_images=256, test_images=64)
            patch.setitem(WORKLOADS, name, little)
        for folder in FINISHED.findall(command):
            if not Path(folder).exists():
                of = [name for name in WORKLOADS if f"study-{name}" in folder]
                workload = f"--workload {of[0]} " if of else ""
                _checked(
                    f"elision study {workload}--recipe dense --accelerator ant "
                    f"--out {folder}"
                )
        for long, short in SHORTER.items():
            command = re.sub(long, short, command)
        _checked(command)


def _checked(command: str) -> None:
    command, _, target = command.partition(" > ")
    first, *words = shlex.split(command)
    script = first == "python" and words[0].startswith("benchmarks/")
    assert first == "elision" or script, f"not run, and no reason: {command}"
    printed, said = io.StringIO(), io.StringIO()
    code: object = 0
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
        try:
            if script:
                _script(words)
            else:
                main(words)
        except SystemExit as end:
            code = end.code or 0
    assert code == 0, f"{command}\n{said.getvalue()}"
    if target:
        Path(target).write_text(printed.getvalue(), encoding="utf-8")
    else:
        print(printed.getvalue(), end="")


def _script(words: list[str]) -> None:
    """Run a script of the repository, whose files it may name from the root."""
    ours = [str(ROOT / word) if (ROOT / word).exists() else word for word in words]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ours)
        runpy.run_path(ours[0], run_name="__main__")
