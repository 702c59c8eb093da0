"""Choosing an engine: by time, once a machine, and the same ever after."""

import copy
import json
import pickle
import threading

import pytest
import torch

from elision.common import timing
from elision.engines import (
    ENGINES,
    AutoEngine,
    Decision,
    Decisions,
    Hint,
    NativeEngine,
    TorchEngine,
    decisions,
    make_engine,
)
from elision.engines import auto as choice
from elision.engines.auto import LEVELS, density_level
from elision.engines.native import library
from elision.products import LayerProduct, MatmulGeometry, Product

GEOMETRY = MatmulGeometry(40, 60, 80)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Decisions in a folder of this test, for products of any size."""
    monkeypatch.setenv("ELISION_CACHE", str(tmp_path))
    monkeypatch.setattr(choice, "LEAST_MACS", 0)
    return tmp_path


class Clock:
    """Time that passes only while an engine computes, as fast as the test says."""

    def __init__(self, monkeypatch, native, torch_):
        self.now = 0.0
        self.cost = {"native": native, "torch": torch_}
        self.ran = []
        for clock in ("perf_counter", "thread_time"):
            monkeypatch.setattr(timing.time, clock, lambda: self.now)
        for kind in (NativeEngine, TorchEngine):
            monkeypatch.setattr(kind, "compute", self.timed(kind.name))
        monkeypatch.setattr(NativeEngine, "unavailable", lambda self: None)

    def timed(self, name):
        def compute(engine, product, hint):
            self.now += self.cost[name]
            self.ran.append(name)
            return product.compute()

        return compute


def forward(engine, density=0.2, geometry=GEOMETRY):
    x = torch.ones(geometry.shape_of("input"))
    weight = torch.zeros(geometry.shape_of("weight"))
    weight.view(-1)[: int(density * weight.numel())] = 1
    result = engine.compute(
        LayerProduct(Product.FORWARD, geometry, x, weight), Hint("weight")
    )
    assert torch.equal(result, x @ weight.T)


@pytest.mark.parametrize(
    ("native", "torch_", "winner"), [(1, 3, "native"), (3, 1, "torch")]
)
def test_the_faster_engine_computes_from_the_first_result_on(
    monkeypatch, caplog, native, torch_, winner
):
    caplog.set_level("DEBUG", "elision")
    clock = Clock(monkeypatch, native, torch_)
    engine = AutoEngine(trials=2)
    forward(engine)
    assert clock.ran == ["torch", "native"] * 3 + [winner]
    (decision,) = decisions()
    assert decision.winner == winner
    assert decision.seconds == {"native": native, "torch": torch_}
    assert f"density 0.2, {torch.get_num_threads()} threads: {winner}" in str(decision)
    assert str(decision) in caplog.text
    caplog.clear()
    for another in (engine, AutoEngine()):
        forward(another)
    assert clock.ran[7:] == [winner] * 2
    assert caplog.text == ""


def test_a_new_process_reads_what_the_first_decided(monkeypatch, cache):
    clock = Clock(monkeypatch, 3, 1)
    forward(AutoEngine())
    (path,) = cache.glob("decisions-*.json")
    monkeypatch.setattr("elision.engines.decision._OPEN", {})
    clock.cost = {"native": 1, "torch": 3}
    clock.ran.clear()
    forward(AutoEngine())
    assert clock.ran == ["torch"]
    path.write_text("{ damaged")
    monkeypatch.setattr("elision.engines.decision._OPEN", {})
    forward(AutoEngine())
    assert clock.ran[-1] == "native"
    assert len(json.loads(path.read_text())) == 1


def test_each_level_of_density_is_a_question_of_its_own(monkeypatch):
    clock = Clock(monkeypatch, 1, 3)
    engine = AutoEngine()
    forward(engine, 0.2)
    clock.cost = {"native": 3, "torch": 1}
    for density, expected in [(0.5, "torch"), (0.2, "native"), (0.49, "torch")]:
        forward(engine, density)
        assert clock.ran[-1] == expected
    assert len(list(decisions())) == 2
    clock.ran.clear()
    forward(engine, 1.0)  # nothing is left out: no trial
    assert clock.ran == ["torch"]


def test_levels_of_density():
    torch.manual_seed(0)
    x = torch.rand(20, 30, 7, 9)
    for share in (1.0, 0.5, 0.2, 0.1, 0.05, 0.01):
        value = x * (torch.rand_like(x) < share)
        assert density_level(value) == share
        assert density_level(value.contiguous(memory_format=torch.channels_last)) == (
            share
        )
    assert density_level(torch.zeros(5)) == LEVELS[-1]
    assert density_level(torch.ones(5)) == 1.0


def test_two_processes_that_decide_at_once_agree(tmp_path):
    path = tmp_path / "decisions.json"
    first, second = Decisions(path), Decisions(path)
    slow = first.add(Decision("q", {"native": 2.0, "torch": 1.0}))
    assert second.add(Decision("q", {"native": 1.0, "torch": 2.0})) == slow
    second.add(Decision("r", {"native": 1.0, "torch": 2.0}))
    assert {d.question for d in Decisions(path)} == {"q", "r"}


def test_threads_that_meet_a_question_together_try_it_once(monkeypatch):
    clock = Clock(monkeypatch, 1, 3)
    threads = [
        threading.Thread(target=lambda: forward(AutoEngine(trials=1))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clock.ran.count("torch") == 2


def test_a_folder_that_cannot_be_written_is_told(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    book = Decisions(tmp_path / "file" / "decisions.json")
    made = book.add(Decision("q", {"native": 1.0}))
    assert book.find("q") == made
    assert "cannot keep decisions" in caplog.text


def test_torch_alone_where_native_has_no_way_or_is_not_there(monkeypatch):
    clock = Clock(monkeypatch, 1, 3)
    engine = AutoEngine()
    values = [torch.ones(GEOMETRY.shape_of(n)) for n in ("input", "weight")]
    engine.compute(LayerProduct(Product.FORWARD, GEOMETRY, *values))
    engine.compute(LayerProduct(Product.FORWARD, GEOMETRY, *values), Hint("input"))
    monkeypatch.setattr(NativeEngine, "unavailable", lambda self: "no compiler")
    forward(engine)
    monkeypatch.setattr(NativeEngine, "unavailable", lambda self: None)
    monkeypatch.setattr(choice, "LEAST_MACS", GEOMETRY.dense_macs + 1)
    forward(engine)
    assert clock.ran == ["torch"] * 4
    assert list(decisions()) == []


def test_engines_by_name_copied_and_pickled(monkeypatch):
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
    monkeypatch.setattr(NativeEngine, "unavailable", lambda self: "no compiler")
    with pytest.raises(RuntimeError, match="native engine cannot be used here: no com"):
        make_engine("native")
