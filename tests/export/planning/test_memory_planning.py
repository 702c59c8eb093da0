"""Orders and offsets: properties on drawn graphs, and slow oracles beside the searches."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elision.export.planning import (
    Buffer,
    Graph,
    Operation,
    best_order,
    buffers,
    greedy_by_lifetime,
    greedy_by_size,
    least_arena,
    live_bytes,
    peak_bytes,
    place,
)


@st.composite
def graphs(draw: st.DrawFn, most: int = 7) -> Graph:
    """Directed graphs without circles: each operation reads some of what is there."""
    inputs = draw(st.integers(1, 2))
    sizes = {f"i{n}": draw(st.integers(0, 40)) for n in range(inputs)}
    operations = []
    for n in range(draw(st.integers(1, most))):
        there = sorted(sizes)
        reads = draw(st.lists(st.sampled_from(there), max_size=3, unique=True))
        writes = [f"t{n}.{k}" for k in range(draw(st.integers(1, 2)))]
        for name in writes:
            like = draw(st.booleans())  # often as large as an operand: may be in place
            size = sizes[reads[0]] if reads and like else draw(st.integers(0, 40))
            sizes[name] = size
        over = tuple(reads) if draw(st.booleans()) else ()
        operations.append(Operation(f"o{n}", "x", tuple(reads), tuple(writes), over))
    outputs = draw(st.lists(st.sampled_from(sorted(sizes)), max_size=2, unique=True))
    names = tuple(name for name in sizes if name.startswith("i"))
    return Graph(sizes, tuple(operations), names, tuple(outputs))


def orders(graph: Graph) -> list[tuple[int, ...]]:
    """Every topological order, by trying all permutations."""
    found = []
    for order in itertools.permutations(range(len(graph.operations))):
        there = set(graph.inputs)
        for index in order:
            if not set(graph.operations[index].reads) <= there:
                break
            there.update(graph.operations[index].writes)
        else:
            found.append(order)
    return found


def overlapping(lives: list[Buffer], offsets: tuple[int, ...]) -> list[tuple[int, int]]:
    """Pairs of buffers that are live at one step and share a byte."""
    pairs = itertools.combinations(range(len(lives)), 2)
    return [
        (i, j)
        for i, j in pairs
        if set(range(lives[i].first, lives[i].last + 1))
        & set(range(lives[j].first, lives[j].last + 1))
        and set(range(offsets[i], offsets[i] + lives[i].size_bytes))
        & set(range(offsets[j], offsets[j] + lives[j].size_bytes))
    ]


@settings(max_examples=150, deadline=None)
@given(graphs(most=6), st.booleans())
def test_order_is_the_best_of_all(graph: Graph, in_place: bool) -> None:
    peaks = [peak_bytes(graph, order, in_place=in_place) for order in orders(graph)]
    best = best_order(graph, in_place=in_place)
    assert best.optimal
    assert best.peak_bytes == min(peaks)
    assert best.peak_bytes == peak_bytes(graph, best.indices, in_place=in_place)


@settings(max_examples=80, deadline=None)
@given(graphs(most=6), st.booleans(), st.integers(0, 3))
def test_order_of_a_search_cut_short(graph: Graph, in_place: bool, states: int) -> None:
    """It is valid, and its bound holds."""
    peaks = [peak_bytes(graph, order, in_place=in_place) for order in orders(graph)]
    best = best_order(graph, in_place=in_place, states=states)
    assert best.peak_bytes == peak_bytes(graph, best.indices, in_place=in_place)
    assert best.least_bytes <= min(peaks) <= best.peak_bytes


@settings(max_examples=150, deadline=None)
@given(graphs(), st.booleans(), st.sampled_from([1, 4, 16]))
def test_placement_is_valid(graph: Graph, in_place: bool, alignment: int) -> None:
    lives = buffers(graph, in_place=in_place)
    for placed in (
        place(lives, alignment=alignment),
        greedy_by_size(lives, alignment=alignment),
        greedy_by_lifetime(lives, alignment=alignment),
    ):
        assert overlapping(lives, placed.offsets) == []
        assert all(offset % alignment == 0 for offset in placed.offsets)
        assert placed.size_bytes >= placed.least_bytes
        assert placed.least_bytes >= peak_bytes(graph, in_place=in_place)


@settings(max_examples=60, deadline=None)
@given(graphs(most=4), st.sampled_from([1, 4]))
def test_least_arena_is_the_best_of_all_orders(graph: Graph, alignment: int) -> None:
    """Against every order of placing each buffer into the lowest gap above the rest."""
    lives = buffers(graph)[:6]
    sizes = []
    for order in itertools.permutations(range(len(lives))):
        offsets: dict[int, int] = {}
        for i in order:
            below = [
                offsets[j] + lives[j].size_bytes
                for j in offsets
                if lives[i].first <= lives[j].last and lives[j].first <= lives[i].last
            ]
            offsets[i] = -(-max(below, default=0) // alignment) * alignment
        sizes.append(max(offsets[i] + b.size_bytes for i, b in enumerate(lives)))
    known = greedy_by_size(lives, alignment=alignment)
    found = least_arena(lives, known, alignment=alignment)
    assert found.size_bytes == min(sizes)
    assert found.size_bytes == found.least_bytes


def test_exact_search_beats_greedy() -> None:
    """Five buffers where the largest-first rule leaves a hole that nothing fits."""
    lives = [
        Buffer(("a",), 4, 0, 1),
        Buffer(("b",), 3, 0, 0),
        Buffer(("c",), 3, 1, 2),
        Buffer(("d",), 2, 2, 3),
        Buffer(("e",), 5, 3, 3),
    ]
    greedy, exact = greedy_by_size(lives), place(lives)
    assert (greedy.size_bytes, exact.size_bytes) == (9, 7)
    assert overlapping(lives, exact.offsets) == []


def test_branches_run_depth_first() -> None:
    """Input 10, two arms 20 -> 2, concatenated: 32 bytes against 50."""
    sizes = {"x": 10, "a": 20, "b": 20, "c": 2, "d": 2, "y": 4}
    wide = Graph(
        sizes,
        (
            Operation("a", "conv2d", ("x",), ("a",)),
            Operation("b", "conv2d", ("x",), ("b",)),
            Operation("c", "conv2d", ("a",), ("c",)),
            Operation("d", "conv2d", ("b",), ("d",)),
            Operation("cat", "cat", ("c", "d"), ("y",)),
        ),
        ("x",),
        ("y",),
    )
    best = best_order(wide)
    assert live_bytes(wide) == [30, 50, 42, 24, 8]
    assert peak_bytes(wide) == 50
    assert best.peak_bytes == 32
    placed = place(buffers(wide, best.indices))
    assert placed.size_bytes == 32


def test_float_network_without_fusion() -> None:
    """ExecuTorch's float plan keeps the input and a rectifier's copy: 12,288 + 2·16,384."""
    sizes = {"x": 12_288, "conv": 16_384, "relu": 16_384, "y": 8_192}
    graph = Graph(
        sizes,
        (
            Operation("conv", "conv2d", ("x",), ("conv",)),
            Operation("relu", "relu", ("conv",), ("relu",), ("conv",)),
            Operation("next", "conv2d", ("relu",), ("y",)),
        ),
        ("x",),
        ("x", "y"),  # the caller's input stays
    )
    assert peak_bytes(graph) == 45_056
    assert peak_bytes(graph, in_place=True) == 12_288 + 16_384 + 8_192


def test_graphs_that_are_refused() -> None:
    step = Operation("f", "x", ("x",), ("y",))
    sizes = {"x": 1, "y": 1}
    with pytest.raises(ValueError, match="needs at least one"):
        Graph(sizes, (), ("x",), ("x",))
    with pytest.raises(ValueError, match="f reads 'x' before it is written"):
        Graph(sizes, (step,), (), ("y",))
    with pytest.raises(ValueError, match="f writes 'y', which is there already"):
        Graph(sizes, (step,), ("x", "y"), ("y",))
    with pytest.raises(ValueError, match="'y', whose bytes are unknown"):
        Graph({"x": 1}, (step,), ("x",), ("y",))
    with pytest.raises(ValueError, match=r"nothing writes the outputs \['z'\]"):
        Graph(sizes, (step,), ("x",), ("z",))
    with pytest.raises(ValueError, match="must be an integer >= 0"):
        Graph({"x": -1, "y": 1}, (step,), ("x",), ("y",))
    with pytest.raises(ValueError, match="may overwrite"):
        Graph(sizes, (Operation("f", "x", ("x",), ("y",), ("y",)),), ("x",), ("y",))
    good = Graph(sizes, (step,), ("x",), ("y",))
    with pytest.raises(ValueError, match="must name each of the 1 operations once"):
        peak_bytes(good, [0, 0])
    chain = Graph(
        {"x": 1, "y": 1, "z": 1},
        (step, Operation("g", "x", ("y",), ("z",))),
        ("x",),
        ("z",),
    )
    with pytest.raises(ValueError, match="g comes before what writes"):
        peak_bytes(chain, [1, 0])
