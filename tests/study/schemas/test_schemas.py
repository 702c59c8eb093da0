"""Every file of a run fits its schema, every table its columns; a wrong one does not."""

import copy
import csv
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from elision.study import StudyConfig, study
from elision.study.schemas import FILES, TABLES, CsvColumn, columns_of, schema
from elision.study.schemas.described import schema_of
from elision.workloads import Workload

jsonschema = pytest.importorskip("jsonschema")

ROOT = Path(__file__).parents[3]
SMALL = Workload(
    name="small",
    dataset="digits",
    model="mlp",
    epochs=1,
    train_images=64,
    test_images=10,
    batch_size=16,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    config = StudyConfig(
        workload=SMALL,
        recipes=("dense", "swat"),
        accelerators=("dense", "systolic"),
        probes=("memory:policy=bits(4)",),
        seeds=2,
        memory="bits(4)",
    )
    study(config, folder)
    return folder


@pytest.fixture(scope="module")
def page() -> ModuleType:
    path = ROOT / "docs" / "files.py"
    spec = importlib.util.spec_from_file_location("files_page", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _wrong(content: Any) -> Iterator[Any]:
    """The content without a key, with a further one, of another version."""
    for key in content:
        yield {k: v for k, v in content.items() if k != key}
    yield {**content, "schema": 2}
    yield [content]


def test_every_json_file_has_a_schema_and_fits_it(run: Path) -> None:
    known = {path for file in FILES for path in run.glob(file)}
    assert known == set(run.rglob("*.json"))
    for file in FILES:
        found = sorted(run.glob(file))
        assert found, file
        validator = jsonschema.Draft202012Validator(schema(file))
        validator.check_schema(schema(file))
        for path in found:
            validator.validate(json.loads(path.read_text()))


@pytest.mark.parametrize("file", [f for f in FILES if "probe" not in f])
def test_a_wrong_file_does_not_fit(run: Path, file: str) -> None:
    validator = jsonschema.Draft202012Validator(schema(file))
    path, *_ = sorted(run.glob(file))
    content = json.loads(path.read_text())
    optional = set(content) - set(schema(file)["required"])
    content = {k: v for k, v in content.items() if k not in optional}
    assert validator.is_valid(content)
    assert not [wrong for wrong in _wrong(content) if validator.is_valid(wrong)]
    assert not validator.is_valid({**content, "of no meaning": 1})


def test_a_wrong_value_deep_in_a_summary_does_not_fit(run: Path) -> None:
    validator = jsonschema.Draft202012Validator(schema("summary.json"))
    summary = json.loads((run / "summary.json").read_text())
    for spoil in (
        lambda s: s["accelerators"]["dense"]["swat"]["total"].update(cycles="many"),
        lambda s: s["recipes"]["swat"].update(test_accuracy="good"),
        lambda s: s["recipes"]["swat"]["products"]["forward"].pop("macs_ratio"),
    ):
        wrong = copy.deepcopy(summary)
        spoil(wrong)
        assert not validator.is_valid(wrong)


def _fits(cell: str, column: CsvColumn) -> bool:
    if not cell:
        return column.optional
    try:
        {"text": str, "integer": int, "number": float}[column.dtype](cell)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("table", [t for t in TABLES if t != "metrics"])
def test_every_table_has_the_columns_that_are_declared(run: Path, table: str) -> None:
    with (run / "tables" / f"{table}.csv").open() as file:
        rows = list(csv.DictReader(file))
    declared = columns_of(table)
    assert list(rows[0]) == [c.name for c in declared]
    for row in rows:
        assert all(_fits(row[c.name], c) for c in declared)
    assert {p.stem for p in (run / "tables").iterdir()} == set(TABLES) - {"metrics"}
    assert all(c.meaning for c in declared)


def test_lines_of_metrics_are_rows_of_epochs(run: Path) -> None:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    names = {column.name for column in columns_of("metrics")}
    assert all(set(json.loads(line)) == names for line in lines)


def test_shipped_schemas_and_the_page_are_those_of_the_code(page: ModuleType) -> None:
    shipped = page.shipped()
    assert {path.name for path in page.SHIPPED.iterdir()} == set(shipped)
    for name, content in shipped.items():
        text = (page.SHIPPED / name).read_text()
        assert json.loads(text) == json.loads(json.dumps(content)), (
            "python docs/files.py"
        )
    text = page.PAGE.read_text()
    assert all(table in text for table in page.tables().values()), (
        "python docs/files.py"
    )


def test_a_type_that_json_does_not_have_is_refused() -> None:
    with pytest.raises(TypeError, match="JSON has no such type"):
        schema_of(complex)


@pytest.mark.parametrize(("of", "known"), [(schema, FILES), (columns_of, TABLES)])
def test_an_unknown_name_is_answered_with_the_known_ones(of: Any, known: Any) -> None:
    with pytest.raises(ValueError, match=r"unknown .* of a run 'cost'") as error:
        of("cost")
    assert all(name in str(error.value) for name in known)
