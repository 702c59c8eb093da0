"""Help answers at once: it loads no tensor library, and nothing else that is large."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import run

from elision.cli import parameters
from elision.cli.declared import declared
from elision.cli.main import app

#: What takes a tenth of a second and more to import.
_LARGE = ("matplotlib", "numba", "numpy", "scipy", "skimage", "sklearn", "torch")

_IMPORT = f"""
import sys
import elision
print(set({_LARGE}) & set(sys.modules))
"""

_CHECK = """
import sys
from elision.cli.main import app
app({tokens!r}, result_action="return_value")
print(set({large}) & set(sys.modules))
"""

COMMANDS = (
    *(
        "study",
        "train",
        "federate",
        "trace",
        "simulate",
        "timeline",
        "size",
        "pipeline",
        "shapes",
    ),
    *("compare", "report", "serve", "memory", "bench", "doctor", "reproduce", "data"),
)
PAPERS = tuple(("reproduce", name) for name in parameters.papers())


@pytest.mark.parametrize("tokens", [(), *((name,) for name in COMMANDS), *PAPERS])
def test_help_loads_nothing_large(tokens: tuple[str, ...]) -> None:
    program = _CHECK.format(tokens=[*tokens, "--help"], large=_LARGE)
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "Usage: " in found.stdout
    assert found.stdout.splitlines()[-1] == "set()"


def test_the_list_of_commands_loads_no_reader_of_markdown() -> None:
    program = _CHECK.format(tokens=["--help"], large=("markdown_it",))
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert found.stdout.splitlines()[-1] == "set()"


def test_importing_the_library_loads_nothing_large() -> None:
    found = subprocess.run(
        [sys.executable, "-c", _IMPORT], capture_output=True, text=True, check=True
    )
    assert found.stdout == "set()\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands_and_flags(
    shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", f"/bin/{shell}")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert run("--install-completion") == 0
    written = "".join(p.read_text("utf-8") for p in tmp_path.rglob("*") if p.is_file())
    assert "doctor" in written
    assert "recipe" in written


def test_help_s_table_of_parameters_is_that_of_the_classes() -> None:
    written = json.loads(parameters.FILE.read_text(encoding="utf-8"))
    assert written == declared(), "run python -m elision.cli.declared"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (
            "study",
            ("swat: sparsity=0.9", "ant: multipliers=4", "speed: rounds=9", "bits:"),
        ),
        ("train", ("rigl: sparsity=0.9", "bits: average=4", "jpeg: table=8")),
        ("train", ("diloco: every=500", "top-k: share=")),
        ("federate", ("dirichlet: clients=10", "masks: bits=32", "late: share=0.3")),
        ("simulate", ("scnn: mapping=plane-pair", "systolic: rows=32")),
        ("size", ("intergrad: rows=32",)),
        ("timeline", ("systolic-mixed: rows=32",)),
    ],
)
def test_help_lists_what_can_be_named_and_its_parameters(
    command: str, said: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    app([command, "--help"], result_action="return_value")
    printed = " ".join(capsys.readouterr().out.split())
    for words in said:
        assert words in printed
