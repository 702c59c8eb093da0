"""Short forms of the standing campaigns: damage is refused, kills cost nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _campaign(out: Path, *words: str) -> dict[str, dict[str, dict[str, object]]]:
    paths = os.pathsep.join((str(ROOT / "src"), str(ROOT)))
    done = subprocess.run(
        [sys.executable, "-m", "campaigns", *words, "--out", str(out)],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text("utf-8"))


@pytest.mark.parametrize(
    "kinds",
    [
        ("trace", "forged trace", "topology", "recipe"),
        ("checkpoint", "summary", "run configuration"),
        ("idx", "image", "choice file", "energy table"),
    ],
    ids=" ".join,
)
def test_damaged_files_end_in_one_line(tmp_path: Path, kinds: tuple[str, ...]) -> None:
    names = [f"poison/{kind}" for kind in kinds]
    found = _campaign(tmp_path / "found.json", *names, "--share", "0.014")
    assert set(found["poison"]) == set(kinds)
    for kind, row in found["poison"].items():
        assert row["bad"] == [], kind


def test_forged_files_and_hostile_names_end_in_one_line(tmp_path: Path) -> None:
    kinds = (
        *("forged ternary network", "forged sparse network", "sweep in CSV"),
        *("pickled cifar", "recipe in JSON", "table of digits", "names"),
    )
    names = [f"poison/{kind}" for kind in kinds]
    found = _campaign(tmp_path / "found.json", *names, "--share", "0.03")
    assert set(found["poison"]) == set(kinds)
    for kind, row in found["poison"].items():
        assert row["bad"] == [], kind


def test_killed_jobs_end_with_the_bytes_of_whole_ones(tmp_path: Path) -> None:
    found = _campaign(tmp_path / "found.json", "kills/train", "--share", "0.08")
    assert found["kills"]["train"]["bad"] == []
