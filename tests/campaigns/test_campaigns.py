"""Short forms of the standing campaigns: damage is refused, kills cost nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _python(*words: str) -> str:
    """Run Python on the campaigns, in one thread, since they fork; what it printed."""
    paths = os.pathsep.join((str(ROOT / "src"), str(ROOT)))
    done = subprocess.run(
        [sys.executable, *words],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _campaign(out: Path, *words: str) -> dict[str, dict[str, dict[str, object]]]:
    _python("-m", "campaigns", *words, "--out", str(out))
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


@pytest.mark.parametrize(
    "kinds", [("train",), ("choice file", "machine code")], ids=" ".join
)
def test_killed_jobs_end_with_the_bytes_of_whole_ones(
    tmp_path: Path, kinds: tuple[str, ...]
) -> None:
    names = [f"kills/{kind}" for kind in kinds]
    found = _campaign(tmp_path / "found.json", *names, "--share", "0.1")
    assert {kind: row["bad"] for kind, row in found["kills"].items()} == {
        kind: [] for kind in kinds
    }


def test_of_two_at_once_both_end_well(tmp_path: Path) -> None:
    names = [f"pairs/{kind}" for kind in ("federate", "sweep")]
    found = _campaign(tmp_path / "found.json", *names, "--share", "0.3")["pairs"]
    assert {kind: row["bad"] for kind, row in found.items()} == {
        "federate": [],
        "sweep": [],
    }


#: Writes half a file, then the other half, and goes on from neither; two of it collide.
CARELESS = """
import sys, time
from campaigns.jobs import Job
from campaigns.kills import stopped
from campaigns.pairs import together

def run(folder):
    folder.mkdir(exist_ok=True)
    with (folder / "rows").open("a") as file:
        for _ in range(20):
            print("row", file=file, flush=True)
            time.sleep(0.01)

job = Job("careless", run)
print(bool(stopped(job, 3).bad), bool(together(job, 2).bad))
"""


def test_a_careless_job_is_found_out() -> None:
    assert _python("-c", CARELESS).split() == ["True", "True"]
