"""The SCNN table: its layers and its columns."""

import itertools
import json

import pytest

from elision.accelerators import Dense, Scnn
from elision.products import Conv2dGeometry, LayerProduct, Product, synthetic_products
from elision.study.papers.scnn import (
    RULES,
    ScnnPoints,
    googlenet_layers,
    scnn_table,
)

LAYERS = [("conv", Conv2dGeometry(1, 4, 16, 16, 8, 3, 1, 1))]


def test_inception_modules_follow_one_another():
    """54 convolutions; what a module puts out, the next one takes in."""
    layers = dict(googlenet_layers())
    assert len(layers) == 54
    modules = list(dict.fromkeys(name.split("/")[0] for name in layers))
    for module, following in itertools.pairwise(modules):
        put_out = sum(
            layers[f"{module}/{branch}"].out_channels
            for branch in ("1x1", "3x3", "5x5", "pool_proj")
        )
        assert put_out == layers[f"{following}/1x1"].in_channels


def test_columns():
    rows = {row.rules: row for row in scnn_table([0.4], LAYERS)}
    sparsity = {"input": 0.6, "weight": 0.6}
    product = next(iter(synthetic_products(LAYERS, sparsity)))
    dense = Dense().cost(product)
    assert rows.keys() == RULES.keys()
    for name, row in rows.items():
        cost = Scnn(mapping="planar", **RULES[name]).cost(product)
        assert row.speedup == dense.cycles / cost.cycles
        # Outputs of the largest tile x filters x 16 lanes for 36 products.
        assert row.speedup_over_tiled == 2 * 2 * 8 * 3 / cost.cycles
        assert row.energy_share == pytest.approx(cost.energy_pj / dense.energy_pj)
        assert row.published == {"over_weight_sided": 1.7, "over_input_sided": 2.6}
    speeds = [row.speedup for row in rows.values()]
    assert speeds == sorted(speeds)  # every set of rules waits less than the last
    assert speeds[0] < speeds[-1]


def test_one_sided_machines_keep_the_other_operands_zeros():
    row = next(iter(scnn_table([0.4], LAYERS)))
    sparsity = {"input": 0.6, "weight": 0.6}
    product = next(iter(synthetic_products(LAYERS, sparsity)))
    only_weight, only_input = (
        LayerProduct(
            Product.FORWARD,
            product.geometry,
            product.first if operand == "input" else product.first * 0 + 1,
            product.second if operand == "weight" else product.second * 0 + 1,
        )
        for operand in ("weight", "input")
    )
    machine = Scnn(mapping="planar")
    cycles = machine.cost(product).cycles
    assert row.over_weight_sided == machine.cost(only_weight).cycles / cycles
    assert row.over_input_sided == machine.cost(only_input).cycles / cycles


def test_what_is_written_and_shown(tmp_path, monkeypatch):
    monkeypatch.setattr("elision.study.papers.scnn.googlenet_layers", lambda: LAYERS)
    (written,) = ScnnPoints(density=(0.4, 0.3)).run(tmp_path)
    found = json.loads((tmp_path / "scnn.json").read_text())
    assert [row["rules"] for row in found["rows"]] == 2 * [*RULES]
    assert found["rows"][0]["published_over_input_sided"] == 2.6
    assert found["rows"][-1]["published_over_input_sided"] is None
    published, *shown = written.rows
    assert published["rules"] == "published"
    assert published["over weight-sided"] == "1.7x"
    assert [line["rules"] for line in shown] == 2 * [*RULES]
    with pytest.raises(ValueError, match=r"density=1.2\): must be a number in"):
        ScnnPoints(density=(1.2,))


def test_at_full_density_all_three_machines_are_one():
    row = next(iter(scnn_table([1.0], LAYERS)))
    assert row.over_weight_sided == row.over_input_sided == 1
