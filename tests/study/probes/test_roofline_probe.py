"""The probe of the roofline and its section of the report."""

import json
from types import SimpleNamespace

import pytest
import torch

import elision
from elision.engines.native import library
from elision.engines.roofline import Ceilings, roof_of
from elision.methods import Swat
from elision.study.page.sections.roofline import roofline as section
from elision.study.probes import Roofline, Trained
from elision.study.probes import roofline as module
from elision.workloads import Workload

TINY = Workload(
    name="digits-tiny", dataset="digits", model="cnn", batch_size=16, train_images=64
)
HERE = Ceilings(100.0, 10.0, 100.0, 1.0, threads=1)


@pytest.mark.skipif(library.unavailable() is not None, reason="no native kernels")
def test_every_product_of_a_step_is_placed(monkeypatch):
    monkeypatch.setattr(module, "measured_ceilings", lambda: HERE)
    torch.manual_seed(0)
    dataset, method = TINY.load_dataset(), Swat(sparsity=0.8)
    model = elision.elide(TINY.make_model(dataset), method, engine="torch").train()
    found = Roofline(rounds=2, threads=1).run(Trained(model, method, TINY, dataset, 0))
    assert json.loads(json.dumps(found)) == found
    assert found["ceilings"] == HERE.to_dict()
    with elision.record(model) as trace:
        batch = next(iter(TINY.train_batches(dataset, seed=0, epoch=0)))
        TINY.task.loss(model, batch).backward()
    products = list(trace)
    placed = [
        (name, row["product"]) for row in found["products"] for name in row["layers"]
    ]
    assert sorted(placed) == sorted((p.name, p.kind.value) for p in products)
    by_name = {(p.name, p.kind.value): p for p in products}
    for row in found["products"]:
        product = by_name[row["layers"][0], row["product"]]
        roof = roof_of(product.geometry, HERE)
        assert (row["intensity"], row["bound"]) == (roof.intensity, roof.bound)
        operations = 2 * product.dense_macs
        assert row["gflops"] == pytest.approx(operations / row["seconds"] / 1e9)
    text = "".join(sheets(found))
    assert text.count("<svg") == 1
    for row in found["products"]:
        assert row["layers"][0] in text


def sheets(found):
    outcome = SimpleNamespace(
        spec="swat", findings={"roofline": found} if found else {}
    )
    made = section(SimpleNamespace(outcomes=[outcome]))
    return made.sheets if made else ()


def test_the_section_says_bound_and_share():
    row = {
        "layers": ["one", "two", "three"],
        "shape": "conv",
        "product": "forward",
        "intensity": 5.0,
        "bound": "bandwidth",
        "attainable_gflops": 50.0,
        "gflops": 20.0,
        "seconds": 1e-3,
    }
    text = "".join(sheets({"ceilings": HERE.to_dict(), "products": [row]}))
    for words in ("one and 2 more", "bandwidth", "40 %", "1.000"):
        assert words in text
    assert sheets({}) == ()


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"threads": -1}])
def test_parameters_out_of_range(wrong):
    with pytest.raises(ValueError, match=rf"roofline\({next(iter(wrong))}="):
        Roofline(**wrong)
