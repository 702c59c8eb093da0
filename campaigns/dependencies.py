"""``python -m campaigns.dependencies``: the oldest and newest versions allowed, tried.

For each end, uv resolves ``pyproject.toml`` and installs the project as a wheel: the core
alone, and then with every extra. The README's main job is run small and a named part of
the tests in full. What was installed and what came of it is written as JSON.

It needs uv and an interpreter of each Python named, and downloads some 3 GB an end:
the torch for Linux brings its GPU libraries. ``UV_TORCH_BACKEND=cpu`` has uv take the CPU
build, where its index can be reached.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from elision.common.files import write_json

__all__ = ["ENDS", "TESTS", "End", "counts", "declared"]

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class End:
    """One end of what is allowed.

    Attributes:
        resolution: uv's word for it: the lowest versions that satisfy each line of
            ``pyproject.toml``, or the highest.
        python: the version of the interpreter.
    """

    resolution: str
    python: str


ENDS = {"oldest": End("lowest-direct", "3.11"), "newest": End("highest", "3.13")}

#: Tests of the core, under "", and of what each extra gives.
TESTS: dict[str, tuple[str, ...]] = {
    "": (
        "tests/accelerators/test_every_machine.py",
        "tests/formats/test_formats.py",
        "tests/layers/test_elide.py",
        "tests/memory/test_policies.py",
        "tests/operands/test_cast_scales.py",
        "tests/operands/test_handles.py",
        "tests/products",
        "tests/report",
        "tests/topology/test_moving_masks.py",
        "tests/workloads/test_data.py",
    ),
    "accelerate": ("tests/training/test_training_loops.py",),
    "deepspeed": ("tests/training/test_loops_ranks.py",),
    "energy": ("tests/energy/test_energy_meters.py",),
    "flower": ("tests/training/parallel/federated/test_flower.py",),
    "gpu": ("tests/memory/codecs/on_gpu/test_triton_kernels.py",),
    "lightning": ("tests/training/test_training_loops.py",),
    "litert": ("tests/export/test_litert_target.py",),
    "mlflow": ("tests/training/loggers/test_adapters.py",),
    "mnist5k": ("tests/workloads/test_data.py",),
    "onnx": ("tests/workloads/shapes/test_onnx_graph.py",),
    "onnx-runtime": (
        "tests/cli/test_export_command.py",
        "tests/export/test_onnx_target.py",
    ),
    "pandas": ("tests/accelerators/design/test_sweep.py",),
    "photos": ("tests/workloads/test_photographs.py",),
    "privacy": ("tests/training/parallel/federated/test_federated.py",),
    "ray": ("tests/common/test_cluster.py",),
    "search": ("tests/study/search/test_multi_objective.py",),
    "sz3": ("tests/memory/codecs/test_codec_scientific.py",),
    "tensorboard": ("tests/training/loggers/test_adapters.py",),
    "timm": ("tests/workloads/test_model_libraries.py",),
    "torchvision": ("tests/workloads/test_model_libraries.py",),
    "transformers": ("tests/layers/test_language_models.py",),
    "translation": (
        "tests/workloads/test_text.py",
        "tests/workloads/test_translation.py",
    ),
    "verify": ("tests/verify/test_equivalent.py", "tests/verify/test_symbolic.py"),
    "wandb": ("tests/training/loggers/test_adapters.py",),
    "zfp": ("tests/memory/codecs/test_codec_scientific.py",),
}


def declared() -> dict[str, list[str]]:
    """Packages that ``pyproject.toml`` names: of the core, under "", and by extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = {"": project["dependencies"], **project["optional-dependencies"]}
    named = {
        extra: [_package(line) for line in found] for extra, found in lines.items()
    }
    return {extra: found for extra, found in named.items() if "elision" not in found}


def _package(requirement: str) -> str:
    (name, *_) = re.split(r"[^\w.-]", requirement, maxsplit=1)
    return name


def main() -> None:
    """Try what the command line names; a line for each environment."""
    known = [f"{end}/{part}" for end in ENDS for part in ("core", "extras")]
    parser = argparse.ArgumentParser(
        prog="python -m campaigns.dependencies", description=__doc__
    )
    parser.add_argument("names", nargs="*", help=f"of {', '.join(known)}; default: all")
    parser.add_argument("--out", type=Path, help="JSON file; what else is in it stays")
    given = parser.parse_args()
    if unknown := [name for name in given.names if name not in known]:
        parser.error(f"unknown environment {unknown[0]!r}; known: {', '.join(known)}")
    if shutil.which("uv") is None:
        sys.exit("this campaign installs with uv, which is not on the PATH")
    kept: dict[str, Any] = {}
    if given.out is not None and given.out.is_file():
        kept = json.loads(given.out.read_text("utf-8"))
    for name in given.names or known:
        end, part = name.split("/")
        extras = [extra for extra in declared() if extra and part == "extras"]
        with tempfile.TemporaryDirectory(prefix="elision-dependencies-") as folder:
            row = _environment(Path(folder), ENDS[end], extras)
        print(
            f"{name}: Python {row['python']}, torch {row['versions']['torch']}, "
            f"study {row['study']}, tests {row['tests']}"
        )
        for failure in row["failures"]:
            print("  ", failure)
        sys.stdout.flush()
        kept[name] = row
        if given.out is not None:
            write_json(given.out, kept)


def _environment(work: Path, end: End, extras: Sequence[str]) -> dict[str, Any]:
    """Install, run the main job from an empty folder, and run the tests."""
    python = work / "venv" / "bin" / "python"
    _run(["uv", "venv", "-q", "--python", end.python, str(python.parents[1])], ROOT)
    install = ["uv", "pip", "install", "-q", "--python", str(python)]
    wanted = f"{ROOT}[{','.join(extras)}]" if extras else str(ROOT)
    _run([*install, "--resolution", end.resolution, wanted], ROOT)
    versions = _versions(python)
    # What runs the tests is not under trial, and moves nothing that is.
    fixed = work / "fixed.txt"
    fixed.write_text("".join(f"{p}=={v}\n" for p, v in versions.items()))
    _run([*install, "-c", str(fixed), "pytest", "hypothesis"], ROOT)
    empty = work / "empty"
    empty.mkdir()
    study = [str(python), "-m", "elision", "study", "--workload", "digits-cnn"]
    ended = _run([*study, "--epochs", "1", "--out", "run"], empty, check=False)
    report = work / "report.xml"
    tests = dict.fromkeys(path for extra in extras or [""] for path in TESTS[extra])
    # That a package will drop something one day is no failure of the versions of today.
    options = ["-q", "-p", "no:cacheprovider", "-W", "default::DeprecationWarning"]
    options += [f"--junit-xml={report}"]
    _run([str(python), "-m", "pytest", *options, *tests], ROOT, check=False)
    passed, failures = counts(report.read_text("utf-8"))
    named = {package for found in declared().values() for package in found}
    asked = "import platform; print(platform.python_version())"
    return {
        "python": _run([str(python), "-c", asked], empty).stdout.strip(),
        "resolution": end.resolution,
        "extras": list(extras),
        "versions": {p: v for p, v in versions.items() if p in named},
        "study": "works" if ended.returncode == 0 else ended.stderr[-600:],
        "tests": passed,
        "failures": failures,
    }


def _versions(python: Path) -> dict[str, str]:
    """The versions of all packages of an environment but the project."""
    listed = _run(["uv", "pip", "freeze", "--python", str(python)], ROOT).stdout
    pairs = (line.split("==") for line in listed.splitlines() if "==" in line)
    return {name.lower(): version for name, version in pairs}


def counts(report: str) -> tuple[dict[str, int], list[str]]:
    """Tests by outcome, and a line for each that failed, from pytest's JUnit file."""
    totals = {"passed": 0, "failed": 0, "skipped": 0}
    failures = []
    for case in ElementTree.fromstring(report).iter("testcase"):
        bad = [part for part in case if part.tag in ("failure", "error")]
        skipped = case.find("skipped") is not None
        totals["failed" if bad else "skipped" if skipped else "passed"] += 1
        for part in bad:
            said = (part.get("message") or "").splitlines()
            named = f"{case.get('classname')}::{case.get('name')}"
            failures.append(f"{named}: {said[0] if said else part.tag}")
    return totals, failures


def _run(
    command: Sequence[str], folder: Path, *, check: bool = True
) -> "subprocess.CompletedProcess[str]":
    """Run a command that sees no other copy of the library; its end if it must be good."""
    variables = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=folder, env=variables, capture_output=True, text=True, check=False
    )
    if check and done.returncode != 0:
        sys.exit(f"{' '.join(command[:4])} failed:\n{done.stderr[-2000:]}")
    return done


if __name__ == "__main__":
    main()
