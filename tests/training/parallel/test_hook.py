"""Two processes train over gloo with compressed gradients."""

from pathlib import Path

import pytest
from processes import run_ranks
from torch import nn

from elision.training.parallel import compress_hook

SCRIPT = Path(__file__).with_name("compress_ranks.py")


def test_two_ranks_conserve_agree_resume_and_refuse(tmp_path: Path) -> None:
    run_ranks(SCRIPT, 2, str(tmp_path))


def test_what_is_no_ddp_is_refused() -> None:
    with pytest.raises(ValueError, match="Linear is no DistributedDataParallel"):
        compress_hook(nn.Linear(2, 1), "bf16")


def test_unknown_compressors_list_the_known() -> None:
    with pytest.raises(ValueError, match=r"'topk'.*did you mean 'top-k'.*known: fp32"):
        compress_hook(nn.Linear(2, 1), "topk")
