"""Rounding beside noise of its size: trainings in pairs, and the answer's statistics."""

import json
import math
import statistics
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import t
from torch import Tensor, nn

from elision.operands import Cast, Noise
from elision.precision import regularised
from elision.precision.regulariser import PLAIN, Regularised, Run, arms
from elision.products import Product


def data(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Two classes that overlap."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    x = torch.randn(count, 4, generator=generator)
    return x + labels[:, None], labels


def make() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def found(recipes: dict[str, object], seeds: Sequence[int] = (0, 1)) -> Regularised:
    return regularised(
        make,
        data(40, 0),
        data(30, 1),
        recipes,  # pyright: ignore[reportArgumentType]
        seeds,
        epochs=3,
        batch_size=16,
    )


def test_the_plain_arm_is_a_training_by_hand() -> None:
    """SGD with Nesterov's momentum, batches of the seed, a rate that falls as a cosine."""
    runs = found({}, seeds=(3, 4)).of(PLAIN)
    (x, labels), test = data(40, 0), data(30, 1)
    for run, seed in zip(runs, (3, 4), strict=True):
        torch.manual_seed(seed)
        model = make()
        optimiser = torch.optim.SGD(model.parameters(), 0.05, 0.9, nesterov=True)
        order = torch.Generator().manual_seed(seed)
        step, steps = 0, 3 * 2  # whole batches of 16 of 40 examples
        for _ in range(3):
            shuffled = torch.randperm(40, generator=order)
            for chosen in (shuffled[:16], shuffled[16:32]):
                rate = 0.05 * (1 + math.cos(math.pi * step / steps)) / 2
                optimiser.param_groups[0]["lr"] = rate
                optimiser.zero_grad()
                F.cross_entropy(model(x[chosen]), labels[chosen]).backward()
                optimiser.step()
                step += 1
        model.requires_grad_(False)
        loss = float(F.cross_entropy(model(test[0]), test[1]))
        assert run.test_loss == pytest.approx(loss, rel=1e-5)
        assert run.own_test_loss == run.test_loss
        assert run.train_loss == pytest.approx(
            float(F.cross_entropy(model(x), labels)), rel=1e-5
        )
        right = (model(test[0]).argmax(1) == test[1]).double().mean()
        assert run.test_accuracy == pytest.approx(float(right))


def test_all_arms_of_a_seed_see_the_same_and_differ_by_their_recipe_alone() -> None:
    before = torch.random.get_rng_state()
    of_int4 = arms("int4")
    result = found({"again": None, **of_int4})  # pyright: ignore[reportArgumentType]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert result.arms == [PLAIN, "again", *of_int4]
    assert result.differences("again") == [0.0, 0.0]
    losses = [[run.test_loss for run in result.of(arm)] for arm in result.arms[1:]]
    assert len({tuple(each) for each in losses}) == len(losses)
    assert [run.seed for run in result.runs] == [0] * 8 + [1] * 8
    # Noise is of training alone; rounding stays in the last column.
    for arm in of_int4:
        same = [r.own_test_loss == r.test_loss for r in result.of(arm)]
        is_noise = "nearest" not in arm and not arm.endswith("4 stochastic")
        assert same == [is_noise] * 2
    rows = json.loads(json.dumps(result.to_dict()))["rows"]
    assert [row["arm"] for row in rows] == result.arms


def test_arms_round_or_add_noise_of_the_same_rounding() -> None:
    made = {
        name: recipe.table[Product.FORWARD, "weight"]
        for name, recipe in arms("int4").items()
    }
    nearest, stochastic = Cast("int4"), Cast("int4", rounding="stochastic")
    assert list(made.values()) == [
        nearest,
        *(Noise(nearest, shape) for shape in ("gaussian", "uniform", "shuffled")),
        stochastic,
        Noise(stochastic),
    ]


def of_losses(plain: Sequence[float], arm: Sequence[float]) -> Regularised:
    return Regularised(
        tuple(
            Run(name, seed, 0.0, loss, 0.5, loss)
            for name, losses in ((PLAIN, plain), ("arm", arm))
            for seed, loss in enumerate(losses)
        )
    )


@pytest.mark.parametrize("count", [2, 3, 5, 10])
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_answer_is_that_of_students_t(count: int, sign: int) -> None:
    """Just beyond the two-sided five per cent point, and just within."""
    plain = [0.5 + 0.1 * i for i in range(count)]
    spread = [(-1) ** i * 0.01 + 0.001 * i for i in range(count)]
    centred = [s - statistics.fmean(spread) for s in spread]
    point = t.ppf(0.975, count - 1) * statistics.stdev(spread) / math.sqrt(count)
    for factor, answer in ((1.01, "higher" if sign > 0 else "lower"), (0.99, None)):
        arm = [
            p + c + sign * factor * point for p, c in zip(plain, centred, strict=True)
        ]
        row = of_losses(plain, arm).rows()[1]
        assert row["answer"] == (answer or "no difference")


@pytest.mark.parametrize("count", [11, 20, 100])
def test_with_many_seeds_the_point_errs_towards_no_difference(count: int) -> None:
    noise = [(-1) ** i * 0.01 for i in range(count)]
    noise = [n - statistics.fmean(noise) for n in noise]
    deviation = statistics.stdev(noise) / math.sqrt(count)
    within = [0.5 + n + 0.99 * t.ppf(0.975, count - 1) * deviation for n in noise]
    beyond = [0.5 + n + 1.01 * t.ppf(0.975, 9) * deviation for n in noise]
    assert of_losses([0.5] * count, within).rows()[1]["answer"] == "no difference"
    assert of_losses([0.5] * count, beyond).rows()[1]["answer"] == "higher"


def test_differences_are_taken_seed_by_seed_in_any_order() -> None:
    result = of_losses([0.1, 0.2, 0.3], [0.2, 0.3, 0.4])
    shuffled = Regularised(result.runs[::-1])
    assert shuffled.differences("arm") == pytest.approx([0.1] * 3)
    assert shuffled.differences("arm", "test_accuracy") == [0.0] * 3


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_run_that_diverged_has_no_answer(loss: float) -> None:
    row = of_losses([0.1, 0.2], [0.1, loss]).rows()[1]
    assert row["answer"] == "diverged"
    assert row["test loss"] == "1 of 2 diverged"


@pytest.mark.parametrize("seeds", [(), (1,)])
def test_one_seed_has_no_spread(seeds: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="two seeds or more"):
        found({}, seeds)


def test_a_seed_that_is_given_twice_is_no_second_one() -> None:
    with pytest.raises(ValueError, match=r"different seeds.*\[1, 1\]"):
        found({}, (1, 1))


def test_a_batch_is_no_larger_than_the_data() -> None:
    """No step would be taken, and all arms would be the same."""
    with pytest.raises(ValueError, match=r"batch_size=41.*\[1, 40\]"):
        regularised(make, data(40, 0), data(30, 1), {}, (0, 1), batch_size=41)
