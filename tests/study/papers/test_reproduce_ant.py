"""The ANT table: what its columns mean, on layers small enough to count again."""

import csv
import json
import math

import pytest

from elision.accelerators import Ant, Scnn
from elision.products import Conv2dGeometry, MatmulGeometry, Product, synthetic_products
from elision.study.papers.ant.paper import (
    NETWORKS,
    AntClaims,
    AntRow,
    ant_rows,
    as_text_rows,
    geometric_mean,
    network_layers,
    recorded_products,
)

LAYERS = [
    ("conv", Conv2dGeometry(1, 4, 16, 16, 6, 3, 1, 1)),
    ("strided", Conv2dGeometry(1, 6, 16, 16, 8, 3, 2, 1)),
    ("fc", MatmulGeometry(1, 64, 10)),
]


def products():
    return list(synthetic_products(LAYERS, 0.9))


def test_columns():
    rows = ant_rows("net", "synthetic", products())
    assert [row.product for row in rows] == [*(k.value for k in Product), "all"]
    for row in rows:
        chosen = [p for p in products() if row.product in (p.kind.value, "all")]
        scnn = sum(Scnn().cost(p) for p in chosen)
        ant = sum(Ant().cost(p) for p in chosen)
        removed = scnn.redundant_multiplies - ant.redundant_multiplies
        assert row.rcp_share == scnn.redundant_multiplies / scnn.multiplies
        assert row.anticipated_share == removed / scnn.redundant_multiplies
        assert row.speedup == scnn.cycles / ant.cycles
        assert row.energy_ratio == pytest.approx(scnn.energy_pj / ant.energy_pj)
    slow = [
        sum(m(startup_cycles=5).cost(p) for p in products()).cycles for m in (Scnn, Ant)
    ]
    assert rows[-1].speedup_with_startup == slow[0] / slow[1]


def test_the_gain_is_in_the_weight_gradient():
    by_product = {row.product: row for row in ant_rows("net", "", products())}
    for other in ("forward", "input_grad"):
        assert by_product["weight_grad"].rcp_share > by_product[other].rcp_share
        assert by_product["weight_grad"].speedup > by_product[other].speedup


def test_nothing_to_compare_is_not_a_number():
    empty = list(synthetic_products(LAYERS, 1.0))
    row = ant_rows("net", "", empty)[-1]
    assert math.isnan(row.rcp_share)
    assert math.isnan(row.speedup)


def test_geometric_mean_is_over_whole_networks():
    def row(product, speedup):
        return AntRow("n", "o", product, 0, 0, speedup, 0, 0)

    rows = [row("all", 2.0), row("forward", 100.0), row("all", 8.0)]
    assert geometric_mean(rows, "speedup") == pytest.approx(4.0)


def test_networks_have_the_published_sizes():
    """Multiply-accumulates of one image: ResNet-18 and VGG-16 at 32x32, ResNet-50."""
    macs = {
        name: sum(geometry.dense_macs for _, geometry in network_layers(name))
        for name in NETWORKS
    }
    assert macs["ResNet-18"] == pytest.approx(0.556e9, rel=0.01)
    assert macs["VGG-16"] == pytest.approx(0.314e9, rel=0.01)
    assert macs["ResNet-50"] == pytest.approx(4.09e9, rel=0.01)
    assert len(network_layers("DenseNet-121")) == 121


def test_what_is_written_and_shown(tmp_path, monkeypatch):
    monkeypatch.setitem(NETWORKS, "small", ("cnn", 32))
    told = []
    paper = AntClaims(network=("small",), recorded=(), startup_cycles=3)
    rows = paper.rows()
    (shown,) = paper.run(tmp_path, lambda *step: told.append(step))
    table = shown.rows
    assert told == [(0, 1)]
    found = json.loads((tmp_path / "ant.json").read_text())
    assert found["published"]["speedup"] == 3.71
    assert "state neither" in found["unstated"]
    assert found["geometric_means"]["speedup"] == pytest.approx(rows[-1].speedup)
    with (tmp_path / "ant.csv").open(newline="") as file:
        assert [row["product"] for row in csv.DictReader(file)] == [
            row.product for row in rows
        ]
    assert table == as_text_rows(rows, startup_cycles=3)
    *shown, mean, published = table
    assert [line["product"] for line in shown] == [row.product for row in rows]
    assert mean["with start-up 3"] == shown[-1]["with start-up 3"]
    assert (published["speed-up"], published["energy"]) == ("3.71x", "4.40x")


@pytest.mark.parametrize(
    ("networks", "recipes", "message"),
    [
        (("VGG-17",), (), "did you mean 'VGG-16'"),
        ((), ("swatt",), "did you mean 'swat'"),
    ],
)
def test_unknown_names_are_found_before_the_work(networks, recipes, message):
    with pytest.raises(ValueError, match=message):
        AntClaims(network=networks, recorded=recipes)


def test_recorded_swat_run():
    """A short run's own operands: SWAT leaves 10 % of weights and activations."""
    recorded = list(recorded_products("swat", "digits-cnn"))
    assert {product.kind for product in recorded} == set(Product)
    sparse = [p for p in recorded if p.kind is Product.FORWARD][1]
    assert sparse.densities["weight"] == pytest.approx(0.1, abs=0.01)
    assert ant_rows("digits-cnn", "SWAT run", recorded)[-1].speedup > 1


def test_recorded_resprop_run():
    """Of the gradients, the sparse differences: 10 % to 20 % of the values."""
    recorded = list(recorded_products("resprop", "digits-cnn"))
    densities = [
        p.densities["grad_output"]
        for p in recorded
        if p.kind is Product.WEIGHT_GRAD and isinstance(p.geometry, Conv2dGeometry)
    ]
    assert densities
    assert all(0.02 < density < 0.4 for density in densities)
    convs = [p for p in recorded if isinstance(p.geometry, Conv2dGeometry)]
    assert {p.geometry.batch for p in convs} == {1}
