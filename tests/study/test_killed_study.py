"""A study killed at any moment and started again ends with the same results."""

import json
import os
import subprocess
import sys
from pathlib import Path

import elision
from elision.common.files import is_partial

SCRIPT = Path(__file__).with_name("killed_study.py")


def test_killed_at_any_moment_ends_with_the_same_summary(tmp_path: Path) -> None:
    source = str(Path(elision.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    first, *killed, last = json.loads(done.stdout)
    assert first == last == 0, done.stderr
    assert killed.count(-9) >= 6
    assert set(killed) <= {-9, 0}, done.stderr
    whole, part = tmp_path / "whole", tmp_path / "part"
    names = {p.relative_to(whole) for p in whole.rglob("*") if p.is_file()}
    assert names == {p.relative_to(part) for p in part.rglob("*") if p.is_file()}
    assert not any(is_partial(name) for name in names)
    for name in (
        "summary.json",
        "metrics.jsonl",
        "trace.safetensors",
        "tables/costs.csv",
    ):
        assert (whole / name).read_bytes() == (part / name).read_bytes(), name
