"""The trial of the oldest and newest dependencies misses no extra and no failure."""

import subprocess
import sys
from pathlib import Path

from campaigns.dependencies import TESTS, counts, declared

ROOT = Path(__file__).parents[2]


def test_what_every_extra_gives_is_tried_by_tests_that_exist() -> None:
    assert set(TESTS) == set(declared())
    missing = {p for paths in TESTS.values() for p in paths if not (ROOT / p).exists()}
    assert missing == set()


def test_all_packages_of_the_project_are_named() -> None:
    found = declared()
    assert {"torch", "scikit-learn"} <= set(found[""])
    assert found["onnx-runtime"] == ["onnx", "onnxruntime", "onnxscript"]


def test_failures_and_errors_of_tests_are_counted_with_their_reason(
    tmp_path: Path,
) -> None:
    (tmp_path / "test_some.py").write_text(
        "import pytest\n"
        "def test_good(): pass\n"
        "def test_bad(): assert 1 == 2, 'not equal'\n"
        "@pytest.fixture\n"
        "def broken(): raise OSError('no disk')\n"
        "def test_error(broken): pass\n"
        "@pytest.mark.skip\n"
        "def test_left_out(): pass\n"
    )
    report = tmp_path / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", f"--junit-xml={report}"]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    totals, failures = counts(report.read_text("utf-8"))
    assert totals == {"passed": 1, "failed": 2, "skipped": 1}
    assert [line.partition(": ")[0] for line in failures] == [
        "test_some::test_bad",
        "test_some::test_error",
    ]
    assert "not equal" in failures[0]
    assert "no disk" in failures[1]


def test_an_environment_of_another_name_is_refused() -> None:
    command = [sys.executable, "-m", "campaigns.dependencies", "latest"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "unknown environment 'latest'; known: oldest/core" in done.stderr
