import gzip
import json
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_layers import geometries, sides

from elision.accelerators import (
    Dense,
    InterGrad,
    SpatialArray,
    Systolic,
    SystolicMixed,
)
from elision.accelerators.design.schedule import Slice, schedule
from elision.accelerators.step import blind_products, products_cost
from elision.products import MatmulGeometry
from elision.report.timeline import chrome_trace, save_chrome_trace, timeline_svg

drains = st.sampled_from(["overlapped", "explicit"])
arrays = st.builds(
    Systolic,
    sides,
    sides,
    st.sampled_from(["ws", "os", "is"]),
    drain=drains,
    preload=st.booleans(),
)
arrays |= st.builds(InterGrad, sides, sides, drain=drains)
arrays |= st.builds(SystolicMixed, sides, sides, drain=drains)
arrays |= st.builds(
    SpatialArray,
    rows=sides,
    columns=sides,
    folds=st.sampled_from(["pipelined", "overlapped", "drained"]),
    keep=st.sampled_from(["input", "weight", "grad_output", "output"]),
)


@given(arrays, st.lists(geometries, min_size=1, max_size=3), st.integers(1, 4))
def test_a_schedule_is_as_long_as_its_cost_and_no_port_does_two_things(
    machine, shapes, folds_shown
):
    layers = [(f"layer{n}", shape) for n, shape in enumerate(shapes)]
    products = blind_products(layers)
    slices = schedule(machine, products, folds_shown)
    cycles = products_cost(machine, products).cycles
    assert max(s.end for s in slices if s.track == "product") == cycles
    tail = machine.rows  # of results that drain under what comes next
    assert max(s.end for s in slices) <= cycles + tail
    chrome_trace({"array": slices})  # raises if slices of a track overlap


def test_folds_of_a_weight_stationary_product():
    (product, *_) = blind_products([("fc", MatmulGeometry(5, 4, 2))])
    slices = schedule(Systolic(4, 2), [product])
    label = "fc forward"
    assert slices == [
        Slice("product", label, 0, 13),
        Slice("north port", f"{label}, fold 1: load B", 0, 4),
        Slice("west port", f"{label}, fold 1: stream A", 4, 12),
        Slice("PEs", f"{label}, fold 1: multiply", 4, 13),
        Slice("south port", f"{label}, fold 1: Z leaves", 7, 13),
    ]


def test_other_machines_are_drawn_product_by_product():
    products = blind_products([("fc", MatmulGeometry(5, 400, 20))])
    machine = Dense()
    slices = schedule(machine, products)
    assert {s.track for s in slices} == {"array", "product"}
    assert max(s.end for s in slices) == products_cost(machine, products).cycles


def test_the_trace_says_that_its_microseconds_are_cycles(tmp_path):
    products = blind_products([("a", MatmulGeometry(9, 8, 8))])
    schedules = {
        "WS": schedule(Systolic(4, 4), products),
        "InterGrad": schedule(InterGrad(4, 4), products),
    }
    for name in ("one.json.gz", "two.json.gz", "plain.json"):
        save_chrome_trace(schedules, tmp_path / name)
    packed = (tmp_path / "one.json.gz").read_bytes()
    assert packed == (tmp_path / "two.json.gz").read_bytes()
    assert gzip.decompress(packed) == (tmp_path / "plain.json").read_bytes()
    trace = json.loads(gzip.decompress(packed))
    assert trace["otherData"]["time_unit"] == "1 us = 1 cycle"
    for pid, (machine, slices) in enumerate(schedules.items(), start=1):
        events = [e for e in trace["traceEvents"] if e["pid"] == pid]
        named = {e["args"]["name"] for e in events if e["ph"] == "M"}
        tracks = {s.track for s in slices}
        assert named == {f"{machine} (1 us = 1 cycle)", *tracks}
        drawn = [e for e in events if e["ph"] == "X"]
        assert sum(e["dur"] for e in drawn) == sum(s.end - s.start for s in slices)
        assert len({e["tid"] for e in drawn}) == len(tracks)


def test_the_svg_shows_the_window_and_nothing_else():
    slices = [Slice("a<b", "first", 0, 10), Slice("a<b", "second & last", 10, 30)]
    schedules = {"A & B": slices}
    drawing = ElementTree.fromstring(timeline_svg(schedules))
    boxes = drawing.findall("{*}rect")
    assert [box.find("{*}title").text for box in boxes] == [
        "first: cycles 0 to 10",
        "second & last: cycles 10 to 30",
    ]
    widths = [float(box.get("width")) for box in boxes]
    assert widths[1] == pytest.approx(2 * widths[0], rel=1e-3)
    window = ElementTree.fromstring(timeline_svg(schedules, start=12, end=20))
    assert len(window.findall("{*}rect")) == 1
    with pytest.raises(ValueError, match=r"window 5\.\.5 is empty"):
        timeline_svg(schedules, start=5, end=5)


def test_machines_share_the_scale_of_the_longest():
    schedules = {
        "short": [Slice("product", "p", 0, 10)],
        "long": [Slice("product", "p", 0, 40)],
    }
    drawing = ElementTree.fromstring(timeline_svg(schedules))
    short, long = (float(box.get("width")) for box in drawing.findall("{*}rect"))
    assert long == pytest.approx(4 * short, rel=1e-3)
    headings = [t.text for t in drawing.findall("{*}text") if t.get("font-weight")]
    assert headings == ["short: 10 cycles", "long: 40 cycles"]


@pytest.mark.parametrize(
    ("slices", "message"),
    [
        ([Slice("p", "a", 0, 5), Slice("p", "b", 4, 6)], "overlap"),
        ([Slice("p", "a", 5, 0)], "ends before it starts"),
    ],
)
def test_impossible_schedules_are_refused(slices, message):
    with pytest.raises(ValueError, match=message):
        chrome_trace({"array": slices})


def test_at_least_one_fold_is_shown():
    with pytest.raises(ValueError, match=r"folds_shown=0\): must be an integer >= 1"):
        schedule(Systolic(), [], folds_shown=0)
