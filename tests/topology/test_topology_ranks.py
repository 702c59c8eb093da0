"""Two processes keep the masks that one process with both halves would."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sparse_models import MOVING, gradient, sgd, small_net

import elision

SCRIPT = Path(__file__).with_name("topology_ranks.py")
SHARED = Path(__file__).parents[1] / "shared"


def masks_of_one_process(name):
    """Digest and number of active weights after the same steps on whole batches."""
    model = elision.elide(small_net(), MOVING[name], engine="torch").eval()
    optimizer = sgd(model)
    topology = elision.topology.attach(model, optimizer)
    for step in range(7):
        gradient(model, optimizer, step)
        optimizer.step()
    assert any(move.grown for move in topology.history)
    return [name, topology.digest(), str(topology.nnz)]


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("ddp", ["set", "rigl", "snfs", "dsr", "srigl"]),
        ("fsdp2", ["rigl", "snfs"]),
        ("zero", ["set", "rigl", "dsr", "srigl"]),
    ],
)
def test_two_ranks_move_their_masks_as_one(kind, names, tmp_path):
    source = Path(elision.__file__).parents[1]
    ranks = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(tmp_path), kind, *names],
            env={
                **os.environ,
                "RANK": str(rank),
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": os.pathsep.join([str(source), str(SHARED)]),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [rank.communicate(timeout=240) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], outputs
    printed = [line.split() for line in outputs[0][0].splitlines()]
    assert printed == [masks_of_one_process(name) for name in names]
