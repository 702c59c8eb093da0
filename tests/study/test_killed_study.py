"""A study killed at any moment and started again ends with the same results."""

from pathlib import Path

from killed import same_files_after_kills

SCRIPT = Path(__file__).with_name("killed_study.py")


def test_killed_at_any_moment_ends_with_the_same_summary(tmp_path: Path) -> None:
    same_files_after_kills(SCRIPT, tmp_path, least=6)
    whole, part = tmp_path / "whole", tmp_path / "part"
    for name in (
        "summary.json",
        "metrics.jsonl",
        "trace.safetensors",
        "tables/costs.csv",
    ):
        assert (whole / name).read_bytes() == (part / name).read_bytes(), name
