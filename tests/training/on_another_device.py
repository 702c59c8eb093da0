"""Everything on a device that is not the CPU gives what it gives on the CPU.

Run by ``test_another_device`` in a process of its own.
"""

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from another_device import NAME, here, kind_of
from torch import nn

from elision.engines import Hint, NativeEngine, make_engine
from elision.layers import elide
from elision.memory import saver
from elision.memory.codecs import (
    Division,
    FixedPoint,
    Float8,
    GroupQuant,
    Jpeg,
    SparseGroupQuant,
    ThresholdMask,
    TwoValued,
    ZeroValue,
)
from elision.memory.saved.roles import SMOOTH_ROLES, Slot
from elision.methods import METHODS, make_recipe
from elision.products import LayerProduct, MatmulGeometry, Product
from elision.training.execution import Execution
from elision.training.loop import RunPlan, TrainResult, train
from elision.workloads import Workload

#: Methods that are others with another number.
ALIKE = {"mx", "mxfp6", "mxfp4", "mxint8", "dfp16", "swat-erk", "static-erk"}


@pytest.fixture(autouse=True)
def like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the library asks for the type of a tensor, the device's are plain ones."""
    for name in (
        *("common.selecting", "formats.native", "functional.tanh", "layers.blocked"),
        *("layers.between.called", "layers.explain", "layers.reach", "nn.kernel"),
        *("memory.saved.layout", "operands.top_k"),
    ):
        module = importlib.import_module(f"elision.{name}")
        monkeypatch.setattr(module, "type", kind_of, raising=False)
    monkeypatch.setattr(
        Execution, "torch_device", lambda self, rank=0: torch.device(self.device)
    )


def small_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        *(
            nn.Conv2d(8, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ),
        *(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Dropout(0.5), nn.Flatten()),
        *(nn.Linear(256, 32), nn.GELU(), nn.LayerNorm(32), nn.Linear(32, 10)),
    )


def step(device: str, policy: str | None = None, recipe: Any = None, engine="auto"):
    """Loss and gradients of one step, and the codecs of the values that it saved."""
    model = small_network().to(device)
    if recipe is not None:
        model = elide(model, recipe, engine=engine)
    torch.manual_seed(1)
    x = torch.randn(4, 8, 8, 8).to(device)
    with saver(model, policy or "none", seed=3) as saved:
        loss = model(x).square().mean()
    loss.backward()
    gradients = [here(p.grad) for p in model.parameters() if p.grad is not None]
    codecs = {
        (row.slot.module, row.slot.name): row.codec
        for row in saved.ledger.rows
        if row.slot.role in SMOOTH_ROLES
    }
    return [here(loss.detach()), *gradients], codecs


def assert_same(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    "policy",
    [
        *("exact", "int8", "bits(4)", "bits(2.5)", "guaranteed(0.1)", "expected(0.1)"),
        *("budget(0.5)", "derived", "blpa", "jpeg", "sfpr", "fp8", "checked(bits(4))"),
    ],
)
def test_savers_pack_the_same_bits(policy: str) -> None:
    expected, packed = step("cpu", policy)
    found, packed_there = step(NAME, policy)
    assert_same(found, expected)
    assert packed_there == packed


@pytest.mark.parametrize(
    "codec",
    [
        *(GroupQuant(3), GroupQuant(1), GroupQuant(8, 24, "stochastic")),
        *(SparseGroupQuant(4), FixedPoint(6), Float8(), Division(2), TwoValued()),
        *(Jpeg(4), Jpeg(4, coding="deflate"), ZeroValue(), ThresholdMask()),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_codecs_restore_the_same_bits(codec: Any, dtype: torch.dtype) -> None:
    x = torch.randn(2, 3, 11, 19, generator=torch.Generator().manual_seed(0)).relu()
    x = (x > 0 if isinstance(codec, TwoValued) else x).to(dtype)
    role = next(iter(codec.roles))
    slot = Slot("ConvolutionBackward0", "input", role, nonnegative=True, seed=5)
    expected, packed = codec.pack(x, slot), codec.pack(x.to(NAME), slot)
    assert (packed is None) == (expected is None)
    if expected is not None:
        restored = codec.unpack(packed)
        assert restored.device.type == NAME
        assert torch.equal(here(restored), codec.unpack(expected))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("method", sorted(set(METHODS) - ALIKE))
def test_recipes_compute_the_same_step(method: str) -> None:
    expected, _ = step("cpu", recipe=make_recipe(method), engine="torch")
    found, _ = step(NAME, recipe=make_recipe(method), engine="native")
    assert_same(found, expected)


def test_the_native_engine_steps_aside() -> None:
    x, w = torch.randn(64, 64), torch.randn(64, 64) * (torch.rand(64, 64) > 0.9)
    product = LayerProduct(Product.FORWARD, MatmulGeometry(64, 64, 64), x, w)
    there = LayerProduct(
        Product.FORWARD, MatmulGeometry(64, 64, 64), x.to(NAME), w.to(NAME)
    )
    assert make_engine("native").choose(product, Hint("weight")).name == "native"
    assert NativeEngine().choose(there, Hint("weight")).name == "torch"
    assert torch.equal(here(NativeEngine().compute(there, Hint("weight"))), x @ w.T)


def trained(spec: str, memory: str | None, device: str, folder: Path) -> TrainResult:
    small = Workload(
        name="small",
        dataset="digits",
        model="cnn",
        epochs=2,
        train_images=64,
        test_images=32,
        batch_size=32,
    )
    data = small.load_dataset()
    recipe = make_recipe(spec, steps=2 * small.steps_per_epoch(data))
    execution = Execution(memory=memory, engine="auto", device=device)
    results = [
        train(small, recipe, data, plan, execution=execution, folder=folder)
        for plan in (
            RunPlan(record_epochs=(1,), meter_every=2, pause_after=1),
            RunPlan(record_epochs=(1,), meter_every=2),
        )
    ]
    return results[-1]


@pytest.mark.parametrize(
    ("spec", "memory"),
    [("swat", "bits(4)"), ("rigl", None), ("dst", None)],
)
def test_training_goes_on_from_its_checkpoint_as_on_the_cpu(
    spec: str, memory: str | None, tmp_path: Path
) -> None:
    expected = trained(spec, memory, "cpu", tmp_path / "cpu")
    found = trained(spec, memory, NAME, tmp_path / NAME)
    assert found.history == expected.history
    assert found.saved_bytes == expected.saved_bytes
    assert found.meter.total() == expected.meter.total()
    assert {x.device.type for x in found.model.state_dict().values()} == {NAME}
    for ours, oracle in zip(found.trace, expected.trace, strict=True):
        assert ours.geometry == oracle.geometry
