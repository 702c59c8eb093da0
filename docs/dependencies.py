"""The licences of all dependencies, read from the metadata of what is installed.

``python docs/dependencies.py`` writes the tables of ``docs/dependencies.md`` anew;
``--check`` fails where they differ. Every package that ``pyproject.toml`` names must be
installed, with all extras.
"""

import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from elision.common.extras import EXTRAS
from elision.report.places import filled, write_or_check
from elision.report.table import rows_as_markdown

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "dependencies.md"

#: What the core needs each of its packages for.
WHY = {
    "cyclopts": "the command line",
    "jinja2": "the report's page, and C of exported networks",
    "matplotlib": "figures",
    "numba": "compiled simulators",
    "numpy": "arrays of simulators, formats and traces",
    "packaging": "whether the installed versions fit, for `elision doctor`",
    "pillow": "images of data sets and reports",
    "rich": "progress bars",
    "safetensors": "traces and checkpoints, without pickles",
    "scikit-image": "the photographs of the default workload",
    "scikit-learn": "the digits of the small workload",
    "scipy": "integer programs, and tests of significance",
    "torch": "training",
}

_LONGEST = 60  # characters of a name of a licence; what is longer is its text


def requirements() -> dict[str, list[Requirement]]:
    """What ``pyproject.toml`` asks for: of the core, under "", by extra and by group."""
    text = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project, groups = text["project"], text["dependency-groups"]
    asked = {"": project["dependencies"]}
    asked |= {f"[{e}]": lines for e, lines in project["optional-dependencies"].items()}
    asked |= {f"group {g}": lines for g, lines in groups.items()}
    return {
        where: [Requirement(line) for line in lines if isinstance(line, str)]
        for where, lines in asked.items()
        if where not in ("[all]", "group dev")
    }


def licence(package: str) -> str:
    """The licence of an installed package, as its metadata names it.

    Raises:
        SystemExit: it is not installed, or its metadata names none.
    """
    try:
        found = metadata.metadata(package)
    except metadata.PackageNotFoundError:
        sys.exit(f"{package} is not installed; its licence is read from its metadata")
    classifiers = [
        line.rpartition(" :: ")[2]
        for line in found.get_all("Classifier") or []
        if line.startswith("License ::") and not line.endswith("OSI Approved")
    ]
    (named, expression) = (
        (found.get_all(field) or [""])[0].strip()
        for field in ("License", "License-Expression")
    )
    short = named if 0 < len(named) <= _LONGEST and "\n" not in named else ""
    told = expression or short or ", ".join(classifiers)
    if not told:
        sys.exit(f"{package}: its metadata names no licence")
    return told.rpartition(" :: ")[2]


def brought(packages: Iterable[str]) -> list[str]:
    """What these packages ask for in turn, here, but for themselves and GPU libraries."""
    known = {_same(package) for package in packages}
    found: set[str] = set()
    waiting = sorted(known)
    while waiting:
        for line in metadata.requires(waiting.pop()) or []:
            asked = Requirement(line)
            name = _same(asked.name)
            needed = asked.marker is None or asked.marker.evaluate({"extra": ""})
            if needed and name not in known | found and not _of_a_gpu(name):
                found.add(name)
                waiting.append(name)
    return sorted(found)


def _of_a_gpu(name: str) -> bool:
    return name.startswith(("nvidia-", "cuda-")) or name == "triton"


def _same(name: str) -> str:
    """A package's name, of which several spellings are one."""
    return re.sub(r"[-_.]+", "-", name).lower()


def tables() -> dict[str, str]:
    """The tables of the page, by the name of their place in it."""
    asked = requirements()
    core = {_same(r.name): str(r.specifier) for r in asked[""]}
    extras: dict[str, list[str]] = {}
    groups: dict[str, list[str]] = {}
    for where, found in asked.items():
        for name in (_same(requirement.name) for requirement in found):
            if where.startswith("["):
                extras.setdefault(name, []).append(where)
            elif where:
                groups.setdefault(name, []).append(where.removeprefix("group "))
    return {
        "core": _table({name: WHY[name] for name in core}, "for"),
        "extras": _table({n: _gives(wheres) for n, wheres in extras.items()}, "for"),
        "brought": _table({name: "" for name in brought(core)}, ""),
        "development": _table(
            {n: ", ".join(g) for n, g in groups.items() if n not in {**core, **extras}},
            "group",
        ),
    }


def _gives(extras: list[str]) -> str:
    return "; ".join(f"`{extra}`: {EXTRAS[extra.strip('[]')]}" for extra in extras)


def _table(packages: Mapping[str, str], column: str) -> str:
    return rows_as_markdown(
        [
            {"package": name, "licence": licence(name)}
            | ({column: why} if column else {})
            for name, why in sorted(packages.items())
        ]
    )


def main() -> None:
    """Write the tables into the page."""
    write_or_check({PAGE: filled(PAGE.read_text("utf-8"), tables())})


if __name__ == "__main__":
    main()
