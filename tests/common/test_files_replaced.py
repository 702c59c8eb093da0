"""Files that appear whole or not at all, and what a killed process leaves."""

import logging
import os
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from elision.common import files, locking
from elision.common.files import (
    is_partial,
    remove_left_partials,
    replacing,
    write_json,
    write_text,
)
from elision.common.locking import alone_in, locked


def _dead_process() -> int:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def _half_written(path: Path) -> None:
    with replacing(path) as temporary:
        temporary.write_text("half")
        assert is_partial(temporary)
        raise ZeroDivisionError


def _entered(context: AbstractContextManager[None]) -> None:
    with context:
        raise AssertionError


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    write_json(path, {"a": 1})
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": float("nan")})
    with pytest.raises(ZeroDivisionError):
        _half_written(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_symbolic_link_is_replaced_and_never_written_through(tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    link = tmp_path / "report.html"
    link.symlink_to(mine)
    write_text(link, "the report")
    assert mine.read_text() == "mine"
    assert not link.is_symlink()
    assert link.read_text() == "the report"


def test_only_own_partials_of_dead_processes_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / "recipes" / "dense"
    folder.mkdir(parents=True)
    names = {
        f".checkpoint.safetensors.{_dead_process()}.0123abcd.elision-partial": False,
        f".checkpoint.safetensors.{os.getpid()}.0123abcd.elision-partial": True,
        f".trace.safetensors.{10**30}.0123abcd.elision-partial": False,
        ".film.mkv.partial": True,
        ".film.mkv.4711.partial": True,
        ".a.b.elision-partial": True,
        "trace.4711.0123abcd.elision-partial": True,
    }
    for name in names:
        (folder / name).write_text("")
    remove_left_partials(tmp_path)
    left = {path.name for path in folder.iterdir()}
    assert left == {name for name, stays in names.items() if stays}


def test_a_write_removes_what_killed_ones_left_of_the_same_file(tmp_path: Path) -> None:
    dead, end = _dead_process(), "0123abcd.elision-partial"
    names = {
        f".rows[1].csv.{dead}.{end}": False,
        f".rows[1].csv.{os.getpid()}.{end}": True,
        f".rows1.csv.{dead}.{end}": True,
        f".rows[1].csv.gz.{os.getpid()}.{end}": True,
    }
    for name in names:
        (tmp_path / name).write_text("half")
    write_text(tmp_path / "rows[1].csv", "whole")
    left = {path.name for path in tmp_path.iterdir()} - {"rows[1].csv"}
    assert left == {name for name, stays in names.items() if stays}


def test_a_large_folder_is_not_listed_at_every_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_FEW", 4)
    listed: list[str] = []
    names_in = os.listdir

    def counted(folder: str) -> list[str]:
        listed.append(folder)
        return names_in(folder)

    dead, end = _dead_process(), "0123abcd.elision-partial"
    of_one, of_other = f".one.json.{dead}.{end}", f".other.json.{dead}.{end}"
    for name in (of_one, of_other, *(f"{n}.json" for n in range(10))):
        (tmp_path / name).write_text("half")
    monkeypatch.setattr(os, "listdir", counted)
    write_text(tmp_path / "one.json", "whole")  # 12 names: three writes a listing
    assert not (tmp_path / of_one).exists()
    assert (tmp_path / of_other).exists(), "another file's, and maybe another machine's"
    write_text(tmp_path / "other.json", "whole")
    assert not (tmp_path / of_other).exists()
    (tmp_path / of_one).write_text("half")
    write_text(tmp_path / "two.json", "whole")
    assert len(listed) == 1
    write_text(tmp_path / "one.json", "whole")
    assert len(listed) == 2
    assert not (tmp_path / of_one).exists()


def test_a_long_wait_for_a_lock_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(locking, "_SILENT_SECONDS", 0.0)
    first = locked(tmp_path / "rows.lock")
    first.__enter__()

    class Told(logging.Handler):
        """Ends the first work as soon as the second says that it waits."""

        def emit(self, record: logging.LogRecord) -> None:
            del record
            first.__exit__(None, None, None)

    handler = Told()
    logging.getLogger("elision").addHandler(handler)
    try:
        with locked(tmp_path / "rows.lock"):
            assert "waiting for another process" in caplog.text
    finally:
        logging.getLogger("elision").removeHandler(handler)


def test_one_process_works_in_a_folder_and_the_other_is_told_so(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from elision.common.locking import alone_in\n"
        "with alone_in(Path(sys.argv[1])):\n"
        "    print('in', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "in\n"
        with pytest.raises(ValueError, match="another process is at work in it"):
            _entered(alone_in(tmp_path))
        other.kill()
    with alone_in(tmp_path):  # a killed process leaves no lock
        assert list(tmp_path.iterdir()) == []


def test_a_lock_file_is_no_way_through_a_link(tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    (tmp_path / "kernels.lock").symlink_to(mine)
    with pytest.raises(OSError, match="symbolic links"):
        _entered(locked(tmp_path / "kernels.lock"))
    assert not mine.exists()
