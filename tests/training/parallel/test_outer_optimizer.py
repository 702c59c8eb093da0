"""Rare exchange: closed forms, limits that are other methods, two real processes."""

import copy
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from outer_ranks import RULES, batch, model, train, two_processes, weights
from torch import nn

import elision
from elision.training.parallel import OuterOptimizer
from elision.training.parallel.outer import OUTER_RULES, OuterRule
from elision.training.parallel.outer.rules.adaptive import (
    FedAdagrad,
    FedAdam,
    FedYogi,
)

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


@pytest.mark.parametrize("kind", [FedAdam, FedYogi, FedAdagrad])
def test_adaptive_steps_are_those_of_the_algorithm(kind: type[FedAdam]) -> None:
    rule = kind(every=1, rate=0.1)
    x, m, v = 1.0, 0.0, rule.tau**2
    gradients = [2.0, -1.0, 0.001]
    for g in (0.1 * each for each in gradients):
        m = 0.9 * m + 0.1 * g
        sign = (v > g * g) - (v < g * g)
        by_adam = 0.99 * v + 0.01 * g * g
        v = {
            FedAdam: by_adam,
            FedYogi: v - 0.01 * g * g * sign,
            FedAdagrad: v + g * g,
        }[kind]
        x -= 0.1 * m / (v**0.5 + rule.tau)
    assert one_value(rule, [gradients], 0.1) == pytest.approx(x, rel=1e-10)


def test_fedavgm_is_torchs_momentum_on_the_outer_gradient() -> None:
    gradients = [[1.0, 2.0, -3.0], [0.0, 1.0, 1.0]]
    expected = nn.Parameter(torch.ones(1, dtype=torch.float64))
    outer = torch.optim.SGD([expected], lr=0.8, momentum=0.9)
    for each in zip(*gradients, strict=True):
        expected.grad = torch.full_like(expected, 0.1 * sum(each) / 2)
        outer.step()
    found = one_value("fedavgm:every=1,rate=0.8", gradients, 0.1)
    assert found == pytest.approx(expected.item(), rel=1e-12)


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


#: Losses (a / 2) (x - b)^2 of two clients that count alike.
CURVES, TARGETS, RATE, STEPS = (1.0, 3.0), (0.0, 1.0), 0.1, 10


def quadratic(rule: str, rounds: int) -> list[float]:
    """The weight after each of so many rounds of two clients."""
    held = [nn.Parameter(torch.zeros(1, dtype=torch.float64)) for _ in CURVES]
    outer = OuterOptimizer([torch.optim.SGD([p], RATE) for p in held], rule)
    found = []
    for _ in range(rounds):
        for _ in range(STEPS):
            for p, a, b in zip(held, CURVES, TARGETS, strict=True):
                p.grad = a * (p.detach() - b)
            outer.step()
        found.append(held[0].item())
    return found


@pytest.mark.parametrize("mu", [0.0, 1.0])
def test_fixed_points_are_those_of_the_closed_forms(mu: float) -> None:
    """FedAvg drifts off the minimum 0.75, and FedProx less."""
    stiff = [a + mu for a in CURVES]
    gone = [1 - (1 - RATE * a) ** STEPS for a in stiff]
    pulls = [g * a / s for g, a, s in zip(gone, CURVES, stiff, strict=True)]
    expected = sum(p * b for p, b in zip(pulls, TARGETS, strict=True)) / sum(pulls)
    (*_, last) = quadratic(f"fedprox:every={STEPS},mu={mu}", 200)
    assert last == pytest.approx(expected, rel=1e-12)
    assert expected == pytest.approx({0.0: 0.598711, 1.0: 0.625507}[mu], abs=1e-6)


def test_scaffold_takes_the_drift_out() -> None:
    found = quadratic(f"scaffold:every={STEPS}", 60)
    first = [0.485876, 0.656985, 0.717243, 0.738464]
    assert found[:4] == pytest.approx(first, abs=1e-6)
    assert found[-1] == pytest.approx(0.75, abs=1e-12)


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
    ("rule", "options"),
    [
        ("scaffold:every=2", {}),
        ("fedyogi:every=2", {}),
        ("diloco:every=3,fragments=3", {"compress": "top-k:share=0.3"}),
    ],
)
def test_a_resumed_run_is_the_same(rule: str, options: dict[str, Any]) -> None:
    def made() -> tuple[OuterOptimizer, list[nn.Module]]:
        models = [model() for _ in range(2)]
        inner = [torch.optim.SGD(m.parameters(), 0.05) for m in models]
        return OuterOptimizer(inner, rule, **options), models

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
    for rule, options in RULES.items():
        assert torch.equal(first[rule], second[rule])
        alone = trained(rule, ranks=2, **options)
        torch.testing.assert_close(first[rule], alone[0])
    assert first["refused"] == second["refused"]
    assert "begin with different weights in parameter 1" in first["refused"]
    assert "is in DistributedDataParallel" in first["wrapped"]


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    fragments=st.integers(1, 6),
    every=st.integers(1, 7),
)
@settings(max_examples=25, deadline=None)
def test_fragments_are_exchanged_in_turn(
    sizes: list[int], fragments: int, every: int
) -> None:
    """Beside ranks of plain Python that average each fragment in its turn."""
    held = [[nn.Parameter(torch.ones(n)) for n in sizes] for _ in range(2)]
    inner = [torch.optim.SGD(own, 1.0) for own in held]
    rule = f"local-sgd:every={every},fragments={fragments}"
    if fragments > min(every, len(sizes)):
        with pytest.raises(ValueError, match=f"fragments={fragments}"):
            OuterOptimizer(inner, rule)
        return
    outer = OuterOptimizer(inner, rule)
    cut = outer._fragments
    assert [i for part in cut for i in part] == list(range(len(sizes)))
    assert all(cut)
    plain = [[1.0] * len(sizes) for _ in range(2)]
    turns = dict.fromkeys(range(len(sizes)), 0)
    for step in range(1, 3 * every + 1):
        for rank, own in enumerate(held):
            for i, p in enumerate(own):
                p.grad = torch.full_like(p, float(rank + i))
                plain[rank][i] -= rank + i
        outer.step()
        for number, part in enumerate(cut):
            if (step + every * (fragments - 1 - number) // fragments) % every == 0:
                for i in part:
                    turns[i] += 1
                    mean = (plain[0][i] + plain[1][i]) / 2
                    plain[0][i] = plain[1][i] = mean
        for own, expected in zip(held, plain, strict=True):
            assert [p[0].item() for p in own] == pytest.approx(expected)
    assert set(turns.values()) == {3}
    assert outer.sent_bytes == 3 * 4 * sum(sizes)


def test_what_compression_leaves_out_is_sent_later() -> None:
    """What the ranks moved, what was applied and what is remembered add up."""
    held = [nn.Parameter(torch.zeros(40)) for _ in range(2)]
    inner = [torch.optim.SGD([p], 1.0) for p in held]
    outer = OuterOptimizer(
        inner, "fedavg:every=2", weights=[1, 3], compress="top-k:share=0.1"
    )
    random = torch.Generator().manual_seed(0)
    moved = torch.zeros(40)
    for _ in range(8):
        for p, share in zip(held, (0.25, 0.75), strict=True):
            p.grad = torch.randint(-9, 9, (40,), generator=random).float()
            moved -= share * p.grad
        outer.step()
    kept = outer.state_dict()["compressed"]
    left = sum(own["0/0"][1]["memory"] for own in kept) / 2
    torch.testing.assert_close(held[0].detach() - left, moved)
    # 4 values of 32 bits, and 16 and 8 bits of places, in each of four exchanges.
    assert outer.sent_bytes == 4 * (4 * 4 + 2 + 4)
    assert torch.equal(held[0], held[1])


def test_compression_that_leaves_nothing_out_changes_nothing() -> None:
    options = {"weights": [1, 2]}
    plain = trained("fedavg:every=3", 2, **options)
    sent = trained("fedavg:every=3", 2, compress="top-k:share=1.0", **options)
    torch.testing.assert_close(plain[0], sent[0])


def masked(method: Any) -> tuple[list[nn.Module], list[torch.optim.Optimizer]]:
    """Two ranks under a recipe with masks, attached to their optimisers."""
    models = [elision.elide(model(), method) for _ in range(2)]
    inner = [torch.optim.SGD(m.parameters(), 0.05, momentum=0.9) for m in models]
    for net, optimizer in zip(models, inner, strict=True):
        elision.topology.attach(net, optimizer)
    return models, inner


def test_masks_that_stay_are_kept_and_save_bytes() -> None:
    method = elision.methods.Static(0.5, distribution="uniform", dense=())
    models, inner = masked(method)
    outer = OuterOptimizer(inner, "diloco:every=2,rate=0.7", compress="mask")
    train(outer, models, 0)
    outer.exchange()
    first, other = map(weights, models)
    assert torch.equal(first, other)
    nonzero = sum(int((p != 0).sum()) for p in models[0].parameters() if p.dim() > 1)
    assert nonzero == 12 + 3
    # Half of the 6 weights of the second layer; the first stays dense. And 5 biases.
    assert outer.sent_bytes == 4 * 4 * (12 + 3 + 5)


def test_masks_of_other_places_are_refused() -> None:
    models, inner = masked(elision.methods.Static(0.5, dense=()))
    other, *_ = elision.topology.attach(models[1], inner[1]).weights
    other.mask.logical_not_()
    outer = OuterOptimizer(inner, "local-sgd:every=2")
    with pytest.raises(ValueError, match="the ranks' masks differ"):
        train(outer, models, 0)


def test_masks_that_move_are_refused() -> None:
    models, inner = masked(elision.methods.RigL(0.5, dense=(), every=2, until=10))
    outer = OuterOptimizer(inner, "local-sgd:every=2")
    with pytest.raises(ValueError, match="PruneAndGrow moves masks by the weights"):
        train(outer, models, 0)


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
        (lambda inner: OuterOptimizer(inner, compress="topk"), ["'top-k'"]),
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
