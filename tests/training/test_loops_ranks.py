"""Accelerate and DeepSpeed over two processes, beside the same loop written out."""

import socket
from pathlib import Path

import pytest
from processes import run_ranks

SCRIPT = Path(__file__).with_name("loops_ranks.py")


@pytest.mark.parametrize("library", ["accelerate", "deepspeed"])
def test_two_ranks_end_as_under_the_plain_loop(library: str) -> None:
    pytest.importorskip(library)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run_ranks(SCRIPT, 2, str(port), library)
