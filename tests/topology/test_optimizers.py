"""Optimisers in wrappers, several of them, and those that masks cannot follow."""

import copy
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sparse_models import MOVING, batch, gradient, sgd, small_net, train
from torch import Tensor, nn

import elision
from elision import methods
from elision.topology import UnattachedWarning


class Sam(torch.optim.Optimizer):
    """Sharpness-aware minimisation: climb, then descend from where it was."""

    def __init__(self, params: Any, base: Any, rho: float = 0.05, **how: Any) -> None:
        super().__init__(params, {"rho": rho, **how})
        self.base_optimizer = base(self.param_groups, **how)
        self.param_groups = self.base_optimizer.param_groups

    @torch.no_grad()
    def first_step(self) -> None:
        grads = [
            p.grad for g in self.param_groups for p in g["params"] if p.grad is not None
        ]
        norm = torch.stack([grad.norm() for grad in grads]).norm()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.state[p]["old_p"] = p.data.clone()
                    p.add_(p.grad * group["rho"] / (norm + 1e-12))
        self.zero_grad()

    @torch.no_grad()
    def second_step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.data = self.state[p]["old_p"]
        self.base_optimizer.step()
        self.zero_grad()

    def step(self, closure: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        loss = torch.enable_grad()(closure)()
        self.first_step()
        torch.enable_grad()(closure)()
        self.second_step()
        return loss


class Lookahead(torch.optim.Optimizer):
    """Slow weights that follow the fast ones; kept in the wrapper's own state."""

    def __init__(self, optimizer: torch.optim.Optimizer, k: int = 3) -> None:
        self.optimizer, self.k, self.count = optimizer, k, 0
        super().__init__(optimizer.param_groups, {})
        self.param_groups = optimizer.param_groups

    def step(self, closure: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        loss = self.optimizer.step(closure)
        self.count += 1
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    slow = self.state[p].setdefault("slow", p.detach().clone())
                    if self.count % self.k == 0:
                        slow.add_(p - slow, alpha=0.5)
                        p.copy_(slow)
        return loss


class SlowList(Lookahead):
    """Slow weights in a list of its own."""

    def __init__(self, optimizer: torch.optim.Optimizer, k: int = 3) -> None:
        super().__init__(optimizer, k)
        own = [p for group in self.param_groups for p in group["params"]]
        self.slow = [(p, p.detach().clone()) for p in own]

    def step(self, closure: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        loss = self.optimizer.step(closure)
        self.count += 1
        with torch.no_grad():
            for p, slow in self.slow if self.count % self.k == 0 else ():
                slow.add_(p - slow, alpha=0.5)
                p.copy_(slow)
        return loss


class Holder:
    """A wrapper that is no optimiser of torch."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optim = optimizer

    def zero_grad(self) -> None:
        self.optim.zero_grad()

    def step(self) -> None:
        self.optim.step()


class Both:
    """A wrapper of several optimisers."""

    def __init__(self, optimizers: list[torch.optim.Optimizer]) -> None:
        self.optimizers = optimizers

    def zero_grad(self) -> None:
        for each in self.optimizers:
            each.zero_grad()

    def step(self) -> None:
        for each in self.optimizers:
            each.step()


class Grouped(Both):
    """A wrapper of several optimisers that shows the groups of all."""

    def __init__(self, optimizers: list[torch.optim.Optimizer]) -> None:
        super().__init__(optimizers)
        self.param_groups = [
            group for each in optimizers for group in each.param_groups
        ]


def of_timm(model: nn.Module) -> Any:
    if importlib.util.find_spec("torchvision") is not None:
        from elision.workloads.libraries.torchvision import import_torchvision

        import_torchvision()
    return pytest.importorskip("timm.optim").Lookahead(sgd(model), k=3)


def muon_and_adam(model: Any) -> list[torch.optim.Optimizer]:
    """Orthogonal updates, which fill every place, for matrices; the rest by Adam."""
    matrices = [p for p in model.parameters() if p.dim() == 2]
    others = [p for p in model.parameters() if p.dim() != 2]
    return [torch.optim.Muon(matrices, lr=1e-2), torch.optim.AdamW(others, lr=1e-2)]


def two(model: Any) -> list[torch.optim.Optimizer]:
    """One optimiser for matrices and kernels, another for the head and vectors."""
    head = [*model[9].parameters(), *(p for p in model.parameters() if p.dim() == 1)]
    rest = [p for p in model.parameters() if p.dim() > 1 and p is not model[9].weight]
    unique = list({id(p): p for p in head}.values())
    first = torch.optim.SGD(rest, lr=0.1, momentum=0.9, weight_decay=1e-3)
    return [first, torch.optim.AdamW(unique, lr=1e-2)]


WRAPPERS: dict[str, Callable[[nn.Module], Any]] = {
    "lookahead": lambda m: Lookahead(sgd(m)),
    "lookahead of timm": of_timm,
    "lookahead with a list": lambda m: SlowList(sgd(m)),
    "no optimiser": lambda m: Holder(sgd(m)),
    "a chain": lambda m: Holder(Lookahead(Lookahead(sgd(m)), k=2)),  # pyright: ignore[reportArgumentType]
    "several": lambda m: Both(two(m)),
    "several, with groups": lambda m: Grouped(two(m)),
    "muon": lambda m: Both(muon_and_adam(m)),
}


def check_outside(topology: Any) -> None:
    """Nothing is outside the masks: weights, gradients, optimiser and wrapper state."""
    for part in topology.parts:
        for weight in part.own:
            assert not weight.weight[~weight.mask].any()
            for state in part.stepper.states(weight.weight):
                for value in state.values():
                    if isinstance(value, Tensor) and value.shape == weight.shape:
                        assert not value[~weight.mask].any()


@pytest.mark.parametrize("name", ["rigl", "set", "snfs-gradient", "dsr", "srigl"])
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapper_is_seen_through(wrapper: str, name: str) -> None:
    model = elision.elide(small_net(), MOVING[name], engine="torch")
    optimizer = WRAPPERS[wrapper](model)
    topology = elision.topology.attach(model, optimizer)
    nnz = topology.nnz
    for number in range(13):
        gradient(model, optimizer, number)
        optimizer.step()
        check_outside(topology)
    assert topology.step == 14
    assert any(move.grown for move in topology.history)
    if name != "srigl":
        assert topology.nnz == nnz


@pytest.mark.parametrize("closure", [True, False])
@pytest.mark.parametrize("name", ["rigl", "static", "dst", "snfs", "n-m"])
def test_sharpness_aware_steps_count_once(name: str, closure: bool) -> None:
    model = elision.elide(small_net(), MOVING[name], engine="torch")
    optimizer = Sam(model.parameters(), torch.optim.SGD, lr=0.1, momentum=0.9)
    topology = elision.topology.attach(model, optimizer)
    for number in range(9):
        if closure:

            def evaluate(number: int = number) -> Tensor:
                return gradient(model, optimizer, number)

            optimizer.step(evaluate)
        else:
            gradient(model, optimizer, number)
            optimizer.first_step()
            gradient(model, optimizer, number)
            optimizer.second_step()
    assert topology.step == 10
    if name in ("rigl", "snfs"):
        assert any(move.grown for move in topology.history)
    if name in ("rigl", "static"):
        check_outside(topology)


@pytest.mark.parametrize("engine", ["torch", "native"])
def test_sharpness_aware_steps_climb_by_active_weights_alone(engine: str) -> None:
    model = elision.elide(small_net(), methods.Static(0.9), engine=engine)
    optimizer = Sam(model.parameters(), torch.optim.SGD, lr=0.1)
    topology = elision.topology.attach(model, optimizer)
    gradient(model, optimizer, 0)
    active = torch.cat(
        [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    )
    optimizer.first_step()
    for weight in topology.weights:
        assert not weight.weight[~weight.mask].any()
    climbed = sum(
        float((p - optimizer.state[p]["old_p"]).detach().square().sum())
        for p in model.parameters()
    )
    assert climbed**0.5 == pytest.approx(0.05, rel=1e-4)
    assert float(active.norm()) > 0


@pytest.fixture
def alone() -> Iterator[None]:
    """A process group of one process."""
    from torch import distributed

    # In memory: a port would be another test's, too.
    store = distributed.HashStore()
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("name", ["rigl", "snfs", "dst", "gradual"])
def test_a_sharded_optimiser_takes_the_same_steps(alone: None, name: str) -> None:
    from torch.distributed.optim import ZeroRedundancyOptimizer

    found = []
    for sharded in (True, False):
        model = elision.elide(small_net(), MOVING[name], engine="torch")
        how: Any = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3}
        optimizer: Any = (
            ZeroRedundancyOptimizer(model.parameters(), torch.optim.SGD, **how)
            if sharded
            else torch.optim.SGD(model.parameters(), **how)
        )
        topology = elision.topology.attach(model, optimizer)
        train(model, optimizer, range(10))
        found.append((topology.digest(), copy.deepcopy(model.state_dict())))
    assert found[0][0] == found[1][0]
    assert all(torch.equal(found[0][1][k], v) for k, v in found[1][1].items())


def test_accelerate_with_a_wrapper_inside() -> None:
    accelerate = pytest.importorskip("accelerate")
    model = elision.elide(small_net(), MOVING["rigl"], engine="torch")
    accelerator = accelerate.Accelerator(cpu=True)
    prepared, optimizer = accelerator.prepare(model, Lookahead(sgd(model)))
    topology = elision.topology.attach(prepared, optimizer)
    for number in range(7):
        images, labels = batch(number)
        optimizer.zero_grad()
        accelerator.backward(F.cross_entropy(prepared(images), labels))
        optimizer.step()
    assert topology.step == 8
    check_outside(topology)
    assert topology.history


@pytest.mark.parametrize("name", ["rigl", "snfs", "dsr", "gradual", "dst"])
def test_several_optimisers_each_move_their_part(name: str) -> None:
    def make(net: Any) -> list[torch.optim.Optimizer]:
        kernels = [*net[0].parameters(), *net[3].parameters()]
        known = {id(p) for p in kernels}
        rest = [p for p in net.parameters() if id(p) not in known]
        return [torch.optim.SGD(own, lr=0.1, momentum=0.9) for own in (kernels, rest)]

    model = elision.elide(small_net(), MOVING[name], engine="torch")
    first, second = make(model)
    topology = elision.topology.attach(model, [first, second])
    assert [[w.name for w in part.own] for part in topology.parts] == [
        ["0", "3"],
        ["7", "9"],
    ]
    labels = batch(0)[1]
    nnz = topology.nnz
    for number in range(12):
        first.zero_grad()
        second.zero_grad()
        F.cross_entropy(model(batch(number)[0]), labels).backward()
        first.step()
        if number % 2 == 0:
            second.step()
    assert [part.step for part in topology.parts] == [13, 7]
    if name != "dst":
        assert {move.layer for move in topology.history} >= {"3", "7"}
    if name not in ("gradual", "dst"):
        assert topology.nnz == nnz


def test_as_many_steps_of_several_optimisers_are_those_of_one() -> None:
    digests = []
    for split in (True, False):
        model = elision.elide(small_net(), MOVING["rigl"], engine="torch")
        groups = [list(model[:7].parameters()), list(model[7:].parameters())]
        if split:
            optimizer: Any = Both(
                [torch.optim.SGD(g, 0.1, momentum=0.9) for g in groups]
            )
        else:
            optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        topology = elision.topology.attach(model, optimizer)
        train(model, optimizer, range(13))
        digests.append(topology.digest())
    assert digests[0] == digests[1]


def test_two_networks_of_one_module_take_turns() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.g = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 16))
            self.d = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))

    model = elision.elide(Pair(), methods.RigL(0.8, every=3, until=50), engine="torch")
    of_g = torch.optim.Adam(model.g.parameters(), 1e-2)
    of_d = torch.optim.Adam(model.d.parameters(), 1e-2)
    topology = elision.topology.attach(model, [of_g, of_d])
    for _ in range(12):
        noise, real = torch.randn(8, 8), torch.randn(8, 16)
        of_d.zero_grad()
        (
            F.softplus(-model.d(real)) + F.softplus(model.d(model.g(noise)))
        ).mean().backward()
        of_d.step()  # the other network has gradients here, too
        masks = {n: m.clone() for n, m in topology.masks().items() if n.startswith("d")}
        of_g.zero_grad()
        F.softplus(-model.d(model.g(noise))).mean().backward()
        of_g.step()
        assert all(torch.equal(topology.masks()[n], m) for n, m in masks.items())
    assert {move.layer[0] for move in topology.history} == {"g", "d"}
    check_outside(topology)


def test_the_counts_of_several_optimisers_are_saved_and_loaded() -> None:
    def start() -> tuple[nn.Module, list[torch.optim.Optimizer]]:
        model = elision.elide(small_net(), MOVING["dsr"], engine="torch")
        return model, two(model)

    model, optimizers = start()
    topology = elision.topology.attach(model, optimizers)
    for number in range(5):
        gradient(model, Both(optimizers), number)
        optimizers[0].step()
    optimizers[1].step()
    saved = copy.deepcopy(model.state_dict())
    for before in (True, False):
        again, others = start()
        if before:
            again.load_state_dict(saved)
            resumed = elision.topology.attach(again, others)
        else:
            resumed = elision.topology.attach(again, others)
            again.load_state_dict(saved)
        assert [part.step for part in resumed.parts] == [6, 2]
        assert resumed.digest() == topology.digest()
    alone, _ = start()
    alone.load_state_dict(saved)
    assert elision.topology.attach(alone, sgd(alone)).step == 6


def test_an_optimiser_without_torchs_hooks_is_refused() -> None:
    class Own(torch.optim.Optimizer):
        def __init__(self, params: Any) -> None:
            self.param_groups = [{"params": list(params)}]

        def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
            pass

    class Other:
        def __init__(self, params: Any) -> None:
            self.param_groups = [{"params": list(params)}]

        def step(self) -> None:
            pass

    model = elision.elide(small_net(), MOVING["rigl"])
    for kind in (Own, Other):
        with pytest.raises(ValueError, match=rf"^{kind.__name__} runs no step hooks"):
            elision.topology.attach(model, kind(model.parameters()))
        with pytest.raises(
            ValueError, match=rf"^{kind.__name__} inside Holder runs no"
        ):
            elision.topology.attach(model, Holder(kind(model.parameters())))  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"needs an optimiser .*, got list_iterator"):
        elision.topology.attach(model, iter([]))
    some = [torch.optim.SGD(part.parameters(), 0.1) for part in (model[0], model[7:])]
    with pytest.raises(ValueError, match="SGD and SGD do not own the weights of 3"):
        elision.topology.attach(model, some)


def test_an_optimiser_whose_step_never_runs_is_noticed() -> None:
    class Reaches(torch.optim.Optimizer):
        """Takes the step by itself; the optimiser that it holds never does."""

        def __init__(self, optimizer: torch.optim.Optimizer) -> None:
            self.optimizer = optimizer
            super().__init__(optimizer.param_groups, {})

        def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
            with torch.no_grad():
                for group in self.param_groups:
                    for p in group["params"]:
                        if p.grad is not None:
                            p.add_(p.grad, alpha=-0.1)

    net: Any = small_net()
    net[0].weight.requires_grad_(False)
    model = elision.elide(net, MOVING["rigl"], engine="torch")
    optimizer = Reaches(sgd(model))
    elision.topology.attach(model, optimizer)
    with pytest.warns(
        UnattachedWarning, match=r"Reaches\(SGD\).* takes no step"
    ) as caught:
        train(model, optimizer, range(15))
    assert len(caught) == 1


def test_the_optimiser_of_each_weight_steps_in_its_backward_pass() -> None:
    model = elision.elide(small_net(), MOVING["set"], engine="torch")
    each = {
        id(p): torch.optim.SGD([p], lr=0.1, momentum=0.9) for p in model.parameters()
    }
    topology = elision.topology.attach(model, list(each.values()))

    def step(parameter: Tensor) -> None:
        each[id(parameter)].step()
        each[id(parameter)].zero_grad()

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(step)
    for number in range(7):
        images, labels = batch(number)
        F.cross_entropy(model(images), labels).backward()
    assert [part.step for part in topology.parts] == [8] * 4
    check_outside(topology)
    assert topology.history


class Inherits(torch.optim.SGD):
    """Steps by ``super``, and changes all weights afterwards."""

    def step(self, closure: Any = None) -> Any:
        if closure is not None and self.fails:
            raise MemoryError
        value = super().step(closure)
        with torch.no_grad():
            for p in self.param_groups[0]["params"]:
                p.add_(1e-3)
        return value

    fails = False


@pytest.mark.parametrize("closure", [True, False])
def test_a_subclass_that_steps_by_super_counts_once(closure: bool) -> None:
    torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)  # its hooks run, too
    model = elision.elide(small_net(), MOVING["rigl"], engine="torch")
    optimizer = Inherits(model.parameters(), lr=0.1, momentum=0.9)
    topology = elision.topology.attach(model, optimizer)
    for number in range(7):

        def evaluate(number: int = number) -> Tensor:
            return gradient(model, optimizer, number)

        if closure:
            optimizer.fails = number == 3
            try:
                optimizer.step(evaluate)
            except MemoryError:
                continue
        else:
            evaluate()
            optimizer.step()
        check_outside(topology)
    assert topology.step == (7 if closure else 8)
    assert {move.step for move in topology.history} == {3, 6}
