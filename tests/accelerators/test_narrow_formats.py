"""Products in narrow formats: fewer words, cheaper units, the same cycles."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

import elision
from elision.accelerators import ACCELERATORS
from elision.accelerators.energy import energy_table
from elision.accelerators.narrow import derived, unit_of
from elision.accelerators.numbers import Numbers, numbers_of
from elision.formats import FORMATS
from elision.products import (
    FP32,
    Arithmetic,
    Conv2dGeometry,
    ConvTranspose2dGeometry,
    LayerProduct,
    MatmulGeometry,
    Product,
    Trace,
)

GEOMETRIES = (
    Conv2dGeometry(2, 6, 9, 9, 8, 3, stride=2, padding=1),
    MatmulGeometry(5, 12, 7),
    ConvTranspose2dGeometry(Conv2dGeometry(2, 4, 9, 9, 6, 3, stride=2)),
)


def _product(kind, geometry, arithmetic=FP32, density=0.5):
    rng = np.random.default_rng(3)
    operands = [
        (rng.random(geometry.shape_of(name)) < density).astype(np.float32)
        for name in kind.operands
    ]
    return LayerProduct(kind, geometry, *operands, arithmetic=arithmetic)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda g: g.layer)
@pytest.mark.parametrize("kind", Product)
@pytest.mark.parametrize("name", ACCELERATORS)
def test_every_machine_prices_narrow_formats(name, kind, geometry):
    machine = ACCELERATORS[name]()
    wide = machine.cost(_product(kind, geometry))
    half = machine.cost(_product(kind, geometry, Arithmetic("bf16", "bf16")))
    eight = machine.cost(
        _product(kind, geometry, Arithmetic("int8", "int8", "int32", "int8"))
    )
    assert half.cycles == wide.cycles == eight.cycles
    assert half.multiplies == wide.multiplies == eight.multiplies
    on_chip = [cost.energy_on_chip_pj for cost in (eight, half, wide)]
    assert on_chip == sorted(on_chip)
    assert on_chip[0] < on_chip[2]
    if wide.area_mm2 is not None:
        assert eight.area_mm2 < half.area_mm2 < wide.area_mm2
    # Costs of layers in different formats add: counts by action, words by memory.
    both = wide + half
    assert both.energy_pj == pytest.approx(wide.energy_pj + half.energy_pj)


@pytest.mark.parametrize("kind", Product)
def test_words_follow_the_operand_that_a_memory_holds(kind):
    """Only the named operand's reads shrink."""
    geometry = Conv2dGeometry(2, 6, 9, 9, 8, 3, padding=1)
    machine = elision.accelerators.Systolic(8, 8)
    wide = machine.cost(_product(kind, geometry))
    for place, operand in zip(("first", "second"), kind.operands, strict=True):
        arithmetic = Arithmetic(**{place: "fp8-e4m3"})
        cost = machine.cost(_product(kind, geometry, arithmetic))
        family = {"grad_output": "output"}.get(operand, operand)
        for memory, words in wide.accesses.items():
            if memory == f"{family}_sram.read":
                assert cost.accesses[memory] == -(-words // 4)
            elif memory.endswith("_sram.read"):
                assert cost.accesses[memory] == words
        assert cost.accesses["dram.read"] < wide.accesses["dram.read"]


def test_image_and_kernel_planes_have_the_widths_of_their_operands():
    """In a weight gradient X is the image and G the kernel."""
    geometry = Conv2dGeometry(1, 2, 6, 6, 3, 3)
    ant = elision.accelerators.Ant()
    wide = ant.cost(_product(Product.WEIGHT_GRAD, geometry))
    narrow_x = Arithmetic("fp32", "fp8-e4m3")  # operands are (G, X)
    cost = ant.cost(_product(Product.WEIGHT_GRAD, geometry, narrow_x))
    read = "image_buffer.read", "kernel_buffer.read"
    assert cost.accesses[read[0]] == -(-wide.accesses[read[0]] // 4)
    assert cost.accesses[read[1]] == wide.accesses[read[1]]


def test_a_transposed_convolution_keeps_each_operand_s_format():
    geometry = GEOMETRIES[2]
    arithmetic = Arithmetic("bf16", "fp8-e4m3")
    for kind in Product:
        own = _product(kind, geometry, arithmetic)
        run = own.as_convolution()
        names = (run.arithmetic.first, run.arithmetic.second)
        found = dict(zip(run.kind.operands, names, strict=True))
        for name, format in zip(kind.operands, ("bf16", "fp8-e4m3"), strict=True):
            assert found[geometry.convolution_operand(name)] == format


def test_prices_are_the_table_s_where_it_has_them():
    table = energy_table("horowitz-45nm")
    prices = table.prices(
        {n: n for n in ("multiply fp16", "multiply int8", "add fp16", "add int32")}, {}
    )
    assert list(prices.values()) == [1.1, 0.2, 0.4, 0.1]
    assert derived(table.energy_pj, "multiply bf16") == pytest.approx(
        1.1 + (64 - 121) / (576 - 121) * 2.6
    )
    # One entry of a family: in proportion.
    assert derived({"multiply": 5.76}, "multiply bf16") == pytest.approx(0.64)
    assert derived({}, "multiply bf16") is None
    assert derived(table.energy_pj, "compare") is None


def test_no_multiplier_where_an_operand_is_a_sign():
    table = energy_table("horowitz-45nm")
    for name in ("ternary", "binary", "int2"):
        assert derived(table.energy_pj, f"multiply int8 x {name}") == 0
    assert derived(table.energy_pj, "multiply int8 x int4") > 0


def test_every_format_has_a_unit_and_a_price():
    table = energy_table("horowitz-45nm")
    for name, format in FORMATS.items():
        unit = unit_of(name)
        assert unit.stored_bits >= format.bits
        for verb in ("multiply", "add"):
            assert derived(table.energy_pj, f"{verb} {name}") >= 0
    assert unit_of("mxfp8").stored_bits == Fraction(33, 4)
    assert unit_of("nvfp4").stored_bits == Fraction(9, 2)


def test_words_round_up():
    n = numbers_of(Arithmetic("mxfp8", "bf16"))
    assert [n.words(v, n.first) for v in (0, 1, 3, 4, 32)] == [0, 1, 1, 2, 9]
    assert Numbers(FP32).words(7, Fraction(32)) == 7


def test_an_unknown_format_names_the_known():
    product = LayerProduct(
        Product.FORWARD, MatmulGeometry(1, 1, 1), arithmetic=Arithmetic("bf17")
    )
    with pytest.raises(ValueError, match=r"bf17.*bf16"):
        elision.accelerators.Dense().cost(product)


def test_a_recorded_product_carries_its_formats(tmp_path):
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    cast = elision.operands.Cast
    recipe = elision.Recipe(
        "mixed",
        elision.Table(
            {
                Product.FORWARD: {"input": cast("fp8-e4m3"), "weight": cast("bf16")},
                Product.WEIGHT_GRAD: {"grad_output": cast("fp8-e5m2")},
            }
        ),
    )
    elision.elide(model, recipe, engine="torch")
    with elision.record(model, samples=4) as trace:
        model(torch.randn(4, 6)).sum().backward()
    trace.save(tmp_path / "t.safetensors")
    loaded = Trace.load(tmp_path / "t.safetensors")
    by_kind = {(p.name, p.kind): p.arithmetic for p in loaded}
    assert by_kind["2", Product.FORWARD] == Arithmetic("fp8-e4m3", "bf16")
    assert by_kind["2", Product.WEIGHT_GRAD] == Arithmetic("fp8-e5m2")
    assert by_kind["2", Product.INPUT_GRAD] == FP32
    assert [p.arithmetic for p in trace] == [p.arithmetic for p in loaded]
    shown = elision.products.describe(loaded)
    assert {row["formats"] for row in shown} >= {"fp8-e4m3 x bf16", "fp32"}


def test_autocast_names_the_tensors_own_format():
    model = elision.elide(nn.Linear(6, 5), elision.methods.Swat(0.5, dense=()), "torch")
    with elision.record(model) as trace, torch.autocast("cpu", torch.bfloat16):
        model(torch.randn(4, 6, requires_grad=True)).float().sum().backward()
    assert {p.arithmetic.first for p in trace} == {"bf16"}
