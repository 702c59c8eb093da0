"""Three processes exchange tensors with checksums."""

import os
import subprocess
import sys
from pathlib import Path

import elision

SCRIPT = Path(__file__).with_name("wire_ranks.py")


def test_three_ranks_add_gather_and_name_what_changed(tmp_path: Path) -> None:
    source = str(Path(elision.__file__).parents[1])
    ranks = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(rank), str(tmp_path)],
            env={**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(3)
    ]
    try:
        errors = [rank.communicate(timeout=180)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0, 0], "\n".join(errors)
