"""Scaling: replayed messages, laws recovered from their curves, torch's own buckets."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from elision.training.parallel.scaling import (
    COLLECTIVES,
    Compression,
    Cores,
    Link,
    StepCosts,
    scaling_model,
)
from elision.training.parallel.scaling.collectives import (
    AllGather,
    Hierarchical,
    Ring,
    Tree,
)
from elision.training.parallel.scaling.compression import break_even
from elision.training.parallel.scaling.dry_run import dry_run
from elision.training.parallel.scaling.laws import (
    Usl,
    amdahl,
    fit_amdahl,
    fit_gustafson,
    fit_usl,
    gustafson,
    karp_flatt,
)
from elision.training.parallel.scaling.link import fit_link, measured_curve
from elision.training.parallel.scaling.measure import measured_copies, measured_step
from elision.training.parallel.scaling.model import ScalingRow
from elision.training.parallel.scaling.overlap import (
    Bucket,
    bucketed,
    competing,
    exposed,
    sent,
)

LINK = Link(bandwidth=3e6, latency=2e-4)
COUNTS = (1, 2, 4, 8, 16, 64, 256)


def replayed(rounds: list[dict[int, float]], link: Link) -> tuple[float, float]:
    """Seconds and the busiest rank's bytes of rounds: sending rank -> bytes."""
    seconds = sum(max(link.seconds(b) for b in each.values()) for each in rounds)
    total: dict[int, float] = {}
    for each in rounds:
        for rank, size in each.items():
            total[rank] = total.get(rank, 0) + size
    return seconds, max(total.values(), default=0)


@given(p=st.integers(2, 12), parts=st.integers(1, 50))
def test_ring_is_its_messages_and_leaves_every_rank_with_the_sum(
    p: int, parts: int
) -> None:
    size = float(p * parts)
    held = [[float(r + 1)] * p for r in range(p)]  # one value for each chunk
    rounds = []
    for reducing in (True, False):
        for i in range(p - 1):
            moves = [((r - i + (not reducing)) % p, r) for r in range(p)]
            values = [held[r][chunk] for chunk, r in moves]
            for (chunk, r), value in zip(moves, values, strict=True):
                there = held[(r + 1) % p]
                there[chunk] = there[chunk] + value if reducing else value
            rounds.append(dict.fromkeys(range(p), size / p))
    assert held == [[p * (p + 1) / 2] * p] * p
    seconds, sent_bytes = replayed(rounds, LINK)
    assert Ring(LINK).seconds(size, p) == pytest.approx(seconds)
    assert Ring(LINK).sent_bytes(size, p) == pytest.approx(sent_bytes)


@given(p=st.integers(2, 40))
def test_tree_is_its_messages_and_leaves_every_rank_with_the_sum(p: int) -> None:
    size = 1000.0
    held, rounds = [float(r + 1) for r in range(p)], []
    strides = [2**i for i in range(math.ceil(math.log2(p)))]
    for stride in strides:  # up: the right neighbour's sum goes left
        senders = range(stride, p, 2 * stride)
        for r in senders:
            held[r - stride] += held[r]
        rounds.append(dict.fromkeys(senders, size))
    for stride in reversed(strides):
        senders = [r - stride for r in range(stride, p, 2 * stride)]
        for r in senders:
            held[r + stride] = held[r]
        rounds.append(dict.fromkeys(senders, size))
    assert held == [p * (p + 1) / 2] * p
    seconds, sent_bytes = replayed(rounds, LINK)
    assert Tree(LINK).seconds(size, p) == pytest.approx(seconds)
    assert Tree(LINK).sent_bytes(size, p) == pytest.approx(sent_bytes)


@pytest.mark.parametrize("p", [2, 8, 24])
def test_hierarchical_is_a_ring_where_there_is_one_level(p: int) -> None:
    ring = Ring(LINK)
    across = Hierarchical(LINK, inner=Link(1.0), per_node=1)
    inside = Hierarchical(Link(1.0), inner=LINK, per_node=24)
    for two_levels in (across, inside):
        assert two_levels.seconds(1e4, p) == pytest.approx(ring.seconds(1e4, p))
        assert two_levels.sent_bytes(1e4, p) == pytest.approx(ring.sent_bytes(1e4, p))
    with pytest.raises(ValueError, match="9 ranks do not fill nodes"):
        Hierarchical(LINK, per_node=2).seconds(1, 9)


@pytest.mark.parametrize("name", COLLECTIVES)
def test_one_rank_sends_nothing(name: str) -> None:
    assert COLLECTIVES[name](LINK).seconds(1e6, 1) == 0
    assert COLLECTIVES[name](LINK).sent_bytes(1e6, 1) == 0


@given(
    f=st.floats(0.1, 1), e=st.floats(0, 0.9), s=st.floats(0, 0.3), k=st.floats(0, 0.01)
)
def test_fits_recover_the_laws_that_made_the_curves(
    f: float, e: float, s: float, k: float
) -> None:
    found = fit_amdahl(COUNTS, [amdahl(n, f) for n in COUNTS])
    assert found == pytest.approx(f, abs=1e-9)
    found = fit_gustafson(COUNTS, [gustafson(n, e) for n in COUNTS])
    assert found == pytest.approx(e, abs=1e-9)
    law = fit_usl(COUNTS, [Usl(s, k).speedup(n) for n in COUNTS])
    assert (law.contention, law.coherency) == pytest.approx((s, k), abs=1e-9)
    assert all(karp_flatt(n, amdahl(n, f)) == pytest.approx(1 - f) for n in COUNTS[1:])


@given(a=st.floats(1e-6, 1e-2), b=st.floats(1e6, 1e11), p=st.integers(2, 64))
def test_a_link_is_recovered_from_three_sizes(a: float, b: float, p: int) -> None:
    sizes, link = [1e4, 1e6, 1e8], Link(b, a)
    found, error = fit_link(sizes, [Ring(link).seconds(n, p) for n in sizes], p)
    assert (found.latency, found.bandwidth) == pytest.approx((a, b), rel=1e-4)
    assert error < 1e-6


def test_the_published_efficiencies_are_these_shares() -> None:
    strong = 16 * 0.81
    assert fit_amdahl([16], [strong]) == pytest.approx(0.9844, abs=5e-5)
    assert karp_flatt(16, strong) == pytest.approx(0.0156, abs=5e-5)
    assert round(1 / 0.78 - 1, 2) == 0.28


@given(
    times=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 9)), min_size=1),
    backward=st.integers(0, 30),
)
def test_the_time_line_is_that_of_a_clock(
    times: list[tuple[int, int]], backward: int
) -> None:
    """A link that ticks: it takes the next bucket when it is free and that is ready."""
    ready, takes = zip(*sorted(times), strict=True)
    clock, ends = 0, []
    for at, left in zip(ready, takes, strict=True):
        while clock < at:
            clock += 1
        for _ in range(left):
            clock += 1
        ends.append(clock)
    found = sent(ready, takes)
    assert [s.end for s in found] == ends
    assert exposed(found, backward) == max(ends[-1] - backward, 0)


# The backward pass ends, to the last bit, where the last bucket becomes ready.
@example(
    times=[(0, 4, 0.7), (0, 5, 0.25), (0, 5, 1), (6, 5, 0), (12, 1, 1)], backward=12
)
@settings(max_examples=40)
@given(
    times=st.lists(
        st.tuples(
            st.integers(0, 12), st.integers(0, 5), st.sampled_from([0, 0.25, 0.7, 1])
        ),
        min_size=1,
        max_size=5,
    ),
    backward=st.integers(12, 15),
)
def test_buckets_that_take_computing_are_those_of_a_clock(
    times: list[tuple[int, int, float]], backward: int
) -> None:
    """A rank and its link in small ticks: computing is slower while the link is busy."""
    ready, takes, shares = zip(*sorted(times), strict=True)
    tick, clock, work, ended = 1 / 128, 0.0, 0.0, None
    waiting, left, share, ends = list(range(len(times))), 0.0, 0.0, []
    while waiting or left > 0 or ended is None:
        if left <= 0 and waiting and work >= ready[waiting[0]]:
            number = waiting.pop(0)
            left, share = takes[number], shares[number]
            if not left:
                ends.append(clock)
                continue
        work += tick * (1 - share if left > 0 else 1)
        clock += tick
        if left > 0:
            left -= tick
            if left <= 0:
                ends.append(clock)
        if ended is None and work >= backward:
            ended = clock
    found, end = competing(ready, takes, shares, backward)
    close = 20 * tick
    assert [s.end for s in found] == pytest.approx(ends, abs=close)
    assert end == pytest.approx(ended, abs=close)
    assert all(s.ready <= s.start <= s.end for s in found)
    alone, undisturbed = competing(ready, takes, [0] * len(ready), backward)
    assert [s.end for s in alone] == pytest.approx([s.end for s in sent(ready, takes)])
    assert undisturbed == backward


@given(
    points=st.lists(
        st.tuples(st.integers(1, 10**6), st.floats(1e-6, 1.0)),
        min_size=2,
        max_size=6,
        unique_by=lambda point: point[0],
    ),
    ranks=st.integers(2, 9),
)
def test_a_measured_link_gives_its_measurements_back(
    points: list[tuple[int, float]], ranks: int
) -> None:
    sizes, seconds = map(list, zip(*sorted(points), strict=True))
    ring = Ring(Link(curve=measured_curve(sizes, sorted(seconds), ranks)))
    again = [ring.seconds(size, ranks) for size in sizes]
    assert again == pytest.approx(sorted(seconds))
    halfway = ring.seconds((sizes[0] + sizes[1]) / 2, ranks)
    assert halfway == pytest.approx(sum(sorted(seconds)[:2]) / 2)
    # A message is never slower than a longer one, however noisy the clock was.
    curve = measured_curve(sizes, seconds, ranks)
    times = [time for _, time in curve]
    assert times == sorted(times)
    assert all(
        t * 2 * (ranks - 1) <= s * (1 + 1e-9)
        for t, s in zip(times, seconds, strict=True)
    )


def test_a_longer_message_than_all_goes_on_at_the_last_rate() -> None:
    link = Link(curve=((10.0, 1.0), (20.0, 3.0)))
    assert [link.seconds(n) for n in (1, 10, 15, 30)] == [1.0, 1.0, 2.0, 5.0]
    assert link.bounded(2.0).seconds(20) == 10.0
    with pytest.raises(ValueError, match="seconds that do not fall"):
        Link(curve=((10.0, 3.0), (20.0, 1.0)))


COSTS = StepCosts(
    (0.01, 0.001),
    (0.02, 0.002),
    0.005,
    tuple(Bucket(2e6, share) for share in (0.25, 0.5, 0.75, 1.0)),
)


def test_free_communication_leaves_amdahls_law() -> None:
    model = scaling_model(COSTS, Link(), batch=1024, ranks=COUNTS)
    serial = 0.035 / COSTS.seconds(1024)
    assert model.amdahl == pytest.approx(1 - serial)
    assert all(row.exposed == 0 for row in model.rows)
    weak = scaling_model(COSTS, Link(), batch=64, ranks=COUNTS, mode="weak")
    assert [row.efficiency for row in weak.rows] == pytest.approx([1] * len(COUNTS))


@given(
    p=st.sampled_from(COUNTS[1:]),
    mode=st.sampled_from(["strong", "weak"]),
    bandwidth=st.floats(1e6, 1e11),
)
def test_a_row_adds_up_and_worse_terms_never_help(
    p: int, mode: str, bandwidth: float
) -> None:
    def row(bandwidth: float = bandwidth, **options: object) -> float:
        link = Link(bandwidth, 1e-5)
        model = scaling_model(COSTS, link, batch=512, ranks=[p], mode=mode, **options)  # pyright: ignore[reportArgumentType]
        (found,) = model.rows
        assert found.step == pytest.approx(found.compute + found.exposed)
        assert found.exposed <= found.communication * (1 + 1e-9)
        assert 0 < found.efficiency <= 1 + 1e-9
        return found.step

    plain = row()
    assert plain <= row(bandwidth / 2) + 1e-12
    assert plain <= row(overlap=False) + 1e-12
    assert plain <= row(imbalance=1.5)
    assert row(compression=Compression(16)) <= plain + 1e-12
    assert plain <= row(compression=Compression(32, seconds_per_value=1e-9)) + 1e-12
    assert plain <= row(cores=Cores(8, 2)) + 1e-12


@given(share=st.floats(0, 1), bandwidth=st.floats(1e6, 1e10), fill=st.floats(0, 0.1))
def test_a_rank_without_a_spare_core_pays_for_what_it_sends(
    share: float, bandwidth: float, fill: float
) -> None:
    def row(**options: object) -> ScalingRow:
        costs = replace(COSTS, copies=(fill, 0.01))
        model = scaling_model(costs, Link(bandwidth), batch=64, ranks=[2], **options)  # pyright: ignore[reportArgumentType]
        assert model.row(2).step == pytest.approx(
            model.row(2).compute + model.row(2).exposed
        )
        return model.row(2)

    spare, taken, all_of_it = row(), row(core_share=share), row(core_share=1.0)
    assert spare.compute == pytest.approx(COSTS.seconds(32) + fill + 0.01)
    assert row(core_share=0.0).step == pytest.approx(spare.step)
    assert spare.step <= taken.step + 1e-12
    assert taken.step <= all_of_it.step + 1e-12
    # A rank that does one thing at a time hides nothing.
    assert all_of_it.exposed == pytest.approx(all_of_it.communication)
    assert all_of_it.step == pytest.approx(row(overlap=False).step)


def test_copies_are_measured_and_one_rank_makes_none() -> None:
    net, x = network("many layers")
    copies = measured_copies(net, lambda m: m(x).square().sum(), rounds=3)
    assert all(0 <= seconds < 1 for seconds in copies)
    assert copies[1] > 0
    net.register_parameter("unused", nn.Parameter(torch.zeros(3)))
    assert measured_copies(net, lambda m: m(x).square().sum(), rounds=1)[1] > 0
    assert all(p.grad is None for p in net.parameters())
    costs = replace(COSTS, copies=(0.5, 0.25))
    model = scaling_model(costs, Link(), batch=64, ranks=(1, 2), mode="weak")
    alone, two = model.rows
    assert alone.step == pytest.approx(COSTS.seconds(64))
    assert two.step == pytest.approx(alone.step + 0.75)


def test_gathered_messages_grow_with_the_ranks() -> None:
    top_k = Compression(bits=0.64, gathered=True)  # one value of 100, 64 bits
    model = scaling_model(COSTS, LINK, batch=1024, ranks=(2, 256), compression=top_k)
    two, many = model.rows
    assert many.sent_bytes == pytest.approx(255 * two.sent_bytes)
    assert two.sent_bytes == pytest.approx(8e6 / 32 * 0.64)
    assert AllGather(LINK).seconds(100, 3) == pytest.approx(2 * LINK.seconds(100))


def test_cores_trade_time_to_compute_for_overlap() -> None:
    slow = Link(2e8)
    cores = Cores(16)
    model = scaling_model(COSTS, slow, batch=1024, ranks=[16], cores=cores)
    steps = {n: row.step for n, row in model.by_cores(16)}
    best = min(steps, key=lambda n: steps[n])
    assert 0 < best < 15
    assert steps[15] > steps[0] > steps[best]


def test_what_pays_ends_at_the_efficiency_or_where_it_gets_slower() -> None:
    model = scaling_model(COSTS, Link(1e8, 1e-3), batch=1024, ranks=COUNTS)
    rows = {row.ranks: row for row in model.rows}
    until = model.pays_until(0.5)
    following = COUNTS[COUNTS.index(until) + 1]
    assert rows[until].efficiency >= 0.5 > rows[following].efficiency
    assert model.fastest >= until
    assert model.pays_until(1.0) == 1
    assert model.pays_until(0.001) <= model.fastest


def test_break_even_is_where_both_take_as_long() -> None:
    bandwidth = break_even(1e8, 1e6, 0.05)
    assert 1e8 / bandwidth == pytest.approx(0.05 + 1e6 / bandwidth)


@pytest.mark.parametrize("gathered", [False, True])
def test_at_the_break_even_bandwidth_compression_changes_nothing(
    gathered: bool,
) -> None:
    half = Compression(8 if not gathered else 1, 2e-9, gathered)

    def busy(bandwidth: float, compression: Compression | None) -> float:
        link = Link(bandwidth)
        model = scaling_model(
            COSTS, link, batch=64, ranks=[4], compression=compression, bucket_cap=1e9
        )
        return model.row(4).communication

    compressed = scaling_model(
        COSTS, Link(), batch=64, ranks=[4], compression=half, bucket_cap=1e9
    )
    (bandwidth,) = compressed.break_even(4)
    assert busy(bandwidth, half) == pytest.approx(busy(bandwidth, None))
    assert busy(bandwidth / 2, half) < busy(bandwidth / 2, None)
    assert busy(bandwidth * 2, half) > busy(bandwidth * 2, None)


def network(kind: str) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    if kind == "many layers":
        layers = [nn.Linear(300, 300) for _ in range(12)]
        return nn.Sequential(*layers), torch.randn(4, 300)
    convolutions = [nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 256, 3), nn.Flatten()]
    return nn.Sequential(*convolutions, nn.Linear(256 * 16, 1000)), torch.randn(
        2, 3, 8, 8
    )


@pytest.mark.parametrize(
    ("kind", "cap"),
    [("many layers", 2**20), ("many layers", None), ("convolutions", None)],
)
def test_buckets_are_those_of_torch_at_256_ranks(kind: str, cap: float | None) -> None:
    net, x = network(kind)
    costs = measured_step(
        net,
        {len(x): lambda: net(x).square().sum()},
        lambda model: torch.optim.SGD(model.parameters(), lr=0.0),
        rounds=2,
    )
    found = dry_run(net, lambda m: m(x).square().sum(), 256, cap)
    assert found == [b.size for b in bucketed(costs.gradients, cap)]
    assert sum(found) == costs.size == 4 * sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "both"}, ["'both'", "'strong' or 'weak'"]),
        ({"collective": "star"}, ["star", "ring", "tree", "hierarchical"]),
        ({"per_node": 4}, ["per_node", "hierarchical"]),
        ({"ranks": [0]}, ["ranks=0", ">= 1"]),
        ({"ranks": []}, ["at least one"]),
        ({"imbalance": 0.5}, ["imbalance=0.5", ">= 1"]),
        ({"cores": Cores(4), "overlap": False}, ["would be ignored"]),
        (
            {"cores": Cores(4), "core_share": 0.5},
            ["core_share=0.5", "would be ignored"],
        ),
        ({"core_share": 1.5}, ["core_share=1.5", "[0, 1]"]),
    ],
)
def test_what_has_no_meaning_is_refused(
    options: dict[str, object], words: list[str]
) -> None:
    with pytest.raises(ValueError) as caught:
        scaling_model(COSTS, LINK, batch=64, **options)  # pyright: ignore[reportArgumentType]
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    "text", ["fast", "10", "-1Gbit", "10 Gibit", "0Gbit", "1e999GB/h"]
)
def test_a_link_without_unit_or_speed_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="10Gbit"):
        Link.parse(text)
