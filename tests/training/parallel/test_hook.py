"""Two processes train over gloo with compressed gradients."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

import elision
from elision.training.parallel import compress_hook

SCRIPT = Path(__file__).with_name("compress_ranks.py")


def test_two_ranks_conserve_agree_resume_and_refuse(tmp_path: Path) -> None:
    source = str(Path(elision.__file__).parents[1])
    ranks = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(rank), str(tmp_path)],
            env={**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        errors = [rank.communicate(timeout=180)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(errors)


def test_what_is_no_ddp_is_refused() -> None:
    with pytest.raises(ValueError, match="Linear is no DistributedDataParallel"):
        compress_hook(nn.Linear(2, 1), "bf16")


def test_unknown_compressors_list_the_known() -> None:
    with pytest.raises(ValueError, match=r"'topk'.*did you mean 'top-k'.*known: fp32"):
        compress_hook(nn.Linear(2, 1), "topk")
