"""The commit that a run folder and its report name."""

import json
import shutil
import subprocess
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from elision.study import folder as runfolder
from elision.study.folder import commit_of


def git(folder: Path, *words: str) -> str:
    named = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(folder), *named, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_commit_of_a_clone_and_of_nothing_else(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    assert commit_of(package) is None  # in no clone
    git(tmp_path, "init", "-q")
    assert commit_of(package) is None  # below somebody's clone, and no part of it
    git(tmp_path, "add", "package")
    git(tmp_path, "commit", "-q", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD").strip()
    found = commit_of(package)
    assert found is not None
    assert commit.startswith(found)
    (package / "__init__.py").write_text("changed = True\n")
    assert commit_of(package) == f"{found}-dirty"


def test_a_run_names_the_day_that_it_began(tmp_path: Path) -> None:
    with runfolder.claimed(tmp_path / "run", {"workload": "digits-mlp"}):
        pass
    env = json.loads((tmp_path / "run" / "env.json").read_text())
    assert date.fromisoformat(env["started"]) <= datetime.now(UTC).date()
