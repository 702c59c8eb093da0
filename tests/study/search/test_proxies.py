"""Zero-cost proxies against closed forms, and masks that they choose."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import elision
from elision.methods import Static
from elision.study.search.at_start import elide_at_start
from elision.study.search.proxies import (
    PROXIES,
    WEIGHT_SCORES,
    proxy_scores,
    rank_correlations,
    weight_scores,
)
from elision.workloads import make_model


def bias_free(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 9, 6, bias=False),
        nn.ReLU(),
        nn.Linear(6, 3, bias=False),
    )


def batch(count: int = 6, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(count, 2, 3, 3, generator=g), torch.arange(count) % 3


@given(seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_every_layer_of_synflow_sums_to_the_networks_output(seed: int) -> None:
    model = bias_free(seed)
    sums = [s.sum() for s in weight_scores("synflow", model, *batch()).values()]
    absolute = bias_free(seed).double()
    with torch.no_grad():
        for parameter in absolute.parameters():
            parameter.abs_()
        wanted = absolute(torch.ones(1, 2, 3, 3, dtype=torch.float64)).sum()
    for found in sums:
        torch.testing.assert_close(found, wanted)
    total = proxy_scores(model, *batch(), names=("synflow",))["synflow"]
    assert total == pytest.approx(3 * float(wanted))


@given(seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_signed_sums_of_weight_and_gradient_are_equal_in_all_layers(seed: int) -> None:
    """As a rectified network without biases is homogeneous in each layer."""
    model, (images, labels) = bias_free(seed), batch()
    F.cross_entropy(model(images), labels).backward()
    sums = [float((p.detach() * p.grad).sum()) for p in model.parameters()]  # pyright: ignore[reportOperatorIssue]
    assert sums == pytest.approx([sums[0]] * 3, rel=1e-3, abs=1e-6)
    snip = weight_scores("snip", model, images, labels)
    for parameter, score in zip(model.parameters(), snip.values(), strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(score, (parameter.detach() * parameter.grad).abs())


def test_grasp_is_the_loss_of_gradient_that_a_removed_weight_brings() -> None:
    """``g·g`` without a small part of a weight, by differences."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(18, 5), nn.Tanh(), nn.Linear(5, 3))
    model, (images, labels) = model.double(), batch()
    images = images.double()
    layers: list[Any] = list(model)
    weights: list[torch.Tensor] = [layers[1].weight, layers[3].weight]

    def squared() -> float:
        loss = F.cross_entropy(model(images), labels)
        gradients = torch.autograd.grad(loss, weights)
        return sum(float(g.square().sum()) for g in gradients)

    scores = weight_scores("grasp", model, images, labels)
    for weight, score in zip(weights, scores.values(), strict=True):
        for place in ((0, 0), (2, 1)):
            value, step = float(weight[place].detach()), 1e-5
            with torch.no_grad():
                weight[place] = value * (1 - step)
            less = squared()
            with torch.no_grad():
                weight[place] = value * (1 + step)
            more = squared()
            with torch.no_grad():
                weight[place] = value
            # d(g·g) of a removed share s of the weight is −2·s·w·(H·g).
            assert (more - less) / (4 * step) == pytest.approx(
                float(score[place]), rel=1e-4, abs=1e-9
            )


def test_scores_of_a_batch_without_gradient_are_zero() -> None:
    model = bias_free()
    with torch.no_grad():
        for parameter in list(model.parameters())[1:]:
            parameter.zero_()
    images, labels = torch.zeros(3, 2, 3, 3), torch.tensor([0, 1, 2])
    found = proxy_scores(
        model, images, labels, names=("snip", "grasp", "grad-norm", "fisher")
    )
    assert [abs(value) for value in found.values()] == [0, 0, 0, 0]


@pytest.mark.parametrize("activation", [nn.ReLU, nn.ReLU6, nn.Hardswish, nn.SiLU])
def test_naswot_is_the_determinant_of_agreeing_codes(activation: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(18, 12), activation())
    images, labels = batch()
    codes = (model[1](images.flatten(1)) > 0).int()
    agreeing = torch.tensor(
        [[12.0 - int((a != b).sum()) for b in codes] for a in codes],
        dtype=torch.float64,
    )
    wanted = math.log(abs(float(torch.det(agreeing))))
    found = proxy_scores(model, images, labels, names=("naswot",))
    assert found["naswot"] == pytest.approx(wanted)


def test_two_equal_images_have_no_naswot() -> None:
    images, labels = batch()
    images[4] = images[1]
    assert proxy_scores(bias_free(), images, labels, names=("naswot",)) == {
        "naswot": -math.inf
    }


def test_uncorrelated_jacobians_score_best() -> None:
    """A linear network has the same Jacobian for all: one eigenvalue holds everything."""
    images, labels = batch()
    flat = nn.Sequential(nn.Flatten(), nn.Linear(18, 3))
    found = proxy_scores(flat, images, labels, names=("jacob-cov",))["jacob-cov"]
    k, n = 1e-5, len(images)
    wanted = -((math.log(n + k) + 1 / (n + k)) + (n - 1) * (math.log(k) + 1 / k))
    assert found == pytest.approx(wanted, rel=1e-3)
    curved = proxy_scores(bias_free(), images, labels, names=("jacob-cov",))
    assert curved["jacob-cov"] > found


def test_fisher_and_norm_are_those_of_a_linear_layer() -> None:
    images, labels = batch()
    model = nn.Sequential(nn.Flatten(), nn.Linear(18, 3))
    scores = model(images).detach()
    of_scores = scores.softmax(1) - F.one_hot(labels, 3)
    wanted = 0.5 * (scores * of_scores).square().mean(0).sum()
    found = proxy_scores(model, images, labels, names=("fisher", "grad-norm"))
    assert found["fisher"] == pytest.approx(float(wanted), rel=1e-4)
    gradient = of_scores.T @ images.flatten(1) / len(images)
    assert found["grad-norm"] == pytest.approx(float(gradient.norm()), rel=1e-4)


@pytest.mark.parametrize("name", ["mobilenet-v3-small", "efficientnet-b0", "resnet8"])
def test_every_proxy_of_a_real_network_is_finite_repeats_and_changes_nothing(
    name: str,
) -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {} if name == "resnet8" else {"width": 0.25, "depth": 0.5}
    model = make_model(name, classes=4, image_size=32, **options)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8) % 4
    first = proxy_scores(model, images, labels)
    assert list(first) == list(PROXIES)
    assert all(map(math.isfinite, first.values()))
    torch.manual_seed(5)
    assert proxy_scores(model, images, labels) == pytest.approx(first, rel=1e-3)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_ranks_are_spearmans_and_kendalls() -> None:
    rows = rank_correlations(
        {"same": [1, 1, 1, 1], "swapped": [1, 3, 2, 4], "back": [4, 3, 2, 1]},
        [0.1, 0.2, 0.3, 0.4],
    )
    assert [row["proxy"] for row in rows] == ["swapped", "back", "same"]
    # One pair of six is swapped: 1 − 6·2/(4·15), and (5 − 1)/6.
    assert rows[0]["spearman"] == pytest.approx(0.8)
    assert rows[0]["kendall"] == pytest.approx(2 / 3)
    assert rows[1]["spearman"] == pytest.approx(-1)
    assert math.isnan(rows[2]["kendall"])


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda: proxy_scores(bias_free(), *batch(), names=("snipp",)),
            "unknown proxy 'snipp'.*did you mean",
        ),
        (
            lambda: weight_scores("naswot", bias_free(), *batch()),
            "unknown score of weights 'naswot'; known: snip, grasp, synflow",
        ),
        (lambda: rank_correlations({}, [1.0, 2.0]), "at least 3 networks, got 2"),
        (
            lambda: rank_correlations({"a": [1.0]}, [1.0, 2.0, 3.0]),
            "'a' has 1 scores, and there are 3 results",
        ),
        (
            lambda: elide_at_start(bias_free(), "snip", *batch(), rounds=0),
            r"elide_at_start\(rounds=0\)",
        ),
    ],
)
def test_what_has_no_score_is_said_in_one_line(call: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("score", WEIGHT_SCORES)
def test_a_mask_keeps_the_best_scores_of_all_layers(score: str) -> None:
    images, labels = batch()
    scores = weight_scores(score, bias_free(), images, labels)
    recipe = Static(0.7)
    model = elide_at_start(
        bias_free(), score, images, labels, recipe, rounds=1, engine="torch"
    )
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    topology = elision.topology.attach(model, optimizer)
    random = elision.elide(bias_free(), recipe, engine="torch")
    drawn = elision.topology.attach(
        random, torch.optim.SGD(random.parameters(), 0.1)
    ).nnz
    assert topology.nnz == drawn
    kept = torch.cat([scores[w.name][w.mask] for w in topology.weights])
    left = torch.cat([scores[w.name][~w.mask] for w in topology.weights])
    assert float(kept.min()) >= float(left.max()) or score == "grasp"
    for weight, plain in zip(topology.weights, bias_free().parameters(), strict=True):
        torch.testing.assert_close(weight.weight.detach(), plain * weight.mask)
    F.cross_entropy(model(images), labels).backward()
    optimizer.step()
    for weight in topology.weights:
        assert not weight.weight[~weight.mask].any()


def test_rounds_of_synflow_keep_a_layer_that_one_round_would_cut() -> None:
    """The property that its rounds are for: no layer is emptied before the others."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(18, 300), nn.ReLU(), nn.Linear(300, 3)
    )
    images, labels = batch()

    def least(rounds: int) -> int:
        made = elide_at_start(
            nn.Sequential(*(type_of(m) for m in model)),
            "synflow",
            images,
            labels,
            Static(0.95),
            rounds=rounds,
            engine="torch",
        )
        topology = elision.topology.attach(
            made, torch.optim.SGD(made.parameters(), 0.1)
        )
        return min(weight.nnz for weight in topology.weights)

    def type_of(module: nn.Module) -> nn.Module:
        torch.manual_seed(1)
        if isinstance(module, nn.Linear):
            return nn.Linear(module.in_features, module.out_features)
        return module

    assert least(100) >= least(1)
