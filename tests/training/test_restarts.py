"""A rank is killed in the middle of a step; torchrun starts the run again."""

from pathlib import Path

import pytest
import torch
from processes import torchrun

from elision.common.files import load_tensors
from elision.training.checkpoint import CHECKPOINT

SCRIPT = Path(__file__).with_name("killed_rank.py")

EPOCHS, PER_EPOCH = 3, 4
WORKLOAD = f"""
[workload]
name = "small"
dataset = "digits"
model = "cnn"
epochs = {EPOCHS}
train_images = {48 * PER_EPOCH}
test_images = 64
batch_size = 48
"""

CASES = {
    "plain": ("dense",),
    "feedback": ("dense", "--compress", "top-k:share=0.05"),
    "moving-mask": (
        *("rigl:sparsity=0.8,every=3,until=12", "--compress", "powersgd:rank=2"),
    ),
}


def restarted(folder: Path, killed_at: int, *arguments: str) -> Path:
    """A run of two processes, one of which is killed; its run folder.

    The other one says that the connection is gone, and not how DDP heard of it.
    """
    folder.mkdir()
    workload = folder / "small.toml"
    workload.write_text(WORKLOAD)
    done = torchrun(
        *(str(SCRIPT), str(folder), str(killed_at), "train", *arguments),
        *("--workload", str(workload), "--engine", "torch"),
        *("--out", str(folder / "run")),
        options=("--max-restarts=1", "--monitor-interval=0.1"),
    )
    assert "running the callback" not in done.stderr
    return folder / "run"


def steps(folder: Path) -> dict[str, int]:
    """Steps of each process, by attempt and rank."""
    return {p.name: int(p.read_text()) for p in folder.glob("attempt*")}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_rank_killed_within_a_step_leaves_no_trace(case: str, tmp_path: Path) -> None:
    """The same weights, masks, momenta, memories and metrics, to the last bit."""
    whole = restarted(tmp_path / "whole", 0, *CASES[case])
    again = restarted(tmp_path / "killed", PER_EPOCH + 2, *CASES[case])
    # The first attempt ended in the second epoch; the other began from its start.
    found = steps(tmp_path / "killed")
    left = PER_EPOCH * (EPOCHS - 1)
    assert found["attempt0-rank1"] == PER_EPOCH + 2
    assert found["attempt1-rank0"] == found["attempt1-rank1"] == left
    assert steps(tmp_path / "whole")["attempt0-rank0"] == PER_EPOCH * EPOCHS

    (expected, facts), (tensors, found_facts) = (
        load_tensors(next(each.rglob(CHECKPOINT)), "checkpoint")
        for each in (whole, again)
    )
    assert facts == found_facts
    assert tensors.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(tensors[name], value), name
    remembered = [name for name in expected if name.startswith("rank1/compress/")]
    assert bool(remembered) == ("--compress" in CASES[case])
    masks = [name for name in expected if name.endswith("mask")]
    assert bool(masks) == ("rigl" in CASES[case][0])
