"""The delay emulator against plain training and against explicit recursions."""

import copy
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call

from elision.training.pipeline.chain import chain, stages_of
from elision.training.pipeline.delays import WEIGHTS, delays_of
from elision.training.pipeline.emulator import DelayEmulator
from elision.training.pipeline.stability import stable_rate
from elision.workloads.models.resnet import resnet8

Weights = dict[str, Tensor]


def sgd(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, 0.05, momentum=0.9, weight_decay=1e-3)


def mlp(depth: int, seed: int) -> tuple[list[nn.Module], Tensor, Tensor]:
    torch.manual_seed(seed)
    stages: list[nn.Module] = [
        nn.Sequential(nn.Linear(5, 5), nn.Tanh()) for _ in range(depth)
    ]
    return stages, torch.randn(6, 4, 5), torch.randn(6, 4, 5)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_without_delay_it_is_sgd_to_the_last_bit(weights: str) -> None:
    torch.manual_seed(0)
    model = resnet8(in_channels=3, classes=4, width=4)
    plain, images = copy.deepcopy(model), torch.randn(3, 8, 3, 8, 8)
    labels = torch.randint(0, 4, (3, 8))
    optimizer = torch.optim.SGD(
        plain.parameters(), 0.05, momentum=0.9, weight_decay=1e-3
    )
    stages = stages_of(chain(model, images[0]), [2, 1, 2])
    emulator = DelayEmulator(
        stages, nn.functional.cross_entropy, sgd, delays=(0, 0, 0), weights=weights
    )
    for x, wanted in zip(images, labels, strict=True):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(plain(x), wanted)
        loss.backward()
        optimizer.step()
        assert emulator.step(x, wanted) == loss.item()
    for (name, one), other in zip(
        plain.state_dict().items(), model.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other), name


def recursion(
    stages: list[nn.Module],
    xs: Tensor,
    ts: Tensor,
    delays: tuple[int, ...],
    gradient: Callable[[list[list[Weights]], int, Tensor, Tensor], list[Weights]],
) -> list[Weights]:
    """``W_s(i+1) = W_s(i) - 0.1 g_s(i)``, all weights of all times kept in a list."""
    past = [[{n: p.detach().clone() for n, p in s.named_parameters()}] for s in stages]
    for i, (x, t) in enumerate(zip(xs, ts, strict=True)):
        for weights, found in zip(past, gradient(past, i, x, t), strict=True):
            weights.append({n: w - 0.1 * found[n] for n, w in weights[-1].items()})
    return [weights[-1] for weights in past]


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=4), st.integers(0, 2**16))
def test_stashing_is_the_delayed_recursion(delays: list[int], seed: int) -> None:
    stages, xs, ts = mlp(len(delays), seed)

    def gradient(
        past: list[list[Weights]], i: int, x: Tensor, t: Tensor
    ) -> list[Weights]:
        seen = [w[max(0, i - d)] for w, d in zip(past, delays, strict=True)]
        leaves = [{n: w.clone().requires_grad_() for n, w in s.items()} for s in seen]
        for stage, values in zip(stages, leaves, strict=True):
            x = functional_call(stage, values, (x,))
        nn.functional.mse_loss(x, t).backward()
        return [{n: w.grad for n, w in s.items()} for s in leaves]  # type: ignore[misc]

    expected = recursion(stages, xs, ts, tuple(delays), gradient)
    emulator = DelayEmulator(
        stages,
        nn.functional.mse_loss,
        lambda p: torch.optim.SGD(p, 0.1),
        delays=delays,
    )
    for x, t in zip(xs, ts, strict=True):
        emulator.step(x, t)
    assert emulator.kept == tuple(d + 1 for d in delays)
    for stage, values in zip(stages, expected, strict=True):
        for name, parameter in stage.named_parameters():
            torch.testing.assert_close(parameter.detach(), values[name])


def linear_chain(weights: str) -> tuple[list[float], list[float]]:
    """Two scalar layers, the first delayed by 2: the emulator's and by hand."""
    stages = [nn.Linear(1, 1, bias=False) for _ in range(2)]
    for stage in stages:
        nn.init.constant_(stage.weight, 1.0)
    emulator = DelayEmulator(
        stages,
        nn.functional.mse_loss,
        lambda p: torch.optim.SGD(p, 0.1),
        delays=(2, 0),
        weights=weights,
    )
    a, b, x, t = [1.0], [1.0], 0.7, 2.0
    for i in range(8):
        emulator.step(torch.tensor([[x]]), torch.tensor([[t]]))
        used = a[max(0, i - 2)]
        g = 2 * (b[-1] * used * x - t)  # of the network's output
        a.append(a[-1] - 0.1 * g * b[-1] * x)
        b.append(b[-1] - 0.1 * g * used * x)
    return [s.weight.item() for s in stages], [a[-1], b[-1]]


@pytest.mark.parametrize("weights", ["stash", "mixed", "average"])
def test_a_single_weight_s_gradient_needs_no_weight(weights: str) -> None:
    # The first layer has no dX, so its dW reads the activation of the forward pass alone.
    found, expected = linear_chain(weights)
    assert found == pytest.approx(expected, rel=1e-5)


def stage_of_two(weights: str) -> tuple[float, float]:
    """A delayed stage of two scalar layers ``b·a·x``: its weights after 6 updates."""
    stage = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    nn.init.constant_(stage[0].weight, 0.5)
    nn.init.constant_(stage[1].weight, 1.5)
    emulator = DelayEmulator(
        [stage],
        nn.functional.mse_loss,
        lambda p: torch.optim.SGD(p, 0.05),
        delays=(2,),
        weights=weights,
    )
    for _ in range(6):
        emulator.step(torch.ones(1, 1), torch.full((1, 1), 3.0))
    return stage[0].weight.item(), stage[1].weight.item()


@pytest.mark.parametrize("weights", WEIGHTS)
def test_the_backward_pass_reads_the_weights_that_its_name_says(weights: str) -> None:
    a, b, e = [0.5], [1.5], (0.0, 0.0)
    for i in range(6):
        old = max(0, i - 2)
        forward_a, forward_b = a[old], b[old]
        if weights == "recompute":
            forward_a, forward_b = a[-1], b[-1]
        read_b = {
            "stash": b[old],
            "recompute": b[-1],
            "mixed": b[-1],
            "average": b[-1] - (i - old) * e[1],
        }[weights]
        g = 2 * (forward_b * forward_a - 3.0)
        a.append(a[-1] - 0.05 * g * read_b)
        b.append(b[-1] - 0.05 * g * forward_a)
        # β = d/(d+1) = 2/3
        e = tuple(
            2 / 3 * m + 1 / 3 * (w[-1] - w[-2]) for m, w in zip(e, (a, b), strict=True)
        )  # type: ignore[assignment]
    assert stage_of_two(weights) == pytest.approx((a[-1], b[-1]), rel=1e-4)


def test_2bw_is_one_update_late_everywhere_and_averages_micro_batches() -> None:
    stages, xs, ts = mlp(3, 5)
    twin = copy.deepcopy(stages)
    late = DelayEmulator(
        stages, nn.functional.mse_loss, sgd, delays="pipedream-2bw", microbatches=4
    )
    whole = DelayEmulator(twin, nn.functional.mse_loss, sgd, delays=(1, 1, 1))
    for x, t in zip(xs, ts, strict=True):
        assert late.step(x, t) == pytest.approx(whole.step(x, t), rel=1e-5)
    assert late.kept == (2, 2, 2)
    for one, other in zip(stages, twin, strict=True):
        torch.testing.assert_close(one.state_dict(), other.state_dict())


@pytest.mark.parametrize(("delay", "momentum"), [(0, 0.5), (1, 0.0), (3, 0.8)])
def test_it_diverges_above_the_stable_rate_and_converges_below(
    delay: int, momentum: float
) -> None:
    def left(factor: float) -> float:
        layer = nn.Linear(1, 1, bias=False).double()
        nn.init.constant_(layer.weight, 1.0)
        # The loss x²w² has curvature 2x².
        rate = factor * stable_rate(2.0, delay, momentum)
        emulator = DelayEmulator(
            [layer],
            nn.functional.mse_loss,
            lambda p: torch.optim.SGD(p, rate, momentum=momentum),
            delays=(delay,),
        )
        one, zero = torch.ones(1, 1).double(), torch.zeros(1, 1).double()
        losses = [emulator.step(one, zero) for _ in range(400)]
        return max(losses[-40:]) / max(losses[:40])

    assert left(0.97) < 0.5
    assert left(1.03) > 2


def test_batch_norm_sees_one_micro_batch_at_a_time() -> None:
    norm = nn.BatchNorm1d(2)
    emulator = DelayEmulator(
        [nn.Sequential(nn.Linear(2, 2), norm)],
        nn.functional.mse_loss,
        sgd,
        delays=(0,),
        microbatches=2,
    )
    emulator.step(torch.randn(8, 2), torch.randn(8, 2))
    assert norm.num_batches_tracked == 2


def test_a_stage_without_parameters_passes_gradients_on() -> None:
    first, last = nn.Linear(2, 2), nn.Linear(2, 2)
    before = first.weight.detach().clone()
    emulator = DelayEmulator(
        [first, nn.Tanh(), last], nn.functional.mse_loss, sgd, delays="pipedream"
    )
    emulator.step(torch.randn(4, 2), torch.randn(4, 2))
    assert not torch.equal(first.weight, before)


def test_bad_input_is_named() -> None:
    shared = nn.Linear(2, 2)
    loss = nn.functional.mse_loss
    with pytest.raises(ValueError, match="stage 0's 'weight' and stage 1's 'weight'"):
        DelayEmulator([shared, shared], loss, sgd, delays="pipedream")
    with pytest.raises(ValueError, match="2 stages need 2 delays, got 1"):
        DelayEmulator([shared, nn.Tanh()], loss, sgd, delays=(1,))
    with pytest.raises(ValueError, match="unknown weights 'stashed'"):
        DelayEmulator([shared], loss, sgd, delays=(1,), weights="stashed")
    with pytest.raises(ValueError, match="batch of 5 does not split into 2 equal"):
        DelayEmulator([shared], loss, sgd, delays=(0,), microbatches=2).step(
            torch.ones(5, 2), torch.ones(5, 2)
        )
    with pytest.raises(ValueError, match="unknown schedule"):
        delays_of("2f2b", 3)
