"""An interruption is one line, wherever it falls."""

import os
import signal
import subprocess
import sys
import time

import pytest

from elision.cli import main as command_line


def _interrupt_in_a_callback() -> None:
    class Lost:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            sum(range(1000))  # the handler runs here, where its exception is ignored

    Lost()
    time.sleep(10)
    raise AssertionError("the interruption was lost")


def test_an_interruption_in_a_callback_of_python_is_not_lost(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command_line, "_run", lambda _: _interrupt_in_a_callback())
    with pytest.raises(SystemExit) as end:
        command_line.main(["study"])
    assert end.value.code == 1
    said = capsys.readouterr().err
    assert said == "elision: interrupted; the same command continues\n"


def test_an_interruption_while_the_command_line_loads_is_one_line() -> None:
    script = (
        "import importlib.abc, sys\n"
        "class Interrupts(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'cyclopts': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupts())\n"
        "from elision.__main__ import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 130
    assert done.stderr == "elision: interrupted before it began\n"


def test_a_message_moves_no_cursor_and_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> None:
        raise ValueError("\x1b[2J" + "x" * 100_000 + "\u202eend")

    monkeypatch.setattr(command_line, "_run", fail)
    with pytest.raises(SystemExit):
        command_line.main(["study"])
    said = capsys.readouterr().err
    assert said.startswith("elision: \\x1b[2Jxxx")
    assert said.endswith("xxx\\u202eend\n")
    assert len(said) < 2100
