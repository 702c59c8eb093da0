"""The nine kinds of folds against a walk over every fold of every loop order."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_layers import geometries, sides

from elision.accelerators import Buffers, InterGrad, Systolic
from elision.accelerators.systolic.sram import Stream, traffic
from elision.products import LayerProduct, MatmulGeometry, Product


def walked(streams, rows, columns, fold_cycles, buffers):
    """The same rules, one fold at a time, with what is on chip kept as sets."""
    best = None
    for outer in ("rows", "columns"):
        sizes = {"rows": rows, "columns": columns}
        inner = "columns" if outer == "rows" else "rows"
        room = {f: kib * 1024 / 4 / 2 for f, kib in buffers.sizes_kib.items()}
        kept = set()
        for number, s in sorted(enumerate(streams), key=lambda e: not e[1].result):
            if s.stays_along is None:
                continue
            working = s.words if s.stays_along == outer else s.words / sizes[outer]
            if working <= room[s.family]:
                room[s.family] -= working
                kept.add(number)
        order = [
            {outer: i, inner: j}
            for i in range(sizes[outer])
            for j in range(sizes[inner])
        ]
        reads = writes = stalls = 0
        on_chip, begun = set(), set()
        edges = []
        for turn, at in enumerate(order):
            fold_reads = fold_writes = 0
            for number, s in enumerate(streams):
                moving = [v for v in ("rows", "columns") if v != s.stays_along]
                piece = (number, *(at[v] for v in moving))
                words = s.words / math.prod(sizes[v] for v in moving)
                later = any(
                    all(o[v] == at[v] for v in moving) for o in order[turn + 1 :]
                )
                if not s.result:
                    if piece not in on_chip:
                        fold_reads += words
                    if number in kept:
                        on_chip.add(piece)
                elif number in kept:
                    fold_writes += 0 if later else words
                else:
                    fold_reads += words if piece in begun else 0
                    fold_writes += words
                    begun.add(piece)
            bus = math.ceil((fold_reads + fold_writes) / buffers.dram_words_per_cycle)
            stalls += max(0, bus - fold_cycles)
            reads, writes = reads + fold_reads, writes + fold_writes
            edges.append((fold_reads, fold_writes))
        speed = buffers.dram_words_per_cycle
        fill = math.ceil(edges[0][0] / speed) + math.ceil(edges[-1][1] / speed)
        found = (stalls, reads + writes, reads, writes, fill)
        best = found if best is None else min(best, found, key=lambda f: f[:2])
    return best


# Sizes that every fold count divides, so that slices are whole and sums exact.
whole = st.integers(1, 9).map(lambda n: 900 * n)
streams = st.lists(
    st.builds(
        Stream,
        st.sampled_from(["input", "weight", "output"]),
        whole,
        st.sampled_from(["rows", "columns", None]),
        st.booleans(),
    ),
    min_size=1,
    max_size=5,
).map(tuple)
few_folds = st.sampled_from([1, 2, 3, 5])
kib = st.sampled_from([1, 4, 16, 64])


@settings(max_examples=200)
@given(
    streams,
    few_folds,
    few_folds,
    st.integers(1, 200),
    st.builds(
        Buffers,
        input_kib=kib,
        weight_kib=kib,
        output_kib=kib,
        dram_words_per_cycle=st.sampled_from([1, 2, 4]),
    ),
)
def test_traffic_equals_a_walk_over_every_fold(
    streams, rows, columns, fold_cycles, buffers
):
    found = traffic(streams, rows, columns, fold_cycles, buffers)
    stalls, _, reads, writes, fill = walked(
        streams, rows, columns, fold_cycles, buffers
    )
    assert found.stall_cycles == stalls
    assert found.reads + found.writes == reads + writes
    if rows == 1 or columns == 1:  # one order only, or orders that do not differ
        assert (found.reads, found.writes, found.fill_cycles) == (reads, writes, fill)


arrays = st.builds(
    Systolic,
    sides,
    sides,
    st.sampled_from(["ws", "os", "is"]),
    weight_grad=st.just("GtX"),
)


@given(arrays, st.sampled_from(list(Product)), geometries)
def test_every_word_moves_at_least_once_and_large_buffers_move_it_no_more(
    machine, kind, geometry
):
    cost = machine.cost(LayerProduct(kind, geometry))
    words = [math.prod(geometry.shape_of(operand)) for operand in kind.operands]
    result = math.prod(geometry.shape_of(kind.absent))
    assert cost.accesses["dram.read"] == sum(words)
    assert cost.accesses["dram.write"] == result


@given(geometries, sides, sides)
def test_a_larger_buffer_never_adds_stalls_or_stalls_to_the_cycles(
    geometry, rows, columns
):
    least = Buffers.minimum_kib(rows, columns)
    pair = [
        LayerProduct(kind, geometry)
        for kind in (Product.INPUT_GRAD, Product.WEIGHT_GRAD)
    ]

    def cost(size):
        buffers = Buffers(
            input_kib=size,
            weight_kib=size,
            output_kib=size,
            dram_words_per_cycle=0.5,
        )
        return InterGrad(rows, columns, buffers=buffers).cost_pair(*pair)

    costs = [cost(least * factor) for factor in (1, 2, 8, 1e6)]
    stalls = [c.details["stall_cycles"] for c in costs]
    assert stalls == sorted(stalls, reverse=True)
    assert len({c.cycles for c in costs}) == 1


def test_a_working_set_that_does_not_fit_is_moved_again():
    # (1024 x 1024) times (1024 x 64) on 32 x 32, so A (4 MiB) is used in two turns of
    # the columns, and Z (256 KiB) is accumulated in 32 turns of the rows.
    product = LayerProduct(Product.FORWARD, MatmulGeometry(1024, 1024, 64))

    def reads(input_kib, output_kib):
        buffers = Buffers(input_kib=input_kib, output_kib=output_kib)
        cost = Systolic(32, 32, "ws", buffers=buffers).cost(product)
        return cost.accesses["dram.read"] - 1024 * 64

    a, spilled = 1024 * 1024, 31 * 1024 * 64
    assert reads(8192, 256) == a  # A whole, and 32 columns of Z
    assert reads(256, 512) == a  # 32 columns of A, and Z whole
    assert reads(64, 256) == 2 * a
    assert reads(8192, 8) == a + spilled
    assert reads(64, 8) == 2 * a + spilled


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("input_kib", 0),
        ("weight_kib", -1),
        ("output_kib", math.inf),
        ("input_kib", math.nan),
        ("weight_kib", True),
        ("dram_words_per_cycle", "fast"),
    ],
)
def test_bad_sizes_say_what_is_allowed(field, value):
    with pytest.raises(ValueError, match=f"{field}=.*must be a number"):
        Buffers(**{field: value})


def test_an_infinitely_fast_memory_never_stalls():
    fast = Buffers(dram_words_per_cycle=math.inf)
    product = LayerProduct(Product.FORWARD, MatmulGeometry(1, 512, 512))
    cost = Systolic(8, 8, buffers=fast).cost(product)
    assert cost.details["stall_cycles"] == cost.details["fill_cycles"] == 0
    # a fold takes 23 cycles and needs a tile of 64 weights
    slow = Buffers(dram_words_per_cycle=1)
    details = Systolic(8, 8, buffers=slow).cost(product).details
    assert details["stall_cycles"] >= (64 - 23) * details["folds"]
    assert details["fill_cycles"] >= 64


@pytest.mark.parametrize(
    ("text", "sizes", "bandwidth"),
    [
        ("64", (64, 64, 64), 16),
        ("6144/6144/2048", (6144, 6144, 2048), 16),
        ("64@2.5", (64, 64, 64), 2.5),
        ("64/32/128@inf", (64, 32, 128), math.inf),
    ],
)
def test_buffers_as_text(text, sizes, bandwidth):
    found = Buffers.parse(text)
    assert tuple(found.sizes_kib.values()) == sizes
    assert found.dram_words_per_cycle == bandwidth
    assert Systolic(8, 8, buffers=text).memory == found


@pytest.mark.parametrize("text", ["", "64/64", "big", "64@fast", "1/2/3/4@5"])
def test_other_texts_say_how_it_is_written(text):
    with pytest.raises(ValueError, match="write KIB or INPUT/WEIGHT/OUTPUT in KiB"):
        Buffers.parse(text)


def test_buffers_smaller_than_a_tile_say_the_minimum():
    with pytest.raises(ValueError, match="64x64 array needs at least 32 KiB"):
        Systolic(64, 64, buffers=16)
