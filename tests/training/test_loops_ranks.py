"""Accelerate and DeepSpeed over two processes, beside the same loop written out."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import elision

SCRIPT = Path(__file__).with_name("loops_ranks.py")
SHARED = Path(__file__).parents[1] / "shared"


@pytest.mark.parametrize("library", ["accelerate", "deepspeed"])
def test_two_ranks_end_as_under_the_plain_loop(library: str) -> None:
    pytest.importorskip(library)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    source = Path(elision.__file__).parents[1]
    ranks = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(port), str(rank), library],
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": os.pathsep.join([str(source), str(SHARED)]),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [rank.communicate(timeout=240)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(outputs)
