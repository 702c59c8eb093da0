"""The figures on the page about the kernels are those of its records."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kernel_tables.py"


def test_the_tables_are_those_of_the_records():
    if not SCRIPT.exists():
        pytest.skip("not a checkout")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
