"""Traces: what is recorded, how it is kept, and what a damaged file says."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from operand_recipes import RECIPES, backward, batch, network
from safetensors.torch import save_file
from torch import Tensor, nn

import elision
from elision.layers import Observation, watch
from elision.products import (
    Conv2dGeometry,
    LayerProduct,
    MatmulGeometry,
    PackedTensor,
    Product,
    Trace,
    sparse_array,
    synthetic_products,
)


class Recurrent(nn.Module):
    """A layer that is called three times in a step, on other operands each time."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(24, 24)
        self.cell = nn.Linear(24, 24)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for _ in range(3):
            x = self.cell(x).relu()
        return x


def recorded(**how: object) -> Trace:
    model = elision.elide(network(), RECIPES["swat"])
    with elision.record(model, **how) as trace:  # pyright: ignore[reportArgumentType]
        for step in range(3):
            backward(model, *batch(step))
    return trace


@pytest.mark.parametrize("recipe", ["dense", "swat", "chained"])
@pytest.mark.parametrize("build", [network, Recurrent])
def test_what_is_recorded_is_what_the_products_read(
    build: type[nn.Module], recipe: str
) -> None:
    model = elision.elide(build(), RECIPES[recipe])
    seen: list[tuple[LayerProduct, Tensor, Tensor]] = []

    def keep(observation: Observation) -> None:
        p = observation.product
        seen.append((p, p.first.clone(), p.second.clone()))

    x = torch.randn(4, 24) if build is Recurrent else batch(0)[0]
    with elision.record(model) as trace, watch(model, keep):
        model(x.requires_grad_()).sum().backward()
    assert len(trace) == len(seen) == 3 * (4 if build is Recurrent else 5)
    for found, (product, first, second) in zip(trace, seen, strict=True):
        assert repr(found) == repr(product)
        assert torch.equal(found.first, first)
        assert torch.equal(found.second, second)


def test_layers_steps_and_samples_are_chosen() -> None:
    trace = recorded(layers=("2", "8"), steps=(0, 2), samples=1, about={"run": 7})
    assert trace.layers == ["2", "8"]
    assert trace.steps == [0, 2]
    assert trace.recipes == ["swat"]
    assert len(trace) == 2 * 2 * 3
    for product in trace:
        assert product.geometry == product.geometry.with_batch(1)


def test_memory_is_bounded() -> None:
    limit_mib = 0.05
    largest = max(
        2 * PackedTensor.pack(x).size_bytes
        for p in recorded()
        for x in (p.first, p.second)
    )
    with pytest.warns(UserWarning, match=r"limit of 0\.05 MiB at step \d, layer \d"):
        trace = recorded(limit_mib=limit_mib)
    assert 0 < trace.size_bytes <= limit_mib * 2**20 + largest


def test_bad_requests_are_named() -> None:
    with pytest.raises(ValueError, match="'nowhere' names no layer; layers: 0, 2, 4"):
        recorded(layers=("nowhere",))
    with pytest.raises(ValueError, match=r"samples=0\): must be an integer >= 1"):
        recorded(samples=0)
    compiled = torch.compile(network(), backend="eager")
    with (
        pytest.raises(ValueError, match="compiled model cannot be observed"),
        elision.record(compiled),  # pyright: ignore[reportArgumentType]
    ):
        pass
    with pytest.raises(ValueError, match="no operands to record"):
        Trace().add(LayerProduct(Product.FORWARD, MatmulGeometry(1, 2, 3)))


@pytest.mark.parametrize(
    "dtype",
    [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.float8_e4m3fn],
)
def test_every_dtype_comes_back(dtype: torch.dtype, tmp_path: Path) -> None:
    trace = Trace({"seed": 3, "note": "é"})
    geometry = MatmulGeometry(3, 5, 7)
    for nonzeros in (0, 1, 2, 15):
        x, w = torch.zeros(3, 5, dtype=dtype), torch.zeros(7, 5, dtype=dtype)
        for operand in (x, w):
            operand.view(-1)[:nonzeros] = torch.arange(nonzeros).add(1.0).to(dtype)
        trace.add(LayerProduct(Product.FORWARD, geometry, x, w, "layer", 4))
    trace.save(tmp_path / "trace")
    found = Trace.load(tmp_path / "trace")
    assert found.about == trace.about
    for a, b in zip(found, trace, strict=True):
        assert (a.kind, a.geometry, a.name, a.step) == (b.kind, b.geometry, "layer", 4)
        assert a.first.dtype == dtype
        assert torch.equal(a.first.float(), b.first.float())
        assert torch.equal(a.second.float(), b.second.float())


def test_the_file_is_a_mask_the_values_and_a_header(tmp_path: Path) -> None:
    x = torch.tensor([[0.0, 2.0, 0.0], [3.0, 0.0, 4.0]])
    product = LayerProduct(
        Product.FORWARD, MatmulGeometry(2, 3, 1), x, torch.ones(1, 3), "fc", 9
    )
    trace = Trace()
    trace.add(product, recipe="swat")
    trace.save(tmp_path / "t")
    raw = (tmp_path / "t").read_bytes()
    header = json.loads(raw[8 : 8 + struct.unpack("<Q", raw[:8])[0]])
    facts = json.loads(header["__metadata__"]["elision"])
    assert facts["products"] == [
        {
            "product": "forward",
            "layer": "fc",
            "step": 9,
            "recipe": "swat",
            "geometry": {"kind": "matmul", "rows": 2, "inner": 3, "columns": 1},
            "first": "0/input",
            "second": "0/weight",
            "shared": "",
        }
    ]
    assert facts["tensors"]["0/input"] == {"shape": [2, 3], "dtype": "float32"}
    assert trace._tensors["0/input"].mask.tolist() == [0b01010100]
    assert trace._tensors["0/input"].values.tolist() == [2, 3, 4]
    assert trace.size_bytes == 1 + 3 * 4 + 1 + 3 * 4


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("trace") / "whole"
    Trace.of(synthetic_products([("fc", MatmulGeometry(3, 4, 5))], 0.5)).save(path)
    return path.read_bytes()


def assert_refused(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    with pytest.raises(ValueError, match=path.name) as caught:
        Trace.load(path)
    assert "\n" not in str(caught.value)


def test_a_trace_cut_anywhere_is_refused(whole: bytes, tmp_path: Path) -> None:
    for size in {0, 1, 7, 8, 9, *range(20, len(whole), 97), len(whole) - 1}:
        assert_refused(whole[:size], tmp_path / "cut")


def test_a_trace_changed_anywhere_is_refused(whole: bytes, tmp_path: Path) -> None:
    for place in range(0, len(whole), 5):
        changed = bytearray(whole)
        changed[place] ^= (1, 0x0F, 255)[place % 3]
        assert_refused(bytes(changed), tmp_path / "changed")


def test_foreign_files_are_refused(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "foreign"
    save_file({"x": torch.ones(3)}, path)
    assert_refused(path.read_bytes(), path)
    for facts in (
        "null",
        "[]",
        "3",
        '{"history": []}',
        '{"products": [], "format": 2}',
    ):
        save_file({"x": torch.ones(3)}, path, metadata={"elision": facts})
        assert_refused(path.read_bytes(), path)
    torch.save({"x": torch.ones(3)}, path)
    assert_refused(path.read_bytes(), path)
    assert_refused(b"PK\x03\x04" + whole, path)
    with pytest.raises(FileNotFoundError, match="no such trace file"):
        Trace.load(tmp_path / "nothing")


def test_synthetic_operands_have_exactly_the_zeros_asked_for() -> None:
    conv = Conv2dGeometry(2, 4, 6, 5, 8, (3, 2), groups=2)
    layers = [("conv", conv), ("fc", MatmulGeometry(3, 7, 5))]
    wanted = {"input": 0.25, "weight": 0.9}
    products = list(synthetic_products(layers, wanted, seed=1))
    assert [p.kind for p in products] == [*Product, *Product]
    for product in products:
        for operand, x in product.operands.items():
            assert x.shape == product.geometry.shape_of(operand)
            assert (x == 0).sum() == round(x.size * wanted.get(operand, 0.0))
    again = list(synthetic_products(layers, wanted, seed=1))
    other = list(synthetic_products(layers, wanted, seed=2))
    assert all(
        np.array_equal(a.first, b.first) for a, b in zip(products, again, strict=True)
    )
    assert not np.array_equal(products[0].first, other[0].first)


@pytest.mark.parametrize("sparsity", [-0.1, 1.5, float("nan"), {"input": 2.0}])
def test_a_sparsity_that_is_none_is_refused(sparsity: float) -> None:
    with pytest.raises(ValueError, match=r"sparsity=.*: must be a number in \[0, 1\]"):
        list(synthetic_products([("fc", MatmulGeometry(3, 7, 5))], sparsity))


def test_an_operand_that_is_none_is_refused() -> None:
    with pytest.raises(
        ValueError, match="unknown operand 'wait'; known: input, weight"
    ):
        list(synthetic_products([("fc", MatmulGeometry(3, 7, 5))], {"wait": 0.5}))
    with pytest.raises(ValueError, match=r"sparsity=.*must be"):
        sparse_array((3,), 1.1, np.random.default_rng(0))


def test_what_a_batch_shares_is_taken_off_before_a_machine_multiplies() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 5))
    elision.elide(model, elision.methods.ReSprop(reuse=0.5), engine="torch")
    for _ in range(40):  # the threshold starts at 1e-7 and doubles
        model.zero_grad()
        with elision.record(model) as trace:
            model(torch.randn(4, 3, 8, 8)).square().sum().backward()
    found: Trace = trace  # pyright: ignore[reportPossiblyUnboundVariable]
    read = {p.kind: p for p in found if p.name == "0"}
    multiplied = {p.kind: p for p in found.multiplied() if p.name == "0"}
    kind = elision.Product.WEIGHT_GRAD
    hybrid, sparse = (torch.as_tensor(t[kind].first) for t in (read, multiplied))
    assert read[kind].densities["grad_output"] == 1
    assert 0 < multiplied[kind].densities["grad_output"] < 1
    shared = hybrid - sparse
    assert torch.allclose(shared, shared[:1].expand_as(shared), atol=1e-6)
    gradient = next(model.parameters()).grad
    assert gradient is not None
    assert torch.allclose(gradient, read[kind].compute())


def two_steps() -> Trace:
    x = np.array([[1, 0, 0, 0], [1, 1, 0, 0]], np.float32)
    w = np.ones((3, 4), np.float32)
    trace = Trace({"model": "tiny"})
    geometry = MatmulGeometry(2, 4, 3)
    for step in (0, 5):
        product = LayerProduct(Product.FORWARD, geometry, x, w, "fc<1>", step)
        trace.add(product, recipe="swat")
    return trace


def test_a_trace_says_what_it_holds() -> None:
    said = repr(two_steps())
    assert said.startswith("Trace(2 products of 1 layer in 2 steps, recipes swat, ")
    assert said.endswith("about model)")
    assert repr(Trace()) == "Trace(0 products of 0 layers in 0 steps, 0.0 KiB)"


def test_a_trace_is_a_table_in_a_notebook() -> None:
    shown = two_steps()._repr_html_()
    cells = ("swat", "fc&lt;1&gt;", "forward", "linear 2 x 4 -&gt; 3", "2")
    row = "".join(f"<td>{cell}</td>" for cell in cells)
    assert f"<tr>{row}<td>input 37.5%, weight 100.0%</td></tr>" in shown
    without_recipe = Trace.of(synthetic_products([("a", MatmulGeometry(2, 2, 2))], 0.5))
    assert "<th>recipe</th>" not in without_recipe._repr_html_()
    assert Trace()._repr_html_().startswith("<table>")


def test_a_packed_tensor_of_no_values_has_a_density() -> None:
    packed = PackedTensor.pack(torch.zeros(0, 3))
    assert packed.density == 0
    assert repr(packed) == "PackedTensor(0 of 0 values, float32, 0 x 3)"
