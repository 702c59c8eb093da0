"""Map, network and cycles of designs, against published ones and against simulation."""

import math

import numpy as np
import pytest

from elision.accelerators.spatial import LoopNest
from elision.accelerators.spatial.schedule import (
    LISTINGS,
    Design,
    Schedule,
    parse,
    read,
)
from elision.accelerators.spatial.simulate import simulate

MINI = """
size M = 4, N = 9, K = 4
loop i < M, j < N, k < K
C[i, j] += A[i, k] * B[k, j]
tile(k, j, i, kk, jj, ii, {kk}, {jj}, {ii})
tile(kk, jj, ii, kkk, jjj, iii, {kkk}, {jjj}, {iii})
reorder(jj, ii, kk)
unroll(jjj, iii, kkk)
forward(A, {{1,0,0}})
forward(B, {{0,1,0}})
"""


def mini(
    i: int, j: int, k: int, kk: int, ii: int, jj: int, iii: int, jjj: int, kkk: int
) -> Design:
    """T2SP's matrix product with these extents."""
    sizes = {"M": i * ii * iii, "N": j * jj * jjj, "K": k * kk * kkk}
    tiles = {"kk": kk * kkk, "jj": jj * jjj, "ii": ii * iii}
    text = MINI.format(**tiles, kkk=kkk, jjj=jjj, iii=iii)
    return parse(text, sizes=sizes).design()


def operands(nest: LoopNest) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {t: random.integers(-9, 10, nest.tensor_shape(t)) for t in nest.inputs}


def test_the_small_t2sp_design_takes_51_cycles_and_keeps_six_sums() -> None:
    design = mini(2, 1, 2, 2, 2, 3, 2, 3, 2)
    assert design.steps == 2 * 1 * 2 * 2 * 2 * 3
    assert design.makespan == 51
    assert design.accumulators == 6
    given = operands(design.nest)
    run = simulate(design.nest, design.map, given)
    assert np.array_equal(run.values, given["A"] @ given["B"])
    assert (run.cycles, run.elements) == (51, design.elements)


def test_the_sums_of_the_small_design_may_take_as_long_as_the_other_tiles() -> None:
    text = MINI.format(kk=4, jj=9, ii=4, kkk=2, jjj=3, iii=2)
    made = parse(text, sizes={"M": 8, "N": 9, "K": 8})
    made.design(latency=6)
    with pytest.raises(ValueError, match=r"rule L2.*takes 6 cycles, the adder 7"):
        made.design(latency=7)


def test_the_design_for_arria_10_as_published() -> None:
    """T2SP's README and const-parameters.h: 244 MHz, 620 GFLOP/s."""
    design = read("gemm-a10.t2s").design()
    assert design.steps == 32**6
    assert design.elements == 16 * 8 * 10
    assert design.accumulators == 32 * 32
    assert design.seconds(244) == pytest.approx(4.40, abs=0.005)
    assert design.words_per_cycle() == 9
    assert design.gflops(244) == pytest.approx(620, rel=0.01)
    a, b = design.tiles
    assert (a.words, b.words) == (163_840, 131_072)
    assert (a.writes, b.writes, a.reads, b.reads) == (10_240, 8_192, 32_768, 32_768)
    assert a.hidden
    assert b.hidden


def test_the_design_for_stratix_10_as_published() -> None:
    """The same sources: 16 x 16 x 14 lanes at 251 MHz, 1,790 GFLOP/s."""
    sizes = {"III": 14, "II": 32 * 14, "JJJ": 16, "JJ": 32 * 16, "M": 14_336}
    design = read("gemm-a10.t2s", sizes | {"N": 16_384}).design()
    assert design.elements == 16 * 16 * 14
    assert design.gflops(251) == pytest.approx(1790, rel=0.01)


def test_the_slides_listing() -> None:
    """Cycles I·J·K·KK + (JJ − 1) + (II − 1); A leaves its loader once for all jj."""
    I, J, K, KK, JJ, II = 3, 2, 2, 5, 4, 6
    sizes = {"M": I * II, "N": J * JJ, "K": K * KK}
    text = (
        "size M = 1, N = 1, K = 1\nloop i < M, j < N, k < K\n"
        "C[i, j] += A[i, k] * B[k, j]\n"
        f"tile(k, j, i, kk, jj, ii, {KK}, {JJ}, {II})\nunroll(jj, ii)\n"
        "isolate_producer_chain(A, A_loader, A_feeder)\n"
        "isolate_consumer_chain(C, C_drainer)\n"
        "A_loader.remove(jj)\nforward(A_feeder, {1,0})\nforward(B, {0,1})\n"
        "gather(C, {1,0})\n"
    )
    design = parse(text, sizes=sizes).design()
    assert design.makespan == I * J * K * KK + (JJ - 1) + (II - 1)
    assert design.letters == "SST"
    sent = {(c.source, c.target): c.words for c in design.channels}
    assert sent["A_loader", "A_feeder"] == K * KK * I * II * J
    assert design.drain == JJ
    given = operands(design.nest)
    run = simulate(design.nest, design.map, given)
    assert np.array_equal(run.values, given["A"] @ given["B"])
    assert run.cycles == design.makespan


def test_forwarding_is_what_makes_the_skew() -> None:
    bare = Schedule(LoopNest.matmul(4, 5, 6)).unroll("j", "i")
    assert bare.design().makespan == 6
    assert bare.design().letters == "MMT"
    one = bare.forward("A", (1, 0))
    assert (one.design().makespan, one.design().letters) == (6 + 4, "SMT")
    both = one.forward("B", (0, -1))
    assert (both.design().makespan, both.design().letters) == (6 + 4 + 3, "SST")


@pytest.mark.parametrize(
    ("unrolled", "hops"),
    [
        (("j", "k"), {"A": (1, 0), "C": (0, 1)}),
        (("j", "k"), {"A": (-1, 0)}),
        (("i", "k"), {"B": (1, 0), "C": (0, 1)}),
        (("j",), {"A": (1,)}),
    ],
)
def test_other_arrays_compute_the_product(
    unrolled: tuple[str, ...], hops: dict[str, tuple[int, ...]]
) -> None:
    made = Schedule(LoopNest.matmul(3, 5, 4)).unroll(*unrolled)
    for tensor, hop in hops.items():
        made = made.forward(tensor, hop)
    design = made.design()
    given = operands(design.nest)
    run = simulate(design.nest, design.map, given)
    assert np.array_equal(run.values, given["A"] @ given["B"])
    assert run.cycles == design.makespan


def test_row_stationary_moves_inputs_along_diagonals() -> None:
    text = """
    size P = 4, R = 3, W = 6
    loop p < P, r < R
    tensor X[W]
    Y[p] += X[p + r] * F[r]
    unroll(p, r)
    forward(F, {1,0}).forward(Y, {0,1}).forward(X, {1,-1})
    """
    design = parse(text).design()
    row = dict(zip(design.nest.loops, design.map.time_row(design.nest), strict=True))
    assert row == {"p": 2, "r": 1}
    given = operands(design.nest)
    run = simulate(design.nest, design.map, given)
    assert np.array_equal(run.values, np.correlate(given["X"], given["F"]))
    assert run.reads == {"X": 6, "F": 3}


def test_ragged_tiles_count_whole_and_compute_right() -> None:
    text = MINI.format(kk=4, jj=6, ii=4, kkk=2, jjj=3, iii=2)
    design = parse(text, sizes={"M": 5, "N": 7, "K": 3}).design()
    assert design.steps == 2 * 2 * 1 * 2 * 2 * 2
    assert design.multiplies == 5 * 7 * 3
    given = operands(design.nest)
    run = simulate(design.nest, design.map, given)
    assert np.array_equal(run.values, given["A"] @ given["B"])


def test_a_single_buffer_waits_for_its_tile() -> None:
    listing = read("gemm.t2s")
    single = Schedule(
        listing.recurrence,
        tuple(
            type(s)(s.primitive, s.subject, ("k", "Single"))
            if s.primitive == "buffer"
            else s
            for s in listing.steps
        ),
    ).design()
    double = listing.design()
    tile = single.tiles[1]
    assert tile.cycles == tile.reads + tile.writes
    assert single.cycles - double.cycles == double.steps


def test_a_removed_loop_needs_a_buffer_that_replays() -> None:
    made = (
        Schedule(LoopNest.matmul(4, 6, 8))
        .tile("j", "jj", 3)
        .reorder("j", "k", "i")
        .unroll("jj")
        .isolate_producer_chain("A", "A_loader", "A_feeder")
        .remove("A_loader", "j")
    )
    with pytest.raises(
        ValueError, match=r"remove\(A_loader,j\): j runs in time, and no k"
    ):
        made.design()
    assert made.buffer("A_feeder", "k").design().tiles[0].words == 1


def test_what_a_later_kernel_removes_an_earlier_one_must_not_send() -> None:
    made = (
        Schedule(LoopNest.matmul(4, 6, 8))
        .unroll("j", "i")
        .isolate_producer_chain("A", "A_loader", "A_feeder")
        .remove("A_feeder", "j")
    )
    with pytest.raises(
        ValueError, match=r"A_loader still sends A for each j; remove it f"
    ):
        made.design()
    assert made.remove("A_loader", "j").design().channels[0].words == 4 * 8


def test_an_array_that_is_too_small_is_refused() -> None:
    made = read("gemm.t2s")
    made.design(array=(6, 16))
    with pytest.raises(
        ValueError, match=r"needs 6 rows and 16 columns, the array has 6 x 8"
    ):
        made.design(array=(6, 8))
    with pytest.raises(ValueError, match="no loop is unrolled"):
        Schedule(LoopNest.matmul(4, 4, 4)).design()


@pytest.mark.parametrize("name", LISTINGS)
def test_every_listing_hides_its_memory(name: str) -> None:
    design: Design = read(name).design()
    assert design.tiles
    assert all(tile.hidden for tile in design.tiles)
    assert design.cycles == design.fill + design.steps + design.skew + design.drain
    assert math.prod(design.nest.extents) >= design.multiplies
