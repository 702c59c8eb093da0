"""The names of ``import elision``, as Python loads them and as a type checker reads them."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import elision

SOURCE = Path(elision.__file__).parents[1]

RIGHT = """\
from typing import assert_type

from torch import nn

import elision


class Net(nn.Module):
    pass


model = Net()
assert_type(elision.elide(model, elision.methods.Swat(0.9)), Net)
assert_type(elision.elide(model, "swat:sparsity=0.9"), Net)
assert_type(elision.restore(model), Net)
assert_type(elision.Product.FORWARD.operands, tuple[str, str])
elision.layers.elide(model, elision.recipe.Recipe("none", elision.recipe.Table({})))
with elision.record(model) as trace:
    assert_type(trace, elision.Trace)
print(elision.products.Product.FORWARD, elision.simulation.simulate, elision.trace.Trace)
"""

#: Every line is wrong.
WRONG = """\
import elision; elision.elide(3, elision.methods.Dense())
import elision, torch; elision.elide(torch.nn.ReLU(), 0.9)
import elision, torch; elision.elide(torch.nn.ReLU(), elision.methods.Dense(), engine=7)
import elision; elision.Product.SIDEWAYS
import elision; elision.methods.Swat(sparsty=0.9)
import elision; elision.nothing
"""

#: Prints the names that do not load; every name meets a package that has loaded nothing.
EACH_ALONE = """\
import os, sys, torch._dynamo, elision
assert not [name for name in sys.modules if name.startswith("elision.")]
for name in elision.__all__:
    process = os.fork()
    if not process:
        getattr(elision, name)
        os._exit(0)
    if os.waitpid(process, 0)[1]:
        print(name)
"""

CHECKERS = {
    "basedpyright": ["basedpyright", "--level", "error"],
    "mypy": ["mypy", "--follow-imports=silent", "--check-untyped-defs"],
}


@pytest.mark.parametrize("checker", CHECKERS)
def test_a_checker_accepts_what_is_right_and_names_every_wrong_line(
    checker: str, tmp_path: Path
) -> None:
    if find_spec(checker) is None:
        pytest.skip(f"{checker} is not installed")
    (tmp_path / "right.py").write_text(RIGHT)
    (tmp_path / "wrong.py").write_text(WRONG)
    found = subprocess.run(
        [sys.executable, "-m", *CHECKERS[checker], "right.py", "wrong.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(SOURCE), "MYPYPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
    )
    errors = [line for line in found.stdout.splitlines() if " error: " in line]
    assert not [line for line in errors if "right.py" in line]
    places = {line.split("wrong.py:")[1].split(":")[0] for line in errors}
    assert places == {str(n + 1) for n in range(len(WRONG.splitlines()))}, found.stdout


def test_the_types_ship_with_the_package() -> None:
    assert (SOURCE / "elision/py.typed").is_file()


def test_every_name_works_after_a_bare_import() -> None:
    found = subprocess.run(
        [sys.executable, "-c", EACH_ALONE], capture_output=True, text=True, check=False
    )
    assert found.stderr == ""
    assert found.stdout == "", "these names do not load alone"
    assert set(elision.__all__) <= set(dir(elision))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'elision' has no attribute 'nothing'"):
        _ = elision.nothing  # pyright: ignore[reportAttributeAccessIssue]
