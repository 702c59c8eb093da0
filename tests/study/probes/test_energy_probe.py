"""The probe of a step's energy and its section of the report."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import elision
from elision.energy import operation_energy
from elision.layers.meter import metered
from elision.layers.recipe import Recipe
from elision.methods import Dense, Fp8, Swat
from elision.products import Product
from elision.study.page.sections.step_energy import step_energy as section
from elision.study.probes import PROBES, StepEnergy, Trained
from elision.workloads import Workload

TINY = Workload(
    name="digits-tiny", dataset="digits", model="cnn", batch_size=16, train_images=64
)


def trained(method: Recipe) -> Trained:
    torch.manual_seed(0)
    dataset = TINY.load_dataset()
    model = elision.elide(TINY.make_model(dataset), method, engine="torch").train()
    return Trained(model, method, TINY, dataset, 0)


@pytest.mark.parametrize("method", [Dense(), Swat(0.8)], ids=["dense", "swat"])
def test_counts_are_those_of_the_meter(method: Recipe) -> None:
    """Another observer of the same step says what is left of every product."""
    found = StepEnergy().run(trained(method))
    assert json.loads(json.dumps(found)) == found
    again = trained(method)
    batch = next(iter(TINY.train_batches(again.dataset, seed=0, epoch=TINY.epochs)))
    with metered(again.model) as meter:
        TINY.task.loss(again.model, batch).backward()
    assert found["batch"] == 16
    assert len(found["layers"]) == len(meter.by_layer)
    for row in found["layers"]:
        work = meter.by_layer[row["layer"], Product(row["product"])]
        assert row["dense_macs"] == work.dense_macs
        assert row["done_macs"] == pytest.approx(work.done_macs)
    ratios = [row["done_moved_pj"] / row["dense_moved_pj"] for row in found["layers"]]
    assert (
        all(r == 1 for r in ratios) if isinstance(method, Dense) else min(ratios) < 0.9
    )


def test_steps_are_averaged() -> None:
    one, three = (StepEnergy(steps=n).run(trained(Dense())) for n in (1, 3))
    assert one == three  # nothing of a dense step depends on its values


def test_a_narrow_format_moves_and_multiplies_for_less() -> None:
    dense, narrow = (StepEnergy().run(trained(m)) for m in (Dense(), Fp8()))
    totals = [
        {
            key: sum(row[key] for row in found["layers"])
            for key in ("dense_macs", "done_macs", "done_bytes", "done_arithmetic_pj")
        }
        for found in (dense, narrow)
    ]
    assert totals[0]["dense_macs"] == totals[1]["done_macs"]
    assert totals[1]["done_bytes"] < totals[0]["done_bytes"]
    assert totals[1]["done_arithmetic_pj"] < totals[0]["done_arithmetic_pj"]


def page(*findings: tuple[str, dict[str, Any]]) -> str:
    outcomes = [
        SimpleNamespace(spec=spec, findings={"energy": found})
        for spec, found in findings
    ]
    made = section(SimpleNamespace(outcomes=outcomes))  # pyright: ignore[reportArgumentType]
    return "" if made is None else made.note + "".join(made.sheets)


def test_the_section_prices_every_product_and_says_the_factor() -> None:
    text = page(
        ("dense", StepEnergy().run(trained(Dense()))),
        ("swat", StepEnergy().run(trained(Swat(0.8)))),
    )
    assert text.count("<svg") == 1
    for words in (
        "horowitz-45nm",
        "factor of 2.0",
        "weight_grad",
        "all three",
        "1.00x",
    ):
        assert words in text
    bare = SimpleNamespace(outcomes=[SimpleNamespace(spec="dense", findings={})])
    assert section(bare) is None  # pyright: ignore[reportArgumentType]


def test_the_section_adds_the_layers_of_a_product() -> None:
    """Two layers of 1 and 3 mJ: 4 mJ, a factor of two either way."""
    product = operation_energy(
        elision.LayerProduct(Product.FORWARD, elision.MatmulGeometry(1, 1, 1))
    )
    rows = [
        {"layer": name, "product": "forward", **product.to_dict()}
        | {"dense_arithmetic_pj": 0.0, "done_arithmetic_pj": 0.0}
        | {"dense_moved_pj": price, "done_moved_pj": price / 2}
        for name, price in (("a", 1e9), ("b", 3e9))
    ]
    found = {"table": "t", "node_nm": 45, "factor": 2.0, "batch": 1.0, "layers": rows}
    text = page(("r", found))
    assert "2 to 8" in text
    assert "1 to 4" in text
    assert "0.50x" in text


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0}, r"energy\(steps=0\)"),
        ({"table": "horovitz"}, "did you mean 'horowitz-45nm'"),
    ],
)
def test_wrong_parameters_are_refused_when_they_are_given(
    wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        PROBES["energy"](**wrong)
