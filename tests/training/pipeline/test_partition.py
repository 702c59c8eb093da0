"""Partitioners against brute force on small chains, and against their lower bounds."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elision.products import Product
from elision.training.pipeline import LayerCost
from elision.training.pipeline.partition import (
    bounds,
    contiguous,
    inter_layer,
    intra_layer,
    pipedream,
    whole_layers,
)

duration = st.floats(0.0, 10.0)
layer = st.builds(
    LayerCost,
    duration,
    duration,
    duration,
    kept_bytes=st.floats(1.0, 4.0),
    sent_bytes=st.floats(0.0, 4.0),
    parameter_bytes=st.floats(0.0, 4.0),
)
chains = st.lists(layer, min_size=2, max_size=6).filter(lambda c: c[0].total > 0.1)


def splits(layers: int, stages: int):
    """Every way to cut a chain into so many stages: layers of each."""
    for cuts in itertools.combinations(range(1, layers), stages - 1):
        ends = (0, *cuts, layers)
        yield [b - a for a, b in itertools.pairwise(ends)]


@settings(max_examples=60, deadline=None)
@given(chain=chains, stages=st.integers(1, 4))
def test_contiguous_is_the_best_of_all(chain, stages: int):
    stages = min(stages, len(chain))
    found = contiguous(chain, stages)
    best = min(whole_layers(s).period(chain) for s in splits(len(chain), stages))
    assert math.isclose(found.period(chain), best)
    assert found.period(chain) >= bounds(chain, stages).best * (1 - 1e-12)


def replicated_period(chain, counts, replicas, bandwidth: float) -> float:
    """Period of a replicated partition, term by term."""
    slowest, first = 0.0, 0
    for count, r in zip(counts, replicas, strict=True):
        own = chain[first : first + count]
        shared = 4 * (r - 1) * sum(c.parameter_bytes for c in own) / (bandwidth * r)
        slowest = max(slowest, (sum(c.total for c in own) + shared) / r)
        if first:
            slowest = max(slowest, 2 * chain[first - 1].sent_bytes / bandwidth / r)
        first += count
    return slowest


def fits(chain, counts, replicas, memory: float) -> bool:
    first = 0
    for stage, (count, r) in enumerate(zip(counts, replicas, strict=True)):
        own = chain[first : first + count]
        size = sum(c.kept_bytes + c.parameter_bytes for c in own)
        if math.ceil(sum(replicas[stage:]) / r) * size > memory:
            return False
        first += count
    return True


@settings(max_examples=60, deadline=None)
@given(
    chain=chains,
    processors=st.integers(1, 4),
    bandwidth=st.sampled_from([math.inf, 2.0, 0.5]),
    memory=st.sampled_from([math.inf, 40.0, 15.0]),
)
def test_pipedream_is_the_best_of_all(chain, processors: int, bandwidth, memory):
    every = [
        (replicated_period(chain, counts, replicas, bandwidth), counts, replicas)
        for stages in range(1, min(processors, len(chain)) + 1)
        for counts in splits(len(chain), stages)
        for replicas in itertools.product(range(1, processors + 1), repeat=stages)
        if sum(replicas) == processors and fits(chain, counts, replicas, memory)
    ]
    given_ = {"bandwidth": bandwidth, "memory_bytes": memory}
    if not every:
        with pytest.raises(ValueError, match="fits"):
            pipedream(chain, processors, **given_)
        return
    found = pipedream(chain, processors, **given_)
    counts = [len(layers) for layers in found.layers]
    period = replicated_period(chain, counts, found.replicas, bandwidth)
    assert math.isclose(period, min(every)[0])
    assert fits(chain, counts, found.replicas, memory)


def best_with_free_weights(chain, processors: int, halves: bool) -> float:
    """Smallest period over every contiguous chain of tasks and every place of each dW."""
    tasks = []
    for c in chain:
        tasks += (
            [c.forward, c.input_grad / 2, c.input_grad / 2]
            if halves
            else [c.forward + c.input_grad]
        )
    best = math.inf
    for stages in range(1, min(processors, len(tasks)) + 1):
        for counts in splits(len(tasks), stages):
            ends = [0, *itertools.accumulate(counts)]
            loads = [sum(tasks[a:b]) for a, b in itertools.pairwise(ends)]
            loads += [0.0] * (processors - stages)
            for places in itertools.product(range(processors), repeat=len(chain)):
                total = list(loads)
                for place, c in zip(places, chain, strict=True):
                    total[place] += c.weight_grad
                best = min(best, max(total))
    return best


@settings(max_examples=30, deadline=None)
@given(
    chain=st.lists(layer, min_size=2, max_size=4).filter(lambda c: c[0].total > 0.1),
    processors=st.integers(2, 3),
    halves=st.booleans(),
)
def test_task_splits_are_near_the_best_of_all(chain, processors: int, halves: bool):
    """A heuristic: never below the optimum, nor the bound, nor far above the optimum."""
    found = (inter_layer if halves else intra_layer)(chain, processors)
    best = best_with_free_weights(chain, processors, halves)
    period = found.period(chain)
    kind = "half" if halves else "product"
    assert period >= best * (1 - 1e-9)
    assert best >= bounds(chain, processors, kind).best * (1 - 1e-9)
    assert period <= 1.5 * best
    # Nothing is lost or done twice.
    work = sum(c.total for c in chain)
    assert math.isclose(sum(found.loads(chain)), work)
    shares: dict = {}
    for stage in found.stages:
        for number, product, share in stage:
            shares[number, product] = shares.get((number, product), 0.0) + share
    for number, cost in enumerate(chain):
        for product in Product:
            if cost.of(product):
                assert shares[number, product] == 1.0


def test_halves_lie_on_processors_of_neighbouring_layers():
    chain = [LayerCost(1.0, 0.0 if n == 0 else 6.0, 1.0) for n in range(4)]
    found = inter_layer(chain, 4)
    home = {n: stage for stage, layers in enumerate(found.layers) for n in layers}
    for stage, pieces in enumerate(found.stages):
        for number, product, _ in pieces:
            if product is Product.INPUT_GRAD:
                after = home.get(number + 1, home[number])
                assert home[number] <= stage <= max(after, home[number] + 1)


def test_more_stages_than_layers():
    with pytest.raises(
        ValueError, match="3 stages need at least 3 layers, and there are 2"
    ):
        contiguous([LayerCost(1.0, 1.0, 1.0)] * 2, 3)
