"""Retiming: loops keep their registers, and the retimed step computes the same."""

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elision.training.pipeline.retiming import (
    DataFlow,
    check_retimed,
    draw,
    layerpipe2,
    training_step,
)


def loops(graph: DataFlow) -> dict[tuple[str, ...], int]:
    """Every simple loop, by exhaustive search, with its registers."""
    after: dict[str, list[tuple[str, int]]] = {n: [] for n in graph.nodes}
    for edge in graph.edges:
        after[edge.source].append((edge.target, edge.delay))
    order = {n: i for i, n in enumerate(graph.nodes)}
    found: dict[tuple[str, ...], int] = {}

    def walk(path: list[str], held: int) -> None:
        for node, delay in after[path[-1]]:
            if node == path[0]:
                found[tuple(path)] = held + delay
            elif node not in path and order[node] > order[path[0]]:
                walk([*path, node], held + delay)

    for node in graph.nodes:
        walk([node], 0)
    return found


stagings = st.lists(st.booleans(), max_size=3).map(
    lambda cuts: [sum(cuts[:i]) for i in range(len(cuts) + 1)]
)


@settings(max_examples=20, deadline=None)
@given(stagings)
def test_only_gradient_edges_add_registers_to_loops(stage_of: list[int]) -> None:
    before = loops(training_step(len(stage_of)))
    _, piped = layerpipe2(stage_of)
    for loop, held in loops(piped).items():
        through = [int(n[2:]) - 1 for n in loop if n.startswith("dW")]
        added = sum(2 * (stage_of[-1] - stage_of[l]) for l in through)
        assert held == before[loop] + added, loop


@settings(max_examples=20, deadline=None)
@given(stagings)
def test_every_step_between_stages_has_a_register_and_none_inside(
    stage_of: list[int],
) -> None:
    _, piped = layerpipe2(stage_of)
    last = stage_of[-1]
    for l in range(2, len(stage_of) + 1):
        stage, crossing = stage_of[l - 1], stage_of[l - 1] - stage_of[l - 2]
        assert piped.delay(f"F{l - 1}", f"F{l}") == crossing
        if l < len(stage_of):
            forward = stage_of[l] - stage
            assert piped.delay(f"dX{l + 1}", f"dX{l}") == forward
        # The stash and the activations kept: twice the stages after the layer.
        assert piped.delay(f"W{l}", f"dX{l}") == 2 * (last - stage)
        assert piped.delay(f"F{l - 1}", f"dW{l}") == 2 * (last - stage) + crossing
        assert piped.delay(f"dW{l}", f"W{l}") == 1


def simulated(graph: DataFlow, xs: list[float], target: float) -> list[float]:
    """Scalar layers ``y = w·x`` on the graph, tick by tick; the losses' gradients."""
    layers = sum(n.startswith("F") for n in graph.nodes)
    past: dict[str, list[float]] = {n: [] for n in graph.nodes}
    order = ["input"]
    order += [n for l in range(1, layers + 1) for n in (f"W{l}", f"F{l}")]
    order += ["loss"]
    order += [n for l in range(layers, 0, -1) for n in (f"dX{l}", f"dW{l}")]
    order = [n for n in order if n in past]

    def read(source: str, target_: str) -> float | None:
        delay = graph.delay(source, target_)
        values = past[source]
        # In this tick the source has computed already; before the first value: nothing.
        place = len(past[target_]) - delay
        return values[place] if place >= 0 else None

    for x in xs:
        for node in order:
            l = int("".join(c for c in node if c.isdigit()) or 0)
            above = f"dX{l + 1}" if l < layers else "loss"
            below = f"F{l - 1}" if l > 1 else "input"
            value: float | None
            if node == "input":
                value = x
            elif node == "loss":
                y = read(f"F{layers}", "loss")
                value = None if y is None else y - target
            elif node.startswith("W"):
                weight, gradient = read(node, node), read(f"dW{l}", node)
                value = 1.1 if weight is None else weight - 0.1 * (gradient or 0.0)
            else:
                pair = {
                    "F": ((f"W{l}", node), (below, node)),
                    "dX": ((above, node), (f"W{l}", node)),
                    "dW": ((above, node), (below, node)),
                }[node.rstrip("0123456789")]
                first, second = (read(*edge) for edge in pair)
                value = None if first is None or second is None else first * second
            past[node].append(value)  # type: ignore[arg-type]
    return past["loss"]


@settings(max_examples=15, deadline=None)
@given(stagings, st.lists(st.floats(-1, 1), min_size=12, max_size=12))
def test_the_retimed_step_gives_the_delayed_step_s_numbers_later(
    stage_of: list[int], xs: list[float]
) -> None:
    delayed, piped = layerpipe2(stage_of)
    last = stage_of[-1]
    expected = simulated(delayed, xs, 0.5)
    found = simulated(piped, xs, 0.5)
    # A register of the pipeline is empty for the first ticks, one for each stage.
    assert found[:last] == [None] * last
    assert found[last:] == pytest.approx(expected[: len(xs) - last])


def test_the_drawing_labels_every_register_that_the_graphs_hold() -> None:
    drawn = draw([0, 1, 2])
    held = [
        e.delay
        for graph in layerpipe2([0, 1, 2])
        for e in graph.edges
        if e.delay and e.source != e.target
    ]
    labels = re.findall(r">(\d*)D<", drawn)
    assert sorted(int(n or 1) for n in labels) == sorted(held)
    assert all(f">{n}<" in drawn for n in ("F3", "dX2", "dW1", "loss", "stage 2"))


def test_a_loop_that_gained_a_register_is_found() -> None:
    step = training_step(2)
    wrong = DataFlow(
        tuple(replace(e, delay=1) if e.target == "dX2" else e for e in step.edges)
    )
    with pytest.raises(ValueError, match=r"a loop through .* holds [+-]1 registers"):
        check_retimed(step, wrong)
    with pytest.raises(ValueError, match="feed-forward cutset: dW1 -> W1 leads back"):
        step.on_cutset(["W1", "input"], 1)
    with pytest.raises(ValueError, match="leaves -1 registers on"):
        step.retimed({"F1": 1})
    with pytest.raises(ValueError, match="must begin at stage 0"):
        layerpipe2([])
    with pytest.raises(ValueError, match="stage_of=2"):
        layerpipe2([0, 2])
