"""The files of a run: their JSON Schemas and columns, from the declarations in the code.

``python docs/files.py`` writes the schemas that the package ships, and the tables of
``docs/files.md``, anew; ``--check`` writes nothing and fails where one differs.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from elision.report.places import filled, write_or_check
from elision.report.table import rows_as_markdown
from elision.study.schemas import FILES, TABLES, columns_of, schema

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "files.md"
SHIPPED = ROOT / "src" / "elision" / "study" / "schemas" / "json"


def shipped() -> dict[str, Any]:
    """Contents of the files that the package ships, by name."""
    found = {f"{_stem(file)}.schema.json": schema(file) for file in FILES}
    tables = {
        f"tables/{name}.csv" if name != "metrics" else "metrics.jsonl": [
            asdict(column) for column in columns_of(name)
        ]
        for name in TABLES
    }
    return {**found, "tables.json": tables}


def _stem(file: str) -> str:
    return Path(file).stem.removesuffix("-*")


def tables() -> dict[str, str]:
    """Tables of the page, by the name of their place in it."""
    found = {}
    for name in TABLES:
        if name != "metrics":
            found[f"{name}.csv"] = rows_as_markdown(
                [
                    {
                        "column": f"`{c.name}`",
                        "type": c.dtype,
                        "unit": c.unit,
                        "meaning": c.meaning + " *May be empty.*" * c.optional,
                    }
                    for c in columns_of(name, "METRIC")
                ]
            )
    for file in FILES:
        rows = list(_rows(schema(file), ""))
        found[file] = rows_as_markdown(rows)
    return found


def _rows(found: dict[str, Any], at: str) -> Any:
    """A row a property, nested ones under their path."""
    needed = found.get("required", [])
    for name, each in found.get("properties", {}).items():
        place = f"{at}.{name}" if at else name
        yield {
            "key": f"`{place}`",
            "type": _type(each),
            "meaning": each.get("description", "")
            + " *May be absent.*" * (name not in needed),
        }
        yield from _below(each, place)


def _below(each: dict[str, Any], place: str) -> Any:
    """Rows of what is in a property."""
    for option in each.get("anyOf", [each]):
        if "properties" in option:
            yield from _rows(option, place)
        elif isinstance(option.get("additionalProperties"), dict):
            yield from _below(option["additionalProperties"], f"{place}.*")


def _type(each: dict[str, Any]) -> str:
    """A type in words."""
    if "const" in each:
        return str(each["const"])
    if "enum" in each:
        return " or ".join(f"`{value}`" for value in each["enum"])
    if "anyOf" in each:
        return " or ".join(map(_type, each["anyOf"]))
    kind = each.get("type", "any")
    return " or ".join(kind) if isinstance(kind, list) else kind


def main() -> None:
    """Write the schemas and the tables."""
    SHIPPED.mkdir(exist_ok=True)
    schemas = {
        SHIPPED / name: json.dumps(content, indent=1) + "\n"
        for name, content in shipped().items()
    }
    write_or_check({**schemas, PAGE: filled(PAGE.read_text("utf-8"), tables())})


if __name__ == "__main__":
    main()
