"""Rare exchange: closed forms, limits that are other methods, two real processes."""

import copy
import multiprocessing
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from outer_ranks import RULES, batch, model, train, two_processes, weights
from torch import nn

from elision.training.parallel import OuterOptimizer
from elision.training.parallel.outer import OUTER_RULES, OuterRule
from elision.training.parallel.outer.rules.adaptive import FedAdam, FedYogi

#: Imports torch once, and forks every rank from there.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["elision.training.parallel"])


def trained(
    rule: str,
    ranks: int = 3,
    lr: float = 0.05,
    momentum: float = 0.0,
    **options: object,
) -> list[torch.Tensor]:
    """The weights of every rank after seven steps and a last exchange."""
    models = [model() for _ in range(ranks)]
    inner = [torch.optim.SGD(m.parameters(), lr, momentum) for m in models]
    outer = OuterOptimizer(inner, rule, **options)  # pyright: ignore[reportArgumentType]
    train(outer, models, 0)
    outer.exchange()
    return [weights(m) for m in models]


def synchronous(
    ranks: int = 3, lr: float = 0.05, momentum: float = 0.0
) -> torch.Tensor:
    """The weights of one process that steps by the mean gradient of all ranks."""
    net = model()
    inner = torch.optim.SGD(net.parameters(), lr, momentum)
    for step in range(7):
        inner.zero_grad()
        for rank in range(ranks):
            (net(batch(rank, step)).square().sum() / ranks).backward()
        inner.step()
    return weights(net)


@pytest.mark.parametrize(
    "rule",
    [
        "local-sgd:every=1",
        "fedavg:every=1",
        "fedprox:every=1",
        "scaffold:every=1",
        "diloco:every=1,rate=1.0,momentum=0.0",
        "post-local-sgd:begin=100",
    ],
)
@given(ranks=st.integers(1, 4), lr=st.floats(0.001, 0.1))
@settings(max_examples=5, deadline=None)
def test_one_step_between_exchanges_is_synchronous_sgd(
    rule: str, ranks: int, lr: float
) -> None:
    expected = synchronous(ranks, lr)
    for found in trained(rule, ranks, lr):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_synchronous_steps_of_post_local_sgd_are_exact_with_momentum_too() -> None:
    found = trained("post-local-sgd:begin=100", momentum=0.9)
    torch.testing.assert_close(found[0], synchronous(momentum=0.9))


@pytest.mark.parametrize("rule", OUTER_RULES)
def test_ranks_end_bit_equal(rule: str) -> None:
    first, *others = trained(rule, ranks=3)
    assert all(torch.equal(first, other) for other in others)


@given(numbers=st.lists(st.integers(1, 50), min_size=2, max_size=2))
@settings(max_examples=5, deadline=None)
def test_fedprox_without_its_term_is_fedavg(numbers: list[int]) -> None:
    avg = trained("fedavg:every=3", 2, weights=numbers)
    prox = trained("fedprox:every=3,mu=0.0", 2, weights=numbers)
    assert torch.equal(avg[0], prox[0])
    assert not torch.equal(avg[0], trained("fedprox:every=3,mu=0.5", 2)[0])


def one_value(rule: str | OuterRule, gradients: list[list[float]], lr: float) -> float:
    """One weight, 1 at first, of ranks with given gradients: ``[rank][step]``."""
    held = [nn.Parameter(torch.ones(1, dtype=torch.float64)) for _ in gradients]
    outer = OuterOptimizer([torch.optim.SGD([p], lr) for p in held], rule)
    for step in range(len(gradients[0])):
        for p, own in zip(held, gradients, strict=True):
            p.grad = torch.full_like(p, own[step])
        outer.step()
    return held[0].item()


def test_fedprox_step_is_that_of_its_loss() -> None:
    # Two steps of 0.1: the first from the anchor, the second 0.1 * 2 away from it.
    found = one_value("fedprox:every=2,mu=0.5", [[2.0, 2.0]], 0.1)
    assert found == pytest.approx(1 - 0.2 - 0.1 * (2 + 0.5 * -0.2))


def test_diloco_is_torchs_nesterov_on_the_outer_gradient() -> None:
    gradients = [[1.0, 2.0, -3.0, 0.5], [0.0, 1.0, 1.0, 2.0]]
    expected = nn.Parameter(torch.ones(1, dtype=torch.float64))
    outer = torch.optim.SGD([expected], lr=0.7, momentum=0.9, nesterov=True)
    for step in (0, 2):
        mean = sum(sum(own[step : step + 2]) for own in gradients) / 2
        expected.grad = torch.full_like(expected, 0.1 * mean)
        outer.step()
    found = one_value("diloco:every=2", gradients, 0.1)
    assert found == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("kind", [FedAdam, FedYogi])
def test_adaptive_steps_are_those_of_the_algorithm(kind: type[FedAdam]) -> None:
    rule = kind(every=1, rate=0.1)
    x, m, v = 1.0, 0.0, rule.tau**2
    gradients = [2.0, -1.0, 0.001]
    for g in (0.1 * each for each in gradients):
        m = 0.9 * m + 0.1 * g
        sign = (v > g * g) - (v < g * g)
        by_adam = 0.99 * v + 0.01 * g * g
        v = by_adam if kind is FedAdam else v - 0.01 * g * g * sign
        x -= 0.1 * m / (v**0.5 + rule.tau)
    assert one_value(rule, [gradients], 0.1) == pytest.approx(x, rel=1e-10)


def test_scaffold_ends_where_local_sgd_drifts() -> None:
    """Quadratics of different curvature, whose joint minimum averaging misses."""
    curves, targets = (1.0, 9.0), (0.0, 1.0)
    minimum = 9.0 / 10

    def last(rule: str) -> float:
        held = [nn.Parameter(torch.zeros(1, dtype=torch.float64)) for _ in curves]
        outer = OuterOptimizer([torch.optim.SGD([p], 0.02) for p in held], rule)
        for _ in range(2000):
            for p, a, t in zip(held, curves, targets, strict=True):
                p.grad = a * (p.detach() - t)
            outer.step()
        return held[0].item()

    assert last("scaffold:every=10") == pytest.approx(minimum, abs=1e-6)
    assert abs(last("local-sgd:every=10") - minimum) > 0.01


def test_traffic_falls_by_the_number_of_steps() -> None:
    def sent(every: int) -> int:
        net = nn.Linear(3, 2)
        rule = f"diloco:every={every}"
        outer = OuterOptimizer(torch.optim.SGD(net.parameters(), 0.1), rule)
        for _ in range(24):
            net(torch.ones(1, 3)).sum().backward()
            outer.step()
        return outer.sent_bytes

    assert sent(1) == 24 * 8 * 4
    assert sent(12) * 12 == sent(1)


@pytest.mark.parametrize("states", ["local", "average", "reset"])
def test_states_at_an_exchange(states: str) -> None:
    held = [nn.Parameter(torch.ones(2)) for _ in range(2)]
    inner = [torch.optim.Adam([p], 0.1) for p in held]
    outer = OuterOptimizer(inner, "local-sgd:every=1", states=states)  # pyright: ignore[reportArgumentType]
    for p, value in zip(held, (1.0, 3.0), strict=True):
        p.grad = torch.full_like(p, value)
    outer.step()
    kept = [own.state[p] for own, p in zip(inner, held, strict=True)]
    expected = {"local": [0.1, 0.3], "average": [0.2, 0.2]}
    if states == "reset":
        assert kept == [{}, {}]
    else:
        found = [own["exp_avg"][0].item() for own in kept]
        assert found == pytest.approx(expected[states])
        assert [own["step"].item() for own in kept] == [1, 1]


@pytest.mark.parametrize(
    "rule", ["scaffold:every=2", "fedyogi:every=2", "diloco:every=2"]
)
def test_a_resumed_run_is_the_same(rule: str) -> None:
    def made() -> tuple[OuterOptimizer, list[nn.Module]]:
        models = [model() for _ in range(2)]
        inner = [torch.optim.SGD(m.parameters(), 0.05) for m in models]
        return OuterOptimizer(inner, rule), models

    whole, models = made()
    train(whole, models, 0)
    resumed, again = made()
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    for old, new in zip(models, again, strict=True):
        new.load_state_dict(old.state_dict())
    train(whole, models, 0)
    train(resumed, again, 0)
    for old, new in zip(models, again, strict=True):
        assert torch.equal(weights(old), weights(new))
    assert resumed.steps == whole.steps == 14


def test_two_processes_do_as_two_ranks_of_one(tmp_path: Path) -> None:
    ranks = [
        CONTEXT.Process(target=two_processes, args=(r, tmp_path)) for r in range(2)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(timeout=100)
        process.kill()
    assert [process.exitcode for process in ranks] == [0, 0]
    first, second = (torch.load(tmp_path / f"rank{r}.pt") for r in range(2))
    for rule in RULES:
        assert torch.equal(first[rule], second[rule])
        torch.testing.assert_close(first[rule], trained(rule, ranks=2)[0])
    assert first["refused"] == second["refused"]
    assert "begin with different weights in parameter 1" in first["refused"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda inner: OuterOptimizer(inner, "diloko"),
            ["diloko", "local-sgd", "diloco"],
        ),
        (lambda inner: OuterOptimizer(inner, "diloco:every=0"), ["every=0", ">= 1"]),
        (lambda inner: OuterOptimizer(inner, weights=2.0), ["local-sgd", "2.0"]),
        (lambda inner: OuterOptimizer(inner, states="mean"), ["'mean'", "'reset'"]),
        (lambda inner: OuterOptimizer([], "fedavg"), ["at least one"]),
        (
            lambda inner: OuterOptimizer([inner], "fedavg", weights=[1, 2]),
            ["2 weights for 1 ranks"],
        ),
        (
            lambda inner: OuterOptimizer(
                [inner, torch.optim.SGD([nn.Parameter(torch.ones(3))], 0.1)]
            ),
            ["differ in number, shape or dtype"],
        ),
        (
            lambda inner: OuterOptimizer(
                torch.optim.SGD([nn.Parameter(torch.ones(3))], 0.1, momentum=0.9),
                "scaffold",
            ),
            ["momentum=0.9", "momentum=0 is allowed"],
        ),
        (
            lambda inner: OuterOptimizer(
                torch.optim.Adam([nn.Parameter(torch.ones(3))]), "scaffold"
            ),
            ["torch.optim.SGD", "Adam"],
        ),
    ],
)
def test_what_has_no_meaning_is_refused(make: object, words: list[str]) -> None:
    inner = torch.optim.SGD([nn.Parameter(torch.ones(2))], 0.1)
    with pytest.raises(ValueError) as caught:
        make(inner)  # pyright: ignore[reportCallIssue]
    assert all(word in str(caught.value) for word in words)
