"""Batches of sequences: every index once, equal ranks, resumption, bad input."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

from elision.workloads import GlobalBuckets, LocalBuckets, RandomBatches

SCHEMES = [GlobalBuckets, LocalBuckets, RandomBatches]
schemes = st.sampled_from(SCHEMES)
untimed = settings(deadline=None, max_examples=60)
MANY = list(range(1, 200)) * 2


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[int], int, int]:
    """Lengths, batch and ranks that can be dealt."""
    lengths = draw(st.lists(st.integers(1, 60), min_size=1, max_size=150))
    ranks = draw(st.integers(1, min(7, len(lengths))))
    batch = draw(st.integers(1, 40))
    assume(batch > 1 or len(lengths) % ranks == 0)
    return lengths, batch, ranks


def all_ranks(scheme: Any, *args: Any, epoch: int = 0, **more: Any) -> list[list[Any]]:
    """Batches by rank, each computed by a sampler of its own."""
    lengths, batch, ranks = args
    found = []
    for rank in range(ranks):
        sampler = scheme(lengths, batch, ranks, rank, **more)
        sampler.set_epoch(epoch)
        found.append(list(sampler))
        assert len(found[-1]) == len(sampler)
    return found


@untimed
@given(scheme=schemes, case=cases(), seed=st.integers(0, 5), epoch=st.integers(0, 5))
def test_every_index_once_in_batches_of_nearly_one_size(scheme, case, seed, epoch):
    lengths, batch, ranks = case
    by_rank = all_ranks(scheme, *case, seed=seed, epoch=epoch)
    flat = [i for batches in by_rank for one in batches for i in one]
    assert sorted(flat) == list(range(len(lengths)))
    assert {len(batches) for batches in by_rank} == {
        -(-len(lengths) // (batch * ranks))
    }
    sizes = {len(one) for batches in by_rank for one in batches}
    assert min(sizes) >= 1
    assert max(sizes) <= batch
    assert max(sizes) - min(sizes) <= 1


@untimed
@given(
    scheme=schemes,
    batch=st.integers(1, 12),
    ranks=st.integers(1, 7),
    data=st.data(),
    seed=st.integers(0, 5),
)
def test_drop_last_leaves_out_less_than_a_step(scheme, batch, ranks, data, seed):
    count = batch * ranks + data.draw(st.integers(0, 100))
    lengths = list(range(1, count + 1))
    case = lengths, batch, ranks
    by_rank = all_ranks(scheme, *case, seed=seed, drop_last=True)
    flat = [i for batches in by_rank for one in batches for i in one]
    assert len(set(flat)) == len(flat)
    assert len(flat) == len(lengths) - len(lengths) % (batch * ranks)
    assert {len(one) for batches in by_rank for one in batches} == {batch}


@untimed
@given(scheme=schemes, case=cases(), data=st.data())
def test_a_resumed_epoch_yields_the_rest(scheme, case, data):
    lengths, batch, ranks = case
    rank = data.draw(st.integers(0, ranks - 1))
    sampler = scheme(lengths, batch, ranks, rank, seed=3)
    sampler.set_epoch(2)
    whole = list(sampler)
    done = data.draw(st.integers(0, len(whole)))
    sampler = scheme(lengths, batch, ranks, rank, seed=3)
    sampler.set_epoch(2)
    iterator = iter(sampler)
    head = [next(iterator) for _ in range(done)]
    state = sampler.state_dict()
    fresh = scheme(lengths, batch, ranks, rank, seed=3)
    fresh.load_state_dict(state)
    fresh.set_epoch(2)  # as the loop over the epochs does
    assert fresh.state_dict() == state
    assert head + list(fresh) == whole
    assert list(fresh) == whole  # once only
    assert fresh.state_dict()["done"] == len(whole)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_state_belongs_to_all_ranks_and_leaves_at_the_next_epoch(scheme):
    first = scheme(MANY, 8, ranks=3, rank=0)
    batches = iter(first)
    next(batches)
    last = scheme(MANY, 8, ranks=3, rank=2)
    last.load_state_dict(first.state_dict())
    assert last.state_dict() == first.state_dict()
    assert list(last) == list(scheme(MANY, 8, ranks=3, rank=2))[1:]
    last.load_state_dict(first.state_dict(done=5))
    last.set_epoch(1)
    assert len(list(last)) == len(last)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_epochs_and_seeds_differ_and_repeat(scheme):
    def order(seed: int, epoch: int) -> list[list[int]]:
        return all_ranks(scheme, MANY, 8, 1, seed=seed, epoch=epoch)[0]

    orders = [order(seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert orders == [order(seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_global_random_state_is_left_alone(scheme):
    before = torch.get_rng_state()
    scheme(MANY, 8, 2).efficiency()
    assert torch.equal(torch.get_rng_state(), before)


def test_equal_lengths_are_batched_anew_in_each_epoch():
    buckets = GlobalBuckets([7] * 64, 8)
    first = {frozenset(batch) for batch in buckets}
    buckets.set_epoch(1)
    assert first.isdisjoint(frozenset(batch) for batch in buckets)


@untimed
@given(case=cases(), seed=st.integers(0, 5))
def test_a_step_of_global_buckets_holds_neighbours_in_length(case, seed):
    lengths, batch, ranks = case
    plan = GlobalBuckets(lengths, batch, ranks, seed=seed).plan()
    spans = sorted(
        (min(step), max(step))
        for step in ([lengths[i] for part in parts for i in part] for parts in plan)
    )
    assert all(a[1] <= b[0] for a, b in pairwise(spans))


@untimed
@given(case=cases(), seed=st.integers(0, 5), shared=st.booleans())
def test_a_rank_of_local_buckets_sorts_its_share(case, seed, shared):
    lengths, batch, ranks = case
    buckets = LocalBuckets(lengths, batch, ranks, seed=seed, shared_order=shared)
    orders = []
    for rank in range(ranks):
        parts = [[lengths[i] for i in step[rank]] for step in buckets.plan()]
        spans = sorted((min(part), max(part)) for part in parts)
        assert all(a[1] <= b[0] for a, b in pairwise(spans))
        orders.append(parts)
    if shared and len(set(lengths)) == len(lengths):
        ranked = [np.argsort([min(p) for p in parts]).tolist() for parts in orders]
        assert all(order == ranked[0] for order in ranked)


def test_a_shared_order_takes_the_same_quantile_of_every_share():
    plan = LocalBuckets(list(range(1, 241)), 6, 4, shared_order=True).plan()
    own = LocalBuckets(list(range(1, 241)), 6, 4).plan()

    def ranked(steps: Any) -> list[list[int]]:
        firsts = [[int(part.min()) for part in step] for step in steps]
        return np.argsort(np.argsort(firsts, axis=0), axis=0).tolist()

    assert all(len(set(step)) == 1 for step in ranked(plan))
    assert any(len(set(step)) > 1 for step in ranked(own))


def test_two_sides_are_bucketed_by_their_sum():
    sides = np.array([[1, 9], [2, 2], [5, 5], [1, 2]])
    batches = {frozenset(batch) for batch in GlobalBuckets(sides, 2)}
    assert batches == {frozenset({1, 3}), frozenset({0, 2})}


@pytest.mark.parametrize("given", [[3, 1, 2], (3, 1, 2), np.array([3, 1, 2], np.int32)])
def test_notations_of_lengths_are_one(given):
    expected = list(GlobalBuckets(torch.tensor([3, 1, 2]), 2, seed=1))
    assert list(GlobalBuckets(given, 2, seed=1)) == expected


def test_a_data_loader_takes_them_with_workers_and_resumes():
    data = TensorDataset(torch.arange(40))
    sampler = GlobalBuckets(list(range(1, 41)), 4)
    whole = [b.tolist() for (b,) in DataLoader(data, batch_sampler=sampler)]
    assert whole == list(sampler)
    loader = DataLoader(data, batch_sampler=sampler, num_workers=1, prefetch_factor=3)
    batches = iter(loader)
    head = [next(batches)[0].tolist() for _ in range(3)]
    assert sampler.state_dict()["done"] > 3  # drawn ahead, as documented
    sampler.load_state_dict(sampler.state_dict(done=3))
    assert head + [b.tolist() for (b,) in loader] == whole


BAD: list[tuple[dict[str, Any], str]] = [
    (dict(lengths=[]), r"\(lengths\): is empty; must hold one length per sequence"),
    (dict(lengths=[3, 0, 2]), r"integers >= 1, sequence 1 has length 0"),
    (dict(lengths=[3, 2, -1]), r"integers >= 1, sequence 2 has length -1"),
    (dict(lengths=[[3, 1], [2, 0]]), r"sequence 1 has length \[2, 0\]"),
    (
        dict(lengths=[1.0, 2.0]),
        r"integers of shape \(N,\) or \(N, sides\), got float64",
    ),
    (dict(lengths=[True]), r"got bool of shape \(1,\)"),
    (dict(lengths=[[1], [2, 3]]), r"must be integers of shape \(N,\) or \(N, sides\)"),
    (dict(lengths=7), r"got int64 of shape \(\)"),
    (dict(lengths="abc"), r"must be integers of shape"),
    (dict(batch=0), r"\(batch=0\): must be an integer >= 1"),
    (dict(batch=2.0), r"\(batch=2.0\): must be an integer >= 1"),
    (dict(ranks=0), r"\(ranks=0\): must be an integer >= 1"),
    (dict(ranks=2, rank=2), r"\(rank=2\): must be an integer in \[0, 2\)"),
    (dict(rank=-1), r"\(rank=-1\): must be an integer in \[0, 1\)"),
    (dict(seed=-1), r"\(seed=-1\): must be an integer >= 0"),
    (dict(drop_last="yes"), r"\(drop_last='yes'\): must be False or True"),
    (dict(ranks=6), r"ranks=6\): 5 sequences leave a rank without a batch; .* 5 ranks"),
    (
        dict(batch=1, ranks=2),
        r"5 sequences in batches of one are no multiple .* batch >= 2",
    ),
    (dict(ranks=3, drop_last=True), r"5 sequences do not fill one step of 6; .* fewer"),
]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_input_is_named_in_one_message(scheme, arguments, message):
    good = {"lengths": [1, 2, 3, 4, 5], "batch": 2}
    with pytest.raises(ValueError, match=message) as error:
        scheme(**good | arguments)
    assert str(error.value).startswith(scheme.__name__)
    assert error.value.__cause__ is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ranks": 3}, "the state has ranks=3, these batches have ranks=1"),
        ({"seed": 8}, "the state has seed=8"),
        ({"scheme": "RandomBatches"}, "the state has scheme='RandomBatches'"),
        ({"lengths": 0}, "the state has lengths=0"),
        ({"done": 4}, r"\(done=4\): must be an integer in \[0, 3\]"),
        ({"epoch": -1}, r"\(epoch=-1\): must be an integer >= 0"),
        ({"rank": 0}, "missing or unknown keys: rank"),
    ],
)
def test_a_state_of_other_batches_is_refused(change, message):
    buckets = GlobalBuckets([1, 2, 3, 4, 5], 2)
    state = buckets.state_dict()
    with pytest.raises(ValueError, match=message):
        buckets.load_state_dict(state | change)
    assert buckets.state_dict() == state


def test_epochs_and_counts_of_batches_are_checked():
    buckets = GlobalBuckets([1, 2, 3], 2)
    with pytest.raises(
        ValueError, match=r"set_epoch\(epoch=-1\): must be an integer >= 0"
    ):
        buckets.set_epoch(-1)
    with pytest.raises(ValueError, match=r"done=3\): must be an integer in \[0, 2\]"):
        buckets.state_dict(done=3)
    with pytest.raises(ValueError, match=r"shared_order=2\): must be False or True"):
        LocalBuckets([1, 2, 3], 2, shared_order=2)  # pyright: ignore[reportArgumentType]
