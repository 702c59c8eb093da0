"""Processes that meet over gloo: torchrun's, or one Python program a rank."""

import os
import subprocess
import sys
from pathlib import Path

import elision

SHARED = Path(__file__).parent


def environment(**more: str) -> dict[str, str]:
    """This process's environment, the package under test and the shared models first."""
    source = Path(elision.__file__).parents[1]
    path = os.pathsep.join([str(source), str(SHARED)])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more}


def torchrun(
    *arguments: str, ranks: int = 2, options: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run a program in processes of torchrun, with its own options; none may fail."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *(f"--nproc_per_node={ranks}", *options, *arguments),
        ],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done


def run_ranks(script: Path, ranks: int, *arguments: str) -> None:
    """Run ``script RANK ARGUMENTS`` once for each rank; none may fail."""
    running = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), *arguments],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(ranks)
    ]
    try:
        said = [rank.communicate(timeout=240)[0] for rank in running]
    finally:
        for rank in running:
            rank.kill()
    assert [rank.returncode for rank in running] == [0] * ranks, "\n".join(said)
