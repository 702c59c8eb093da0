"""What the library computes on another device than the CPU is what it computes there."""

import os
import subprocess
import sys
from pathlib import Path


def test_everything_computes_the_same_on_another_device():
    # A process of its own: torch has an accelerator in it from then on.
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            str(Path(__file__).with_name("on_another_device.py")),
        ],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
