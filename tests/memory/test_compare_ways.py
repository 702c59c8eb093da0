"""Ways to train in less memory: tried on the model, which stays as it was."""

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from memory_nets import images, resnet
from torch import Tensor, nn

from elision.memory import Comparison, Way, compare_ways, saver
from elision.memory.measures.ways import _blocks

MIB = 2**20


class Net(nn.Module):
    """A net with blocks, batch norm, dropout and a buffer that changes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net, self.dropout = resnet(), nn.Dropout(0.5)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        self.calls += 1
        return {"scores": self.dropout(self.net(x))}


@pytest.fixture(scope="module")
def compared() -> tuple[Net, Comparison, dict[str, Any], dict[str, Any]]:
    model, (x, labels) = Net(), images()
    model(x)["scores"].sum().backward()
    handle = model.register_forward_hook(lambda *_: None)
    frozen = model.net[0].weight
    frozen.grad = None
    before = state_of(model)
    found = compare_ways(
        model,
        x,
        lambda result: F.cross_entropy(result["scores"], labels),
        limit_bytes=1,
        ways=["exact", "bits(4)", "checkpoint", "checkpoint+bits(4)", "save_on_cpu"],
        rounds=2,
    )
    after = state_of(model)
    handle.remove()
    return model, found, before, after


def state_of(model: nn.Module) -> dict[str, Any]:
    gradients = {n: p.grad for n, p in model.named_parameters()}
    return {
        "values": {n: t.clone() for n, t in model.state_dict().items()},
        "gradients": gradients,
        "copies": {n: g if g is None else g.clone() for n, g in gradients.items()},
        "versions": {n: p._version for n, p in model.named_parameters()},
        "random": torch.get_rng_state(),
        "seeds": saver(model)._seed,
        "hooks": [
            (len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()
        ],
        "own": [sorted(vars(m)) for m in model.modules()],
    }


def test_nothing_of_the_users_changes(
    compared: tuple[Net, Comparison, dict[str, Any], dict[str, Any]],
) -> None:
    _, _, before, after = compared
    for kind in ("values", "copies"):
        for name, value in before[kind].items():
            other = after[kind][name]
            assert (value is None and other is None) or torch.equal(value, other), name
    for name, gradient in before["gradients"].items():
        assert after["gradients"][name] is gradient  # the same objects
    assert torch.equal(before["random"], after["random"])
    assert after["seeds"] == before["seeds"] + 1  # of the saver made here
    for kind in ("versions", "hooks", "own"):
        assert before[kind] == after[kind], kind


def test_every_way_is_measured_beside_the_plain_step(
    compared: tuple[Net, Comparison, dict[str, Any], dict[str, Any]],
) -> None:
    _, found, *_ = compared
    ways = {way.name: way for way in found.ways}
    assert list(ways) == [
        *("plain", "exact", "bits(4)", "checkpoint", "checkpoint + bits(4)"),
        "save_on_cpu",
    ]
    assert found.blocks == ("net.3", "net.4", "net.5", "net.6")
    assert not any(way.failed for way in found.ways)
    for name in ("plain", "exact", "checkpoint", "save_on_cpu"):
        assert ways[name].gradient_error == 0, name
    assert 0 < ways["bits(4)"].gradient_error < 0.5
    for name in ("exact", "bits(4)", "checkpoint"):
        assert ways[name].peak_bytes < ways["plain"].peak_bytes, name
        assert ways[name].peak_ratio > 1
    assert all(len(way.seconds) == 2 for way in found.ways)
    assert ways["plain"].time_ratios == (1, 1)
    assert found.to_dicts()[1]["peak_bytes"] == ways["exact"].peak_bytes
    table = str(found)
    assert all(name in table for name in ways)


def test_the_verdict_says_by_how_much_nothing_fits(
    compared: tuple[Net, Comparison, dict[str, Any], dict[str, Any]],
) -> None:
    _, found, *_ = compared
    assert found.cheapest is None
    assert found.verdict.startswith("no way fits 0.0 MiB: the smallest, ")
    assert f"{(found.smallest.peak_bytes - 1) / MIB:.1f} MiB too much" in found.verdict
    wide = dataclasses.replace(found, limit_bytes=found.ways[0].peak_bytes)
    assert wide.cheapest is found.ways[0]
    assert wide.verdict.startswith("cheapest within")


def _way(name: str, mib: float, time: float, error: float = 0.0) -> Way:
    return Way(name, int(mib * MIB), (time,), 100 / mib, (time,), error)


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        (None, "cheapest: plain, 100.0 MiB at 1.00x"),
        (100 * MIB, "cheapest within 100.0 MiB: plain"),
        (60 * MIB, "cheapest within 60.0 MiB: checkpoint, 50.0 MiB at 1.30x the time"),
        (
            45 * MIB,
            "bits(4), 40.0 MiB at 1.50x the time of the plain step; gradients off by 3 %",
        ),
        (
            30 * MIB,
            "no way fits 30.0 MiB: the smallest, bits(4), has a peak of 40.0 MiB, 10.0 MiB",
        ),
    ],
)
def test_the_cheapest_way_within_a_limit(limit: float | None, said: str) -> None:
    ways = (
        _way("plain", 100, 1.0),
        _way("checkpoint", 50, 1.3),
        _way("bits(4)", 40, 1.5, 0.03),
        Way("offload", failed="no disk"),
    )
    found = Comparison(ways, limit)
    assert said in found.verdict
    assert "offload                  not measured: no disk" in found.table()


class _Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(16, 32), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][-1])


@pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="no LSTM of oneDNN"
)
def test_an_lstm_is_tried_without_onednn_and_has_no_blocks() -> None:
    found = compare_ways(_Recurrent(), torch.randn(16, 4, 16), rounds=1)
    ways = {way.name: way for way in found.ways}
    assert ways["without oneDNN"].peak_bytes < ways["plain"].peak_bytes
    assert ways["without oneDNN"].gradient_error < 1e-5
    assert "name them by blocks=" in ways["checkpoint"].failed
    assert found.blocks == ()


def test_what_cannot_be_tried_is_refused_with_what_can() -> None:
    model, x = nn.Sequential(nn.Linear(8, 8)), torch.randn(4, 8)
    with pytest.raises(ValueError, match="unknown memory policy"):
        compare_ways(model, x, ways=["bitz(4)"])
    with pytest.raises(ValueError, match="no such module; its modules: 0"):
        compare_ways(model, x, blocks=["1"])
    with pytest.raises(ValueError, match="rounds"):
        compare_ways(model, x, rounds=0)
    with pytest.raises(ValueError, match="limit_bytes"):
        compare_ways(model, x, limit_bytes=0)
    with pytest.raises(ValueError, match="give loss="):
        compare_ways(nn.Identity(), x, ways=["exact"])


def test_a_failing_forward_pass_leaves_the_model_as_it_was() -> None:
    model = nn.Sequential(
        nn.Sequential(nn.Linear(8, 8)), nn.Sequential(nn.Linear(8, 8))
    )
    with pytest.raises(RuntimeError, match="shape"):
        compare_ways(model, torch.randn(4, 9), ways=["checkpoint"])
    assert all("forward" not in vars(module) for module in model.modules())


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (resnet, ["3", "4", "5", "6"]),
        (lambda: nn.Sequential(nn.Linear(2, 2), nn.ReLU()), []),
        (
            lambda: nn.ModuleDict({"stages": nn.Sequential(_stage(1), _stage(2))}),
            ["stages.0.0", "stages.1.0", "stages.1.1"],
        ),
    ],
)
def test_blocks_are_the_members_of_the_outermost_containers(
    make: Any, expected: list[str]
) -> None:
    assert list(_blocks(make())) == expected


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 2), nn.ReLU())


def _stage(blocks: int) -> nn.Sequential:
    return nn.Sequential(*(_Block() for _ in range(blocks)))
