"""Short form of the campaign of numerics, and that its table leaves no kernel out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from campaigns.native import CASES

from campaigns import ends
from elision.native import shared_object

ROOT = Path(__file__).parents[2]

#: Functions that compute nothing that a result shows: they measure the machine.
ASIDE = {"multiply_adds", "triad", "chase"}


def test_every_kernel_is_called_by_a_case() -> None:
    called = {function for case in CASES.values() for function in case.functions}
    assert called == set(shared_object._SIGNATURES) - ASIDE


@pytest.mark.skipif(
    shared_object.unavailable() is not None, reason=str(shared_object.unavailable())
)
def test_kernels_agree_with_torch_and_know_the_ends_of_the_range(
    tmp_path: Path,
) -> None:
    best = shared_object.path().stem.split("-")[1]
    paths = os.pathsep.join((str(ROOT / "src"), str(ROOT)))
    out = tmp_path / "found.json"
    names = [f"numerics/{which}, {best}" for which in ("rounding", "ends")]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "campaigns",
            *names,
            "--share",
            "0.03",
            "--out",
            str(out),
        ],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text("utf-8"))["numerics"]
    for kind, row in found.items():
        assert row["bad"] == [], kind
        assert row["counts"]["agree"] > 100


@pytest.mark.parametrize("kind", ["codecs", "formats", "selections", "optimisers"])
def test_values_at_the_ends_of_the_range_have_a_defined_outcome(kind: str) -> None:
    row = getattr(ends, kind)(60, 1)
    assert row.bad == []
    assert sum(row.counts.values()) == 60
