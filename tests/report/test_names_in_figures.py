"""Names of a user's own in figures, tables and pages: text, whatever they hold."""

import csv
import io
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from elision.accelerators.design.rows import ALL, SPARSITIES
from elision.common.files import to_csv
from elision.products import MatmulGeometry, Trace, synthetic_products
from elision.report.charts import accuracy_curves, density_map
from elision.report.energy_figure import energy_curves
from elision.report.layer_figures import utilisation_map
from elision.report.pipeline_figure import pipeline_svg
from elision.report.recipe_dots import recipe_dots
from elision.report.search_figure import search_front
from elision.report.style import drawing, marks_of, svg
from elision.report.sweep_figure import sweep_svg
from elision.report.table import rows_as_html, rows_as_text
from elision.report.tradeoff_figure import Tradeoff, Tradeoffs, tradeoff_figure
from elision.study.page.sections.timeline import timeline
from elision.training.pipeline import LayerCost, plan

NAMES = (
    "$\\frac{$",
    "$x$",
    "<script>alert(1)</script>",
    "a & b",
    "=1+1",
    "layer\x1b[31m",
    "layer\u202e1",
)


@pytest.mark.filterwarnings("ignore:Glyph")  # the typeface has no escape character
@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_drawn_as_it_is(name: str) -> None:
    values = {name: np.array([[0.5, 0.25]])}
    drawn = recipe_dots(
        [name, "b"], [name], values, marks_of([name]), unit=name, scale="share"
    )
    assert "<script" not in drawn
    texts = [element.text for element in ElementTree.fromstring(drawn).iter()]
    shown = name.replace("\x1b", "\ufffd").replace("\u202e", "\ufffd")
    assert texts.count(shown) == 4  # legend, row, title of the panel, unit
    assert f"{shown}; {shown}" in texts  # the drawing's own title
    assert f"{shown}, {shown}, {shown}: 50.0 %" in texts  # of a dot
    assert "\x1b" not in rows_as_text([{"layer": name}])
    assert "<script" not in rows_as_html([{"layer": name}])


@pytest.mark.filterwarnings("error")  # matplotlib warns when names leave no room
def test_a_long_name_leaves_room_for_what_is_drawn() -> None:
    name = ",".join(["rigl:sparsity=0.9", *["distribution=uniform"] * 20])
    marks, shares = marks_of([name, "dense"]), np.array([[0.5, 0.25]])
    dot = Tradeoff(0.5, 0.9, None, name)
    both = {name: shares, "dense": shares}
    drawn = [
        accuracy_curves({name: [0.5]}, {name: [1.0]}, {}, marks),
        energy_curves({name: [0.5]}, {name: [1.0]}, {name: [(1.0, 2.0)]}, marks),
        recipe_dots(["a", "b"], [name], both, marks, unit="work", scale="share"),
        density_map(["a"], ["Y\nX", "Y\nW"], both),
        utilisation_map(["a"], [("ant", "Y"), ("ant", "dW")], both),
        tradeoff_figure(
            Tradeoffs(
                {name: dot}, [name], marks, title="Accuracy", unit="work", percent=True
            )
        ),
    ]
    for figure in drawn:
        texts = re.findall(r"<text[^>]*>([^<]*)<", figure)
        assert any("distribution=uniform" in text for text in texts)
        assert max(map(len, texts)) < 150
    row, short = rows_as_html([{"recipe": name}]), rows_as_html([{"recipe": "a,b"}])
    assert '<td class="word long">rigl:<wbr>sparsity=0.9,<wbr>' in row
    assert '<td class="word">a,b</td>' in short


def test_powers_on_axes_are_text() -> None:
    with drawing(4, 3) as figure:
        axes = figure.subplots()
        axes.plot([1e-3, 1, 1e4], [1, 2, 8])
        axes.set_xscale("log")
        axes.set_yscale("log", base=2)
        drawn = svg(figure)
    assert ">10⁻²<" in drawn
    assert ">2³<" in drawn
    assert "mathdefault" not in drawn


def _search(cost: float) -> str:
    return search_front(
        [(cost / 4, 1.0), (cost, 0.0)],
        (cost, 0.0),
        [("dense", 1.0, 0.9)],
        cost="macs",
        unit="MAC",
        budget=cost,
        metric="accuracy",
    )


def _pipeline(cost: float) -> str:
    layer = LayerCost(cost, cost, cost, unit="cycles")
    return pipeline_svg([plan([layer] * 2, 2, "1f1b", 2).panel()])


def _bars(cost: float) -> str:
    row = {"network": "net", "product": ALL, "machine": "ant", "cycles": f"{cost:.0f}"}
    return sweep_svg([dict.fromkeys((*SPARSITIES, "multiplier_count"), "") | row])


@pytest.mark.parametrize(
    ("drawn", "shown"),
    [(_search, "M MAC (macs)"), (_pipeline, "time, M cycles"), (_bars, "20 M")],
)
def test_large_numbers_have_a_prefix_and_no_offset(
    drawn: Callable[[float], str], shown: str
) -> None:
    found = drawn(3e7)
    assert f">{shown}<" in found
    assert not re.search(r">1e\d", found)


def test_a_layer_of_a_forged_trace_is_text_on_the_page() -> None:
    torch.manual_seed(0)
    layers = [(NAMES[2], MatmulGeometry(2, 6, 3))] * 2
    trace = Trace()
    trace.extend(Trace.of(synthetic_products(layers, 0.5)), recipe="dense")
    config = SimpleNamespace(accelerators=("systolic",), recipes=("dense",))
    outcome: Any = SimpleNamespace(config=config, trace=trace)
    section = timeline(outcome)
    assert section is not None
    assert "<script" not in section.note + "".join(section.sheets)
    assert "&lt;script&gt;" in section.note


@pytest.mark.parametrize("name", ["=1+1", "+1", "-cmd", "@x", "\tx"])
def test_no_spreadsheet_computes_a_name(name: str) -> None:
    (row,) = csv.DictReader(io.StringIO(to_csv([{"layer": name, "loss": -1.5}])))
    assert row == {"layer": f"'{name}", "loss": "-1.5"}
