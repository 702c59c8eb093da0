"""Padding and waiting: worked examples, a slow oracle, and published tables."""

from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from verse_lengths import verse_lengths

from elision.workloads import (
    BatchEfficiency,
    GlobalBuckets,
    LocalBuckets,
    RandomBatches,
    batch_efficiency,
)

untimed = settings(deadline=None)

#: Twelve sequences; the first rank owns the first six.
WORKED = [2, 9, 4, 3, 8, 5, 7, 1, 6, 2, 9, 4]
#: Plan in lengths, and its padded tokens, paid tokens, useful, 1 - idle, and paid.
EXAMPLES: dict[str, tuple[list[list[list[int]]], tuple[float, ...]]] = {
    "naive": (
        [[[2, 9, 4], [7, 1, 6]], [[3, 8, 5], [2, 9, 4]]],
        (99, 108, 0.606, 0.917, 0.556),
    ),
    "own sort, opposite shuffle": (
        [[[2, 3, 4], [6, 7, 9]], [[5, 8, 9], [1, 2, 4]]],
        (78, 108, 0.769, 0.722, 0.556),
    ),
    "own sort, same shuffle": (
        [[[2, 3, 4], [1, 2, 4]], [[5, 8, 9], [6, 7, 9]]],
        (78, 78, 0.769, 1, 0.769),
    ),
    "global, strided": (
        [[[1, 2, 4], [2, 3, 4]], [[5, 7, 9], [6, 8, 9]]],
        (78, 78, 0.769, 1, 0.769),
    ),
    "global, blocks": (
        [[[1, 2, 2], [3, 4, 4]], [[5, 6, 7], [8, 9, 9]]],
        (66, 78, 0.909, 0.846, 0.769),
    ),
}


def slow(lengths: Sequence[int], plan: Any) -> BatchEfficiency:
    """The formulas word by word, token by token."""
    tokens = padded = paid = 0
    for step in plan:
        grids = []
        for batch in step:
            longest = max(lengths[i] for i in batch)
            grid = [t < lengths[i] for i in batch for t in range(longest)]
            tokens += sum(grid)
            padded += len(grid)
            grids.append(len(grid))
        for _ in step:  # every rank waits for the largest
            paid += max(grids)
    return BatchEfficiency(tokens, padded, paid)


@pytest.mark.parametrize("measure", [slow, batch_efficiency])
@pytest.mark.parametrize("name", EXAMPLES)
def test_worked_examples(name, measure):
    in_lengths, expected = EXAMPLES[name]
    flat = [length for step in in_lengths for batch in step for length in batch]
    assert sorted(flat) == sorted(WORKED)
    places = iter(range(12))
    plan = [[[next(places) for _ in batch] for batch in step] for step in in_lengths]
    found = measure(flat, plan)
    assert found.tokens == 60
    assert (found.padded_tokens, found.paid_tokens) == expected[:2]
    shares = found.useful, 1 - found.idle, found.paid
    assert shares == pytest.approx(expected[2:], abs=5e-4)


@pytest.mark.parametrize("seed", range(5))
def test_global_buckets_deal_the_worked_example(seed):
    found = GlobalBuckets(WORKED, 3, ranks=2, seed=seed).efficiency()
    assert found == BatchEfficiency(60, 78, 78)


@untimed
@given(
    scheme=st.sampled_from([GlobalBuckets, LocalBuckets, RandomBatches]),
    lengths=st.lists(st.integers(1, 30), min_size=4, max_size=60),
    batch=st.integers(2, 9),
    ranks=st.integers(1, 4),
    epoch=st.integers(0, 3),
)
def test_efficiency_is_that_of_the_slow_oracle(scheme, lengths, batch, ranks, epoch):
    sampler = scheme(lengths, batch, ranks)
    sampler.set_epoch(epoch)
    found = sampler.efficiency()
    assert found == slow(lengths, [[b.tolist() for b in s] for s in sampler.plan()])
    assert found.tokens == sum(lengths)
    assert 0 < found.useful <= 1
    assert 0 <= found.idle < 1
    assert found.paid == pytest.approx(found.useful * (1 - found.idle))


def test_a_batch_of_two_sides_pays_both_longest():
    found = batch_efficiency([[1, 9], [5, 2]], [[[0, 1]]])
    assert found == BatchEfficiency(tokens=17, padded_tokens=28, paid_tokens=28)


@pytest.mark.parametrize(
    ("lengths", "plan", "message"),
    [
        ([1, 2], [], "has no step"),
        ([1, 2], [[[0, 1]], []], "step 1 has an empty batch"),
        ([1, 2], [[[0, 1], []]], "step 0 has an empty batch"),
        ([0, 2], [[[0, 1]]], "sequence 0 has length 0"),
    ],
)
def test_bad_plans_are_named(lengths, plan, message):
    with pytest.raises(ValueError, match=message):
        batch_efficiency(lengths, plan)


# The verses: 64 sequences a batch, tails dropped, by 1, 2, 4 and 16 ranks.
RANKS = (1, 2, 4, 16)
EPOCHS = 20
VERSES: dict[str, Callable[..., Any]] = {
    "RandomBatches": RandomBatches,
    "LocalBuckets": LocalBuckets,
    "LocalBuckets, shared_order=True": partial(LocalBuckets, shared_order=True),
    "GlobalBuckets": GlobalBuckets,
}
#: The paid share of one draw each, by a separate implementation.
ONE_DRAW = {
    "RandomBatches": (0.469, 0.448, 0.433, 0.417),
    "LocalBuckets": (0.997, 0.804, 0.675, 0.498),
    "LocalBuckets, shared_order=True": (0.997, 0.991, 0.983, 0.934),
    "GlobalBuckets": (0.997, 0.995, 0.990, 0.964),
}
ROUNDED = 5e-4  # they are printed to three digits


@cache
def epochs(scheme: str, ranks: int) -> list[BatchEfficiency]:
    sampler = VERSES[scheme](verse_lengths(), 64, ranks, drop_last=True)
    found = []
    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch)
        found.append(sampler.efficiency())
    return found


def test_the_verses_are_the_corpus_of_the_table():
    lengths = verse_lengths().double()
    assert (len(lengths), int(lengths.max())) == (30_983, 61)
    assert lengths.mean() == pytest.approx(25.0, abs=0.05)
    assert lengths.std() == pytest.approx(10.4, abs=0.05)


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("scheme", VERSES)
def test_the_verses_give_the_published_efficiency(scheme, ranks):
    paid = [e.paid for e in epochs(scheme, ranks)]
    published = ONE_DRAW[scheme][RANKS.index(ranks)]
    sorted_alike = scheme == "GlobalBuckets" or (
        ranks == 1 and scheme != "RandomBatches"
    )
    # Sorting leaves nothing to chance but the tail; elsewhere one draw is one draw.
    allowed = 1e-3 if sorted_alike else 3 * stdev(paid) + ROUNDED
    assert mean(paid) == pytest.approx(published, abs=allowed)


def test_the_parts_of_the_published_efficiency_at_16_ranks():
    parts = {
        name: (mean(e.useful for e in found), mean(1 - e.idle for e in found))
        for name in VERSES
        for found in [epochs(name, 16)]
    }
    assert parts["GlobalBuckets"] == pytest.approx((0.965, 1.0), abs=1e-3)
    assert parts["RandomBatches"] == pytest.approx((0.47, 0.89), abs=1e-2)
    assert parts["LocalBuckets"] == pytest.approx((0.96, 0.52), abs=1e-2)
    shared = parts["LocalBuckets, shared_order=True"]
    assert shared == pytest.approx((0.96, 0.97), abs=1e-2)


def test_the_page_shows_these_means():
    page = Path(__file__).parents[2] / "docs" / "workloads.md"
    rows = {
        cells[0].strip("` "): cells[1:]
        for line in page.read_text(encoding="utf-8").splitlines()
        if line.startswith("| `")
        for cells in [line.strip("|").split("|")]
    }
    for scheme in VERSES:
        shown = [float(cell.split("±")[0]) for cell in rows[scheme][: len(RANKS)]]
        found = [mean(e.paid for e in epochs(scheme, ranks)) for ranks in RANKS]
        assert shown == pytest.approx(found, abs=1e-3)


# Log-normal lengths, to two digits, by 1, 2, 4, 8 and 16 ranks. For global buckets by 16 the
# source prints 1.00, more than by 8, which no cut of the sorted lengths into 62 steps gives:
# it is left out (0.97 here).
SKEWED = {
    RandomBatches: (0.30, 0.27, 0.26, 0.25, 0.25),
    LocalBuckets: (1.00, 0.74, 0.60, 0.46, 0.40),
    GlobalBuckets: (1.00, 1.00, 0.99, 0.98),
}


@pytest.mark.parametrize("scheme", SKEWED)
def test_skewed_lengths_give_the_second_published_table(scheme):
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randn(64_000, generator=generator).mul(0.6).add(3.05).exp()
    lengths = lengths.round().clamp(1, 100).long()
    for published, ranks in zip(SKEWED[scheme], (1, 2, 4, 8, 16), strict=False):
        sampler = scheme(lengths, 64, ranks, drop_last=True)
        paid = []
        for epoch in range(6):
            sampler.set_epoch(epoch)
            paid.append(sampler.efficiency().paid)
        allowed = 3 * stdev(paid) + 6e-3  # two digits, and lengths of another generator
        assert mean(paid) == pytest.approx(published, abs=allowed)
