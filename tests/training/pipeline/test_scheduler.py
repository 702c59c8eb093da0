"""The scheduler: fixed orders, list schedules under a cap, deadlocks, the exact optimum."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elision.training.pipeline import LayerCost, plan
from elision.training.pipeline.exact import shortest_makespan
from elision.training.pipeline.scheduler import (
    DeadlockError,
    Operation,
    Pipeline,
    in_order,
    list_schedule,
)


def pipeline(
    n: int, m: int, durations=(1.0, 1.0, 1.0), *, splits: bool = True
) -> Pipeline:
    f, i, w = ((d,) * n for d in durations)
    return Pipeline(m, f, i, w, (tuple(range(n)),), splits)


def test_a_deadlock_names_its_circle():
    two = pipeline(2, 2, splits=False)
    first = [("F", 0), ("B", 0), ("F", 1), ("B", 1)]
    last = [("F", 1), ("F", 0), ("B", 0), ("B", 1)]
    orders = [
        [Operation(kind, stage, i) for kind, i in order]
        for stage, order in enumerate((first, last))
    ]
    with pytest.raises(DeadlockError) as error:
        in_order(two, orders)
    assert str(error.value) == (
        "the schedule deadlocks: processor 0 cannot start B of micro-batch 0 in stage 0 "
        "before B of micro-batch 0 in stage 1, which processor 1 has after F of "
        "micro-batch 1 in stage 1; processor 1 cannot start F of micro-batch 1 in stage 1 "
        "before F of micro-batch 1 in stage 0, which processor 0 has after B of "
        "micro-batch 0 in stage 0"
    )


def test_an_order_that_is_not_the_pipelines():
    one = pipeline(1, 1, splits=False)
    f, b = Operation("F", 0, 0), Operation("B", 0, 0)
    for orders, said in (
        ([[f]], "B of micro-batch 0 in stage 0 is in no"),
        ([[f, f, b]], "stands twice"),
        ([[f, b, Operation("F", 0, 1)]], "F of micro-batch 1 in stage 0 is in a"),
        ([[], [f, b]], "belongs to processor 0"),
    ):
        with pytest.raises(ValueError, match=said):
            in_order(one, orders)


def test_a_cap_without_room_deadlocks_before_anything_runs():
    chain = [LayerCost(1.0, 1.0, 1.0)] * 8
    with pytest.raises(DeadlockError, match="keeps 0 of 1 activations"):
        plan(chain, 4, "zbv", 4, max_activations=1)


@settings(max_examples=40, deadline=None)
@given(
    durations=st.tuples(*[st.integers(1, 4).map(float)] * 3),
    n=st.integers(1, 4),
    m=st.integers(1, 6),
    cap=st.integers(1, 5),
)
def test_a_list_schedule_keeps_within_its_cap(durations, n: int, m: int, cap: int):
    actions = list_schedule(pipeline(n, m, durations), [cap] * n)
    assert len(actions) == 3 * n * m
    for processor in range(n):
        events = sorted(
            (a.start, 1) if a.kind == "F" else (a.end, -1)
            for a in actions
            if a.processor == processor and a.kind != "I"
        )
        kept = 0
        for _, change in events:
            kept += change
            assert kept <= cap


def test_a_larger_cap_is_no_slower_on_even_stages():
    chain = [LayerCost(1.0, 1.0, 1.0)] * 4
    spans = [
        plan(chain, 4, "zb1p", 8, max_activations=cap).makespan for cap in (1, 2, 4, 7)
    ]
    assert spans == sorted(spans, reverse=True)
    # One micro-batch at a time leaves the pipeline all but empty.
    assert spans[0] > 2 * spans[-1]


@pytest.mark.parametrize(
    ("durations", "cap"),
    [((1.0, 1.0, 1.0), 3), ((1.0, 2.0, 1.0), 3), ((1.0, 1.0, 2.0), 2)],
)
def test_the_exact_optimum_bounds_every_schedule(durations, cap: int):
    n, m = 3, 3
    best = shortest_makespan(pipeline(n, m, durations), [cap] * n)
    listed = list_schedule(pipeline(n, m, durations), [cap] * n)
    assert best <= max(a.end for a in listed) + 1e-6
    # The first micro-batch cannot be sooner at the last stage, nor the last sooner back.
    f, i, w = durations
    assert best >= (n - 1) * f + m * (f + i + w) - 1e-6
    if cap == n:
        chain = [LayerCost(*durations)] * n
        assert best <= plan(chain, n, "zb1p", m).makespan + 1e-6


def test_zb1p_is_shortest_on_even_stages():
    chain = [LayerCost(1.0, 1.0, 1.0)] * 3
    best = shortest_makespan(pipeline(3, 4), [3] * 3)
    assert best == pytest.approx(plan(chain, 3, "zb1p", 4).makespan)
