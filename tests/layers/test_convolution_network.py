"""One network with convolutions of every rank: every method, tool and engine."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import elision
from elision import Product
from elision.accelerators import ACCELERATORS
from elision.accelerators.simulate import simulate
from elision.layers import elided_layers, plan_of
from elision.products import Trace


class Network(nn.Module):
    """Every kind of convolution, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.line = nn.Conv1d(4, 8, 3, padding=1)
        self.image = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.block = nn.Conv3d(8, 8, (1, 3, 2))
        self.block_up = nn.ConvTranspose3d(8, 8, 2, groups=2)
        self.image_up = nn.ConvTranspose2d(8, 8, 3, stride=2, output_padding=1)
        self.line_up = nn.ConvTranspose1d(8, 4, 2, stride=2)
        self.rows = nn.Linear(4, 4)
        with torch.no_grad():  # so that sparse layers pass signals on
            for parameter in self.parameters():
                parameter.mul_(3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.line(x)).unflatten(2, (4, 3))
        x = F.leaky_relu(self.image(x)).unflatten(3, (3, 1)).transpose(2, 4)
        x = F.leaky_relu(self.block(F.pad(x, (0, 1))))
        x = F.leaky_relu(self.block_up(x)).flatten(3)
        x = F.leaky_relu(self.image_up(x)).flatten(2)
        x = F.leaky_relu(self.line_up(x[..., :6]))
        return self.rows(x.mean(2))


def batch(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(4, 4, 12, generator=generator)
    return x, torch.randint(0, 4, (4,), generator=generator)


def pass_of(model: nn.Module) -> list[Tensor]:
    """Output and gradients of the parameters."""
    y = model(batch(0)[0])
    y.square().sum().backward()
    return [y.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


def equal(found: list[Tensor], expected: list[Tensor]) -> bool:
    return len(found) == len(expected) and all(map(torch.equal, found, expected))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        x, labels = batch(step)
        optimizer.zero_grad()
        F.cross_entropy(model(x), labels).backward()
        optimizer.step()


@pytest.mark.filterwarnings("ignore::elision.topology.install.ScheduleWarning")
@pytest.mark.filterwarnings("ignore:step .* has reached its bound")
@pytest.mark.parametrize("name", elision.methods.METHODS)
def test_every_method_trains_the_network_and_resumes(name: str) -> None:
    def started() -> tuple[nn.Module, Any]:
        method = elision.methods.make_recipe(name, steps=8)
        model = elision.elide(Network(), method, engine="torch")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        elision.topology.attach(model, optimizer)
        return model, optimizer

    model, optimizer = started()
    before = copy.deepcopy(Network().state_dict())
    assert before.keys() <= model.state_dict().keys()
    train(model, optimizer, range(4))
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    train(model, optimizer, range(4, 8))
    again, other = started()
    again.load_state_dict(saved[0])
    other.load_state_dict(saved[1])
    train(again, other, range(4, 8))
    state = model.state_dict()
    for key, value in again.state_dict().items():
        assert torch.equal(value, state[key]), key
    moved = [k for k in before if not torch.equal(before[k], state[k])]
    assert {f"{n}.weight" for n, _ in elided_layers(model)} <= set(moved)
    restored = elision.restore(model)
    assert {type(m) for m in restored.children()} == {
        type(m) for m in Network().children()
    }
    assert restored.state_dict().keys() == before.keys()


def test_work_is_torch_s_and_nothing_is_left_out() -> None:
    model, (x, _) = elision.elide(Network(), elision.methods.Swat(0.5)), batch(0)
    with elision.metered(model) as meter:
        model(x).sum().backward()
    with FlopCounterMode(display=False) as counter:
        plain = Network()
        plain(x).sum().backward()
    assert meter.outside == {}
    flops = counter.get_total_flops() // 2
    # Torch counts the weight gradient of groups that many times too high.
    more = sum(
        (m.groups - 1) * meter.by_layer[n, Product.WEIGHT_GRAD].dense_macs
        for n, m in model.named_children()
        if isinstance(m, nn.modules.conv._ConvNd)
    )
    assert meter.total().dense_macs == flops - more
    found = elision.explain(Network(), x)
    assert (found.unreached, found.share) == ([], 1.0)


def test_a_trace_is_saved_read_and_simulated(tmp_path: Path) -> None:
    model = elision.elide(Network(), elision.methods.Swat(0.5, dense=()))
    with elision.record(model) as recorder:
        model(batch(0)[0]).sum().backward()
    recorder.save(tmp_path / "trace")
    trace = Trace.load(tmp_path / "trace")
    assert trace.layers == [n for n, _ in elided_layers(model)]
    for found, product in zip(trace, recorder, strict=True):
        assert (found.geometry, found.kind) == (product.geometry, product.kind)
        assert torch.equal(found.compute(), product.compute())
    planar = [p for p in trace if "block" not in p.name]
    machines = {name: make() for name, make in ACCELERATORS.items()}
    rows = list(simulate(planar, machines))
    assert {row.accelerator for row in rows} == set(machines)
    assert all(row.cost.cycles > 0 for row in rows)


@pytest.mark.parametrize("name", ["swat", "static", "dst", "n-m"])
def test_a_finalised_network_is_plain_and_saved_sparse(
    name: str, tmp_path: Path
) -> None:
    method = elision.methods.make_recipe(name, dense=())
    model = elision.elide(Network(), method, engine="torch").eval()
    x, _ = batch(0)
    expected = model(x)
    plain = elision.export.finalize(model)
    assert torch.equal(plain(x), expected)
    assert type(plain.line_up) is nn.ConvTranspose1d
    elision.export.save_sparse(plain, tmp_path / "model", below=0.99)
    loaded = elision.export.load_sparse(tmp_path / "model")
    state = plain.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[key], state[key]) for key in state)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_step_is_the_plain_one(reentrant: bool) -> None:
    def gradients(again: bool) -> list[Tensor]:
        method = elision.methods.Swat(0.5, refresh=2, dense=())
        model = elision.elide(Network(), method, engine="torch")
        for step in range(2):
            x = batch(step)[0].requires_grad_()
            y = checkpoint(model, x, use_reentrant=reentrant) if again else model(x)
            assert isinstance(y, Tensor)
            y.square().sum().backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    assert equal(gradients(True), gradients(False))


@pytest.mark.parametrize("policy", ["exact", "bits:average=4", "jpeg", "fp8"])
def test_saved_activations_are_kept_by_a_policy(policy: str) -> None:
    model = elision.elide(Network(), elision.methods.Swat(0.5, dense=()))
    x, labels = batch(0)
    with elision.memory.saver(model, policy):
        F.cross_entropy(model(x), labels).backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("engine", ["torch", "native", "auto"])
def test_every_engine_computes_the_same(engine: str) -> None:
    def found(engine: str) -> list[Tensor]:
        method = elision.methods.Swat(0.7, dense=())
        return pass_of(elision.elide(Network(), method, engine=engine))

    for a, b in zip(found(engine), found("torch"), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_the_table_of_a_transposed_layer_prints_as_the_recipe_s() -> None:
    method = elision.methods.SwatStructured(0.5, dense=())
    model: Any = elision.elide(Network(), method)
    assert str(plan_of(model.line_up).table) == str(plan_of(model.line).table)


@pytest.mark.parametrize("name", ["swat", "resprop", "mxfp8", "bf16:accumulate=fp16"])
def test_a_compiled_network_computes_the_same(name: str) -> None:
    torch._dynamo.reset()
    method = elision.methods.make_recipe(name, dense=())
    eager, other = (elision.elide(Network(), method, engine="auto") for _ in range(2))
    compiled: Any = torch.compile(other, backend="aot_eager", fullgraph=True)
    for step in range(2):
        x, _ = batch(step)
        a, b = eager(x), compiled(x)
        torch.testing.assert_close(a, b)
        a.square().sum().backward()
        b.square().sum().backward()
    for p, q in zip(eager.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


@pytest.mark.parametrize("name", ["swat", "dst", "resprop", "mxfp8"])
def test_under_autocast_products_are_of_bfloat16(name: str) -> None:
    method = elision.methods.make_recipe(name, dense=())
    model = elision.elide(Network(), method, engine="torch")
    x, labels = batch(0)
    with elision.record(model) as trace, torch.autocast("cpu", torch.bfloat16):
        F.cross_entropy(model(x), labels).backward()
    for product in trace:
        assert {v.dtype for v in product.operands.values()} == {torch.bfloat16}
    assert all(p.grad is not None for p in model.parameters())
