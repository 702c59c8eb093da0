"""Every package that the project asks for is declared, explained and licensed."""

import ast
import importlib.util
import re
import sys
import tomllib
from itertools import chain
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

import elision
from elision.common.extras import EXTRAS, found_extras

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))[
    "project"
]

#: Names of modules, where a package has another name.
MODULES = {
    "ai_edge_litert": "ai-edge-litert",
    "PIL": "pillow",
    "islpy": "islpy",
    "mlflow": "mlflow-skinny",
    "opacus": "opacus",
    "pynvml": "nvidia-ml-py",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "z3": "z3-solver",
}


@pytest.fixture
def page() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "dependencies_page", ROOT / "docs" / "dependencies.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_names_every_package_with_its_licence(page: ModuleType) -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (\S+) \| (.+?) \|", text, re.MULTILINE))
    asked = {r.name for found in page.requirements().values() for r in found}
    assert {page._same(name) for name in asked} <= set(rows)
    assert not [name for name, licence in rows.items() if not licence.strip()]


def test_every_package_of_the_core_has_its_reason(page: ModuleType) -> None:
    core = {requirement.name for requirement in page.requirements()[""]}
    assert core == set(page.WHY)


def test_a_licence_is_read_from_the_metadata(page: ModuleType) -> None:
    assert page.licence("pytest") == "MIT"
    with pytest.raises(SystemExit, match="no-such-package is not installed"):
        page.licence("no-such-package")


def test_every_extra_says_what_it_gives() -> None:
    assert set(EXTRAS) == set(PROJECT["optional-dependencies"]) - {"all"}


def test_all_is_every_extra_but_the_one_that_takes_minutes() -> None:
    lines = map(Requirement, PROJECT["optional-dependencies"]["all"])
    assert {extra for line in lines for extra in line.extras} == set(EXTRAS) - {
        "flower"
    }


def test_every_import_is_of_a_declared_package() -> None:
    lines = [
        *PROJECT["dependencies"],
        *chain.from_iterable(PROJECT["optional-dependencies"].values()),
    ]
    declared = {re.sub(r"[-_.]+", "-", Requirement(line).name) for line in lines}
    imported = set()
    for path in Path(elision.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.partition(".")[0])
    others = imported - set(sys.stdlib_module_names) - {"elision"}
    named = {MODULES.get(name, name.replace("_", "-")) for name in others}
    assert sorted(named - declared) == []


def test_an_extra_of_another_version_is_said() -> None:
    (found,) = found_extras(['pytest<1; extra == "timm"', 'numpy>=1; extra == "timm"'])
    assert not found.is_whole
    assert found.differs[0].endswith("where pytest<1 is needed")
    assert found.versions[0].startswith("numpy ")
