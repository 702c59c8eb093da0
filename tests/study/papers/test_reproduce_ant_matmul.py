"""ANT's second half: networks of matrix products, on layers small enough to count again."""

import csv
import json
from dataclasses import replace

import pytest

from elision.accelerators import Ant, InterGrad, Scnn
from elision.accelerators.expected import expected_cycles
from elision.products import Conv2dGeometry, MatmulGeometry, Product, synthetic_products
from elision.study.papers.ant.matmul import (
    MATMULS,
    MatmulNetwork,
    machines,
    matmul_network,
    matmul_rows,
    recorded_matmuls,
)
from elision.study.papers.ant.paper import AntClaims
from elision.workloads import find_workload

LAYERS = [
    ("fc", MatmulGeometry(16, 64, 48)),
    ("conv", Conv2dGeometry(1, 4, 8, 8, 6, 3, 1, 1)),
    ("heads", MatmulGeometry(12, 8, 12, batch=4)),
]
TILE = 8


@pytest.fixture(scope="module")
def products():
    return list(synthetic_products(LAYERS, 0.8))


@pytest.fixture(scope="module")
def rows(products):
    ant = Ant(elements=4)
    found = matmul_rows("net", "random", products, ant, TILE, startup_cycles=3)
    return {(row.product, row.machine): row for row in found}


def matmuls(products, product):
    return [
        p for p in products if p.name != "conv" and product in (p.kind.value, "all")
    ]


@pytest.mark.parametrize("product", [*(kind.value for kind in Product), "all"])
def test_columns(products, rows, product):
    chosen = matmuls(products, product)
    tiled, index = Scnn(grid=(1, 4), matmul_tile=TILE), Scnn(grid=(1, 4))
    ant = Ant(elements=4, matmul_tile=TILE)
    costs = [sum(m.cost(p) for p in chosen) for m in (tiled, index, ant)]
    row = rows[product, "ant, tiles"]
    assert row.cycles == costs[2].cycles
    assert row.expected_cycles == pytest.approx(
        sum(
            expected_cycles(ant, p.kind, p.geometry, tuple(p.densities.values()))
            for p in chosen
        )
    )
    assert row.rcp_share == costs[2].redundant_multiplies / costs[2].multiplies
    left = costs[2].redundant_multiplies / costs[0].redundant_multiplies
    assert row.anticipated_share == pytest.approx(1 - left)
    assert row.over_tiles == costs[0].cycles / costs[2].cycles
    assert row.over_index == costs[1].cycles / costs[2].cycles
    slow = [
        sum(replace(m, startup_cycles=3).cost(p) for p in chosen).cycles
        for m in (tiled, ant)
    ]
    assert row.over_tiles_with_startup == slow[0] / slow[1]
    assert rows[product, "scnn, tiles"].rcp_share > 0.8
    assert rows[product, "ant, by index"].rcp_share == 0
    assert rows[product, "dense"].rcp_share is None


def test_interleaved_gradients_are_compared_with_both(products, rows):
    chosen = [p for p in matmuls(products, "all") if p.kind is not Product.FORWARD]
    row = rows["input_grad+weight_grad", "intergrad"]
    machine = machines(Ant(elements=4), TILE)["intergrad"]
    assert isinstance(machine, InterGrad)
    pairs = (
        machine.cost_pair(*(p for p in chosen if p.name == name)).cycles
        for name in ("fc", "heads")
    )
    assert row.cycles == sum(pairs)
    scnn = sum(Scnn(grid=(1, 4)).cost(p) for p in chosen)
    assert row.over_index == scnn.cycles / row.cycles


def test_machines_are_of_one_size():
    ant = Ant(elements=16, multipliers=8)
    found = machines(ant, TILE)
    assert {machine.multiplier_count for machine in found.values()} == {1024}


def test_a_network_without_matrix_products_is_refused(products):
    convolutions = [p for p in products if p.name == "conv"]
    with pytest.raises(ValueError, match="net: no product of it is a matrix product"):
        matmul_rows("net", "", convolutions)


@pytest.mark.parametrize(
    ("recipe", "operand", "kind"),
    [
        ("swat", "weight", Product.FORWARD),
        ("swat", "input", Product.WEIGHT_GRAD),
        ("resprop", "grad_output", Product.INPUT_GRAD),
        ("resprop", "grad_output", Product.WEIGHT_GRAD),
    ],
)
def test_recorded_operands_are_sparse(recipe, operand, kind, short):
    """SWAT keeps a tenth; ReSprop's differences are sparse in linear layers, too."""
    found = [
        p.densities[operand]
        for p in short(recipe)
        if p.kind is kind and p.name == "layers.3"
    ]
    assert found
    assert all(0.01 < density < 0.4 for density in found)


@pytest.fixture(scope="module")
def short():
    workload = find_workload("digits-mlp").changed(epochs=2)
    network = MatmulNetwork(workload, 32)
    runs = {}

    def run(recipe):
        if recipe not in runs:
            with pytest.MonkeyPatch.context() as patch:
                patch.setitem(MATMULS, "short", network)
                runs[recipe] = recorded_matmuls("short", recipe)["short"]
        return runs[recipe]

    return run


def test_what_is_written_and_shown(tmp_path, monkeypatch, short):
    monkeypatch.setattr(
        "elision.study.papers.ant.paper.recorded_matmuls",
        lambda name, recipe, seed: {name: short(recipe)},
    )
    paper = AntClaims(recorded=("swat",), matmul=("MLP",), matmul_tile=16)
    monkeypatch.setattr(AntClaims, "rows", lambda self, progress: [])
    (_, shown) = paper.run(tmp_path)
    assert "all values of 16 columns" in shown.title
    with (tmp_path / "matmul.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    assert len(written) == len(shown.rows)
    assert {row["machine"] for row in written} == set(machines(Ant(), 16))
    found = json.loads((tmp_path / "ant.json").read_text())
    assert found["matmul_rows"][0]["network"] == "MLP"
    assert found["matmul_tile"] == 16


def test_attention_has_rows_of_its_own(monkeypatch):
    settings = {"model": "transformer", "train_images": 8, "test_images": 4}
    workload = find_workload("digits-mlp").changed(
        **settings, batch_size=4, epochs=1, learning_rate=0.05
    )
    monkeypatch.setitem(MATMULS, "tiny", MatmulNetwork(workload, 16))
    found = recorded_matmuls("tiny", "swat")
    assert list(found) == ["tiny", "tiny, attention"]
    (heads,) = {p.geometry.batch for p in found["tiny, attention"]}
    assert heads > 1
    rows = matmul_rows("tiny", "", found["tiny, attention"])
    everything = {row.machine: row for row in rows if row.product == "all"}
    assert everything["scnn, tiles"].rcp_share > 0.5
    assert everything["ant, by index"].rcp_share == 0


def test_networks_by_name():
    assert matmul_network("gnmt-tiny").rows == 32
    with pytest.raises(ValueError, match="'gnmt-tiny'"):
        AntClaims(matmul=("gnmt-tin",))
    with pytest.raises(ValueError, match="MLP, LSTM, transformer"):
        matmul_network("nothing of the kind")
    with pytest.raises(ValueError, match="matmul_tile"):
        AntClaims(matmul_tile=0)
