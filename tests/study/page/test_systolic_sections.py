"""The report's sections on systolic arrays, from a study that is never trained."""

import re
from types import SimpleNamespace

import pytest
import torch

from elision.accelerators import ACCELERATORS
from elision.accelerators.simulate import simulate
from elision.accelerators.step import blind_products, products_cost
from elision.common.specs import build
from elision.products import OPERANDS, Conv2dGeometry, LayerProduct, Trace
from elision.products.describe import count
from elision.study.page.sections.costs import costs
from elision.study.page.sections.timeline import timeline
from elision.study.page.sections.zeros import zeros

LAYERS = [
    ("first", Conv2dGeometry(1, 3, 8, 8, 8, 3, padding=1)),
    ("second", Conv2dGeometry(1, 8, 8, 8, 8, 3, padding=1)),
]
ARRAYS = ("systolic", "intergrad", "intergrad:zero_gating=true")
RECIPE = "swat:sparsity=0.9"


def recorded(density):
    generator = torch.Generator().manual_seed(0)
    products = []
    for p in blind_products(LAYERS):
        shapes = {name: p.geometry.shape_of(name) for name in OPERANDS}
        operands = [
            torch.randn(shapes[name], generator=generator)
            * (torch.rand(shapes[name], generator=generator) < density)
            for name in p.kind.operands
        ]
        products.append(LayerProduct(p.kind, p.geometry, *operands, name=p.name))
    return products


def study_of(accelerators):
    products = recorded(0.2)
    machines = {spec: build("accelerator", spec, ACCELERATORS) for spec in accelerators}
    outcome = SimpleNamespace(
        spec=RECIPE,
        products=list(count(products)),
        costs=list(simulate(products, machines)),
    )
    trace = Trace()
    trace.extend(Trace.of(products), recipe=RECIPE)
    config = SimpleNamespace(
        accelerators=accelerators, recipes=(RECIPE,), record=1, samples=1
    )
    return SimpleNamespace(config=config, outcomes=[outcome], trace=trace)


@pytest.fixture(scope="module")
def study():
    return study_of((*ARRAYS, "scnn", "ant"))


def cells(section):
    table = section.sheets[-1]
    rows = re.findall("<tr>(.*?)</tr>", table)
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]


def test_the_zeros_of_every_machine_are_in_the_table(study):
    head, *rows = cells(zeros(study))
    found = {row[1]: dict(zip(head, row, strict=True)) for row in rows}
    assert list(found) == [*ARRAYS, "scnn", "ant"]
    macs = sum(row.dense_macs for row in study.outcomes[0].products)
    valid = sum(row.valid for row in study.outcomes[0].products)
    assert found["systolic"]["zeros"] == f"{macs - valid:,}"
    gated = found["intergrad:zero_gating=true"]
    assert gated["zeros"] == found["scnn"]["zeros"] == "0"
    assert gated["cycles"] == found["intergrad"]["cycles"]
    assert found["scnn"]["redundant"] != "0"
    assert sum("cycles" in row["least"] for row in found.values()) >= 1
    # One unit of energy on the page.
    assert {name for name in head if "J" in name} == {"energy on chip, µJ"}
    assert "energy on chip, µJ" in cells(costs(study))[0]


def test_interleaved_gradients_are_in_the_dots_of_the_costs(study):
    figure = costs(study).sheets[0]
    assert "input_grad+weight_grad" in figure
    assert "input_grad+weight_grad" not in costs(study_of(("dense",))).sheets[0]


def test_the_timeline_shows_each_array_that_differs(study):
    (figure,) = timeline(study).sheets
    machines = ("systolic", "intergrad")
    products = [p for p in recorded(0.2) if p.name == "second"]
    for spec in machines:
        machine = build("accelerator", spec, ACCELERATORS)
        cycles = products_cost(machine, products).cycles
        assert f"{spec}: {cycles:,} cycles" in figure
    assert figure.count("font-weight") == len(machines)  # gating changes no cycle


def test_studies_without_an_array_have_neither_section():
    without = study_of(("dense", "scnn"))
    assert zeros(without) is None
    assert timeline(without) is None


def test_energy_stands_in_columns_of_equal_scope() -> None:
    shown = costs(study_of((*ARRAYS, "scnn", "ant")))
    head, *rows = cells(shown)
    found = {row[1]: dict(zip(head, row, strict=True)) for row in rows}
    assert not any("in all" in name for name in head)
    assert {machine for machine, row in found.items() if row["DRAM, µJ"]} == {*ARRAYS}
    assert all(row["energy on chip, µJ"] for row in found.values())
    *_, off_chip, _ = shown.sheets
    assert "energy of DRAM over that of" in off_chip
    assert ">scnn<" not in off_chip
    assert "they compare on chip alone" in shown.note


def test_a_total_is_shown_where_every_machine_has_one() -> None:
    head, *rows = cells(costs(study_of(("systolic", "intergrad"))))
    for row in rows:
        on_chip, off_chip, total = (
            float(dict(zip(head, row, strict=True))[name].replace(",", ""))
            for name in ("energy on chip, µJ", "DRAM, µJ", "energy in all, µJ")
        )
        assert total == pytest.approx(on_chip + off_chip, rel=2e-3)  # four digits each


def test_machines_without_a_dram_have_no_column_of_it() -> None:
    shown = costs(study_of(("dense", "ant")))
    head, *_ = cells(shown)
    assert head[-1] == "energy on chip, µJ"
    assert len(shown.sheets) == 3
    assert "DRAM" not in shown.note
