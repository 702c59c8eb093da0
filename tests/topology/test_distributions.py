"""Layer budgets: ResNet-50's published tables, exact sums, and what cannot be met."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elision.topology.distribution import densities, weight_counts
from elision.topology.selection import apportion, best, generator
from elision.workloads import layer_shapes, make_model


@pytest.fixture(scope="module")
def resnet50():
    """Shapes and multiply-accumulates of ResNet-50 at 224x224, by layer."""
    with torch.device("meta"):
        model = make_model("resnet50-imagenet", classes=1000, image_size=224)
    layers = layer_shapes(model, (1, 3, 224, 224))
    shapes = {name: geometry.shape_of("weight") for name, geometry in layers}
    return shapes, {name: geometry.dense_macs for name, geometry in layers}


def inference_ratio(found, macs):
    return sum(found[n] * macs[n] for n in macs) / sum(macs.values())


def test_resnet50_has_the_published_size(resnet50):
    shapes, macs = resnet50
    assert sum(torch.Size(s).numel() for s in shapes.values()) == 25_502_912
    assert sum(macs.values()) == pytest.approx(4.089e9, rel=1e-3)
    assert macs["conv1"] / sum(macs.values()) == pytest.approx(0.02886, abs=1e-5)


@pytest.mark.parametrize(
    ("sparsity", "erk", "uniform", "forced_dense"),
    [(0.8, 0.414, 0.223, 8), (0.9, 0.242, 0.126, 1), (0.95, 0.122, 0.077, 0)],
)
def test_mac_ratios_of_resnet50(resnet50, sparsity, erk, uniform, forced_dense):
    shapes, macs = resnet50
    by_erk = densities(shapes, sparsity, "erk")
    assert inference_ratio(by_erk, macs) == pytest.approx(erk, abs=5e-4)
    assert sum(d == 1 for d in by_erk.values()) == forced_dense
    evenly = densities(shapes, sparsity, "uniform", fixed={"conv1": 1.0})
    assert inference_ratio(evenly, macs) == pytest.approx(uniform, abs=5e-4)


@pytest.mark.parametrize(
    ("layer", "at_80", "at_90", "at_95"),
    [
        ("conv1", 0.8572, 0.4200, 0.2098),
        ("layer1.0.conv2", 0.3619, 0.1773, 0.0886),
        ("layer1.0.conv3", 1, 0.9588, 0.4790),
        ("layer2.0.downsample.0", 0.5849, 0.2866, 0.1432),
        ("layer2.0.conv2", 0.1769, 0.0867, 0.0433),
        ("layer3.0.conv2", 0.0874, 0.0428, 0.0214),
        ("layer4.0.conv1", 0.2921, 0.1431, 0.0715),
        ("layer4.2.conv2", 0.0435, 0.0213, 0.0106),
        ("layer4.2.conv3", 0.2433, 0.1192, 0.0595),
        ("fc", 0.1482, 0.0726, 0.0363),
    ],
)
def test_erk_densities_of_resnet50(resnet50, layer, at_80, at_90, at_95):
    for sparsity, expected in ((0.8, at_80), (0.9, at_90), (0.95, at_95)):
        found = densities(resnet50[0], sparsity, "erk")
        assert found[layer] == pytest.approx(expected, abs=5.1e-5)


def test_erk_makes_the_layers_dense_that_the_table_names(resnet50):
    found = densities(resnet50[0], 0.8, "erk")
    assert {name for name, d in found.items() if d == 1} == {
        "layer1.0.conv1",
        "layer1.0.conv3",
        "layer1.0.downsample.0",
        "layer1.1.conv1",
        "layer1.1.conv3",
        "layer1.2.conv1",
        "layer1.2.conv3",
        "layer2.0.conv1",
    }


@pytest.mark.parametrize("distribution", ["uniform", "er", "erk"])
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.8, 0.95])
def test_counts_are_whole_and_their_sum_exact(resnet50, distribution, sparsity):
    shapes, _ = resnet50
    counts = weight_counts(shapes, densities(shapes, sparsity, distribution))
    assert sum(counts.values()) == round((1 - sparsity) * 25_502_912)
    sizes = {n: torch.Size(s).numel() for n, s in shapes.items()}
    assert all(1 <= counts[n] <= sizes[n] for n in shapes)


def test_er_equals_erk_on_linear_layers():
    shapes = {"a": (300, 784), "b": (100, 300), "c": (10, 100)}
    assert densities(shapes, 0.9, "er") == densities(shapes, 0.9, "erk")


def test_a_given_density_takes_from_the_others():
    shapes = {"a": (100, 100), "b": (100, 100), "c": (100, 100)}
    found = densities(shapes, 0.8, "erk", fixed={"a": 0.5})
    assert found == pytest.approx({"a": 0.5, "b": 0.05, "c": 0.05})


@pytest.mark.parametrize("distribution", ["er", "erk"])
def test_a_budget_that_cannot_be_met_says_so(distribution):
    shapes = {"a": (100, 100), "b": (100, 10)}
    with pytest.raises(ValueError, match="10000 of 11000 weights, the budget is 1100"):
        densities(shapes, 0.9, distribution, fixed={"a": 1.0})


def test_unknown_distribution_lists_the_known():
    with pytest.raises(ValueError, match="did you mean 'erk'"):
        densities({"a": (4, 4)}, 0.5, "erkk")


@given(
    total=st.integers(0, 500),
    parts=st.lists(
        st.tuples(st.floats(0, 10), st.integers(0, 300)), min_size=1, max_size=8
    ),
)
def test_apportion_is_exact_within_its_limits(total, parts):
    shares, limits = [s for s, _ in parts], [n for _, n in parts]
    if sum(limits) < total:
        with pytest.raises(ValueError, match="cannot place"):
            apportion(total, shares, limits)
        return
    counts = apportion(total, shares, limits)
    assert sum(counts) == total
    assert all(0 <= c <= n for c, n in zip(counts, limits, strict=True))


def test_apportion_follows_the_largest_remainder():
    # 10 x (.45, .35, .2) = 4.5, 3.5, 2: the two halves tie, the first wins.
    assert apportion(10, [0.45, 0.35, 0.2]) == [5, 3, 2]


def test_apportion_divides_what_a_limit_cuts_off_by_shares_or_evenly():
    shares, limits = [8, 3, 1], [20, 200, 200]
    assert apportion(120, shares, limits) == [20, 75, 25]
    assert apportion(120, shares, limits, evenly=True) == [20, 60, 40]


@given(
    scores=st.lists(st.integers(0, 5), min_size=1, max_size=60), share=st.floats(0, 1)
)
def test_best_takes_exactly_as_many_and_none_below_one_left_out(scores, share):
    score = torch.tensor(scores, dtype=torch.float32)
    count = int(share * len(scores))
    chosen = best(score, count, generator(0, "layer", 1))
    assert int(chosen.sum()) == count
    if 0 < count < len(scores):
        assert score[chosen].min() >= score[~chosen].max()


def test_best_refuses_what_may_not_be_chosen():
    score = torch.tensor([1.0, -torch.inf, -torch.inf])
    with pytest.raises(ValueError, match="only 1 may be chosen"):
        best(score, 2, generator(0, "layer", 1))


def test_randomness_depends_on_seed_layer_and_step_alone():
    def draw(*key):
        torch.manual_seed(torch.seed())
        return torch.rand(4, generator=generator(*key)).tolist()

    assert draw(0, "a", 1) == draw(0, "a", 1)
    assert len({tuple(draw(*k)) for k in [(0, "a", 1), (1, "a", 1), (0, "b", 1)]}) == 3
    assert draw(0, "a", 1) != draw(0, "a", 2)
