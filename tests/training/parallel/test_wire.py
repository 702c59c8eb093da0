"""Three processes exchange tensors with checksums."""

from pathlib import Path

from processes import run_ranks

SCRIPT = Path(__file__).with_name("wire_ranks.py")


def test_three_ranks_add_gather_and_name_what_changed(tmp_path: Path) -> None:
    run_ranks(SCRIPT, 3, str(tmp_path))
