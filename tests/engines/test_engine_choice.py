"""Choosing an engine: by time, per product, and again when the density moves."""

import copy
import pickle

import pytest
import torch

from elision.engines import (
    ENGINES,
    AutoEngine,
    NativeEngine,
    TorchEngine,
    choice,
    make_engine,
)
from elision.engines.native import library
from elision.products import LayerProduct, MatmulGeometry, Product

GEOMETRY = MatmulGeometry(4, 6, 8)


class Clock:
    """Time that passes only while an engine computes, as fast as the test says."""

    def __init__(self, monkeypatch, native, torch_):
        self.now = 0.0
        self.cost = {"native": native, "torch": torch_}
        self.ran = []
        monkeypatch.setattr(choice.time, "perf_counter", lambda: self.now)
        for kind in (NativeEngine, TorchEngine):
            monkeypatch.setattr(kind, "product", self.timed(kind.name))
        monkeypatch.setattr(NativeEngine, "unavailable", lambda self: None)

    def timed(self, name):
        def product(engine, kind, geometry, first, second, **_):
            self.now += self.cost[name]
            self.ran.append(name)
            return LayerProduct(kind, geometry, first, second).compute()

        return product


def forward(engine, density=0.25):
    x = torch.ones(GEOMETRY.shape_of("input"))
    weight = torch.zeros(GEOMETRY.shape_of("weight"))
    weight.view(-1)[: int(density * weight.numel())] = 1
    result = engine.product(Product.FORWARD, GEOMETRY, x, weight, sparse="weight")
    assert torch.equal(result, x @ weight.T)


@pytest.mark.parametrize(
    ("native", "torch_", "winner"), [(1, 3, "native"), (3, 1, "torch")]
)
def test_the_faster_engine_is_kept(monkeypatch, native, torch_, winner):
    clock = Clock(monkeypatch, native, torch_)
    engine = AutoEngine(trials=2)
    for _ in range(6):
        forward(engine)
    assert sorted(clock.ran) == ["native"] * 3 + ["torch"] * 3
    (decision,) = engine.decisions
    assert (decision.engine, decision.density) == (winner, 0.25)
    assert (decision.native_seconds, decision.torch_seconds) == (native, torch_)
    assert winner in str(decision)
    for _ in range(5):
        forward(engine)
    assert clock.ran[6:] == [winner] * 5


def test_a_density_that_moved_reopens_the_decision(monkeypatch):
    clock = Clock(monkeypatch, 1, 3)
    engine = AutoEngine(trials=1, review=10, drift=0.25)
    for _ in range(30):
        forward(engine, 0.25)
    assert clock.ran[4:] == ["native"] * 26
    clock.cost["native"] = 9
    for _ in range(30):
        forward(engine, 0.75)
    assert clock.ran[-1] == "torch"
    assert engine.decisions[0].density == 0.75


def test_torch_alone_where_native_has_no_way_or_is_not_there(monkeypatch):
    clock = Clock(monkeypatch, 1, 3)
    engine = AutoEngine()
    values = [torch.ones(GEOMETRY.shape_of(n)) for n in ("input", "weight")]
    engine.product(Product.FORWARD, GEOMETRY, *values, sparse="input")
    monkeypatch.setattr(NativeEngine, "unavailable", lambda self: "no compiler")
    forward(engine)
    assert clock.ran == ["torch", "torch"]
    assert engine.decisions == []
    with pytest.raises(RuntimeError, match="native engine cannot be used here: no com"):
        make_engine("native")


def test_engines_by_name_copied_and_pickled():
    with pytest.raises(ValueError, match=r"unknown engine 'nativ'.*did you mean"):
        make_engine("nativ")
    for name in ENGINES:
        if name == "native" and library.unavailable() is not None:
            continue
        engine = make_engine(name)
        forward(engine)
        for other in (copy.deepcopy(engine), pickle.loads(pickle.dumps(engine))):
            assert type(other) is type(engine)
            forward(other)
