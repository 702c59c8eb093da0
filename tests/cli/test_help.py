"""Help answers at once: it loads no tensor library."""

import subprocess
import sys

import pytest

_CHECK = """
import sys
from elision.cli.main import app
app({tokens!r}, result_action="return_value")
print("torch" in sys.modules)
"""

COMMANDS = (
    *("study", "train", "trace", "simulate", "timeline", "size", "shapes"),
    *("compare", "bench", "data"),
)


@pytest.mark.parametrize("tokens", [(), *((name,) for name in COMMANDS)])
def test_help_does_not_load_torch(tokens: tuple[str, ...]) -> None:
    program = _CHECK.format(tokens=[*tokens, "--help"])
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "Usage: " in found.stdout
    assert found.stdout.splitlines()[-1] == "False"
