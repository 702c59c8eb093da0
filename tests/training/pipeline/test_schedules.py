"""Bubble, activations and weight versions of every schedule equal their closed forms."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elision.training.pipeline import SCHEDULES, LayerCost, plan

SIZES = [(2, 4), (4, 8), (4, 12), (6, 12), (8, 16)]


def even(stages: int, f: float = 1.0, i: float = 1.0, w: float = 1.0):
    return [LayerCost(f, i, w, unit="cycles") for _ in range(stages)]


def idle(made) -> float:
    """Time of a step beyond the work of the busiest processor."""
    work = max(sum(a.end - a.start for a in own) for own in made.by_processor)
    return made.period * made.microbatches - work


def share(bubble: float, work: float) -> float:
    return bubble / (bubble + work)


@pytest.mark.parametrize(("n", "m"), SIZES)
@pytest.mark.parametrize(
    "durations", [(1.0, 1.0, 1.0), (1.0, 2.0, 1.0), (2.0, 1.5, 1.0)]
)
def test_synchronous_bubbles(n: int, m: int, durations):
    f, i, w = durations
    b = i + w
    expected = {
        "gpipe": (n - 1) * (f + b),
        "1f1b": (n - 1) * (f + b),
        "zb1p": (n - 1) * (f + i - w),
        "zb2p": (n - 1) * max(f + i - 2 * w, 0.0),
    }
    for name, bubble in expected.items():
        made = plan(even(n, f, i, w), n, name, m)
        assert math.isclose(idle(made), bubble, abs_tol=1e-9), name
        assert math.isclose(made.bubble, share(bubble, m * (f + b))), name


@pytest.mark.parametrize(("n", "m"), SIZES)
def test_gpipe_and_1f1b_by_the_reference_formula(n: int, m: int):
    for name in ("gpipe", "1f1b"):
        made = plan(even(n), n, name, m)
        assert math.isclose(made.bubble, (n - 1) / (m + n - 1))
    made = plan(even(2 * n), n, "interleaved", m)
    assert math.isclose(made.bubble, (n - 1) / (2 * m + n - 1))


@pytest.mark.parametrize(("n", "m"), [(3, 9), (4, 8), (5, 15), (6, 12), (8, 16)])
def test_v_schedules_trade_memory_for_bubble(n: int, m: int):
    """B0, half of it and two thirds of it, at 1, 1/2 and 1/3 of 1F1B's activations."""
    one = 6.0 * (n - 1)  # idle time of 1F1B with stages of two units of each product
    found = {name: plan(even(2 * n), n, name, m) for name in ("zbv", "v-half", "v-min")}
    kept = {name: max(made.peak_kept) for name, made in found.items()}
    assert math.isclose(idle(found["zbv"]), n - 1)
    assert math.isclose(idle(found["v-half"]), one / 2 - 2 * (n % 2))
    assert math.isclose(idle(found["v-min"]), 2 * one / 3 + (1 if n % 3 == 0 else -1))
    assert kept["zbv"] <= 2 * n
    assert kept["v-half"] <= n + 2
    assert kept["v-min"] <= math.ceil(2 * n / 3) + 2


def test_dualpipe_by_its_readme():
    """(PP/2 - 1)(F&B + B - 3W) with B the full backward, and no overlap: F&B = F + B."""
    f, b, w = 1.0, 2.0, 1.0
    for n, m in ((4, 8), (8, 16), (6, 20)):
        made = plan(even(n), n, "dualpipe", m)
        assert math.isclose(idle(made), (n / 2 - 1) * (f + b + b - 3 * w)), n
        assert max(made.peak_kept) == n + 1
        made = plan(even(2 * n), n, "dualpipev", m)
        assert math.isclose(idle(made), (n - 1) * (f + b + b - 3 * w)), n
        assert max(made.peak_kept) == 2 * n + 1


def test_bubbles_of_torch_schedules():
    """The bubbles that torch's own orders have with F = I = W = 1 [measured]."""
    measured = {
        ("gpipe", 4, 8): 27.3,
        ("interleaved", 4, 8): 15.8,
        ("zbv", 4, 8): 5.9,
        ("dualpipev", 4, 8): 11.1,
        ("zbv", 8, 16): 6.8,
        ("dualpipev", 8, 16): 12.7,
    }
    for (name, n, m), percent in measured.items():
        made = plan(even(2 * n), n, name, m)
        assert round(100 * made.bubble, 1) == percent, name


@pytest.mark.parametrize(("n", "m"), SIZES)
def test_activations_and_versions(n: int, m: int):
    stages = range(n)
    activations = {
        "gpipe": [m] * n,
        "1f1b": [n - s for s in stages],
        "zb1p": [n] * n,
        "pipedream": [n - s for s in stages],
        "pipedream-2bw": [n - s for s in stages],
        "layerpipe": [min(2 * (n - 1 - s) + 1, m) for s in stages],
        "layerpipe2": [min(2 * (n - 1 - s) + 1, m) for s in stages],
    }
    versions = {
        "gpipe": [1] * n,
        "1f1b": [1] * n,
        "zb1p": [1] * n,
        "pipedream": [n - s for s in stages],
        "pipedream-2bw": [2] * n,
        "layerpipe": activations["layerpipe"],
        "layerpipe2": [2] * n,
    }
    delays = {
        "1f1b": [0] * n,
        "pipedream": [n - 1 - s for s in stages],
        "pipedream-no-stash": [n - 1 - s for s in stages],
        "pipedream-2bw": [1] * n,
        "layerpipe": [2 * (n - 1 - s) for s in stages],
    }
    for name, expected in activations.items():
        made = plan(even(n), n, name, m)
        assert list(made.peak_activations) == expected, name
        assert list(made.weight_versions) == versions[name], name
    for name, expected in delays.items():
        assert list(plan(even(n), n, name, m).delays) == expected, name
    assert max(plan(even(n), n, "zb2p", m).peak_activations) == min(2 * n - 1, m)


@pytest.mark.parametrize(
    "name", [name for name, s in SCHEDULES.items() if not s.synchronous]
)
def test_without_a_flush_nothing_is_idle(name: str):
    for n in (2, 4, 5):
        assert abs(plan(even(n), n, name, 8).bubble) < 1e-9


duration = st.floats(0.1, 10.0)


@settings(max_examples=15, deadline=None)
@given(
    costs=st.lists(st.tuples(duration, duration, duration), min_size=8, max_size=14),
    processors=st.sampled_from([2, 4]),
    rounds=st.integers(2, 3),
    bandwidth=st.sampled_from([math.inf, 1.0]),
)
def test_every_schedule_runs_everything_once_in_order(
    costs, processors: int, rounds: int, bandwidth: float
):
    """Each product of each micro-batch once, after what it needs, one at a time."""
    chain = [LayerCost(*c, sent_bytes=0.5) for c in costs]
    total = sum(c.total for c in chain)
    m = processors * rounds
    for name in SCHEDULES:
        made = plan(chain, processors, name, m, bandwidth=bandwidth)
        work = sum(a.end - a.start for a in made.actions)
        assert math.isclose(work, m * total), name
        ends = {}
        for a in sorted(made.actions, key=lambda a: a.end):
            ends.setdefault((a.kind, a.stage, a.microbatch), a.end)
        last = made.pipeline.stages - 1
        for a in made.actions:
            if a.kind == "F" and a.stage:
                assert a.start >= ends["F", a.stage - 1, a.microbatch] - 1e-9, name
            if a.kind in "BI":
                assert a.start >= ends["F", a.stage, a.microbatch] - 1e-9, name
                if a.stage < last:
                    after = [ends.get((k, a.stage + 1, a.microbatch)) for k in "BI"]
                    assert a.start >= min(filter(None, after)) - 1e-9, name
            if a.kind == "W":
                assert a.start >= ends["I", a.stage, a.microbatch] - 1e-9, name
        for own in made.by_processor:
            for before, after in itertools.pairwise(own):
                assert after.start >= before.end - 1e-9, name
        busiest = max(
            sum(a.end - a.start for a in own) / m for own in made.by_processor
        )
        assert made.period >= busiest - 1e-9, name
        assert -1e-9 <= made.bubble < 1, name
