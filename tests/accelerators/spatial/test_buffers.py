"""Buffers and I/O networks against a walk of the nest, and T2SP's published design."""

import itertools
import math

import numpy as np
import pytest

from elision.accelerators.spatial import LoopNest, SpaceTimeMap, legal
from elision.accelerators.spatial.buffers import (
    Buffer,
    IoNetwork,
    Stage,
    fills,
    time_order,
)
from elision.accelerators.spatial.derived import letters, makespan, storage
from elision.accelerators.spatial.simulate import simulate, walk


def walked(nest, tensor, order, depth):
    """Fills of a buffer inside the first loops of an order: changes of what it holds."""
    outside = order[:depth]
    inside = [loop for loop in nest.loops if loop not in outside]
    access, held, count = nest.access(tensor), None, 0
    for turn in np.ndindex(*(nest.loops[loop] for loop in outside)):
        at = dict(zip(outside, turn, strict=True))
        tile = frozenset(
            access.at(
                tuple(
                    {**at, **dict(zip(inside, rest, strict=True))}[n]
                    for n in nest.loops
                )
            )
            for rest in np.ndindex(*(nest.loops[loop] for loop in inside))
        )
        count += tile != held
        held = tile
    return count


def test_fills_are_those_of_a_walk() -> None:
    cases = 0
    for extents in ((2, 3, 2), (1, 3, 2), (2, 1, 3), (3, 2, 1)):
        nest = LoopNest.matmul(*extents)
        for order in itertools.permutations(nest.loops):
            for depth, tensor in itertools.product(range(4), nest.tensors):
                loop = order[depth - 1] if depth else None
                own = Buffer(tensor, loop).filled(nest, order)
                assert own == walked(nest, tensor, order, depth)
                cases += 1
    assert cases == 4 * 6 * 12


def test_traffic_of_a_tiled_matrix_product() -> None:
    """512 cubed in tiles of 64: what is innermost decides which tensor moves once."""
    loops = dict.fromkeys(("I", "J", "K"), 8) | dict.fromkeys(("i", "j", "k"), 64)
    accesses = {
        "A": ("64*I + i", "64*K + k"),
        "B": ("64*K + k", "64*J + j"),
        "C": ("64*I + i", "64*J + j"),
    }
    nest = LoopNest(loops, accesses, "C")

    def words(order):
        outer = (*order, "i", "j", "k")
        return [Buffer(t, order[-1], copies=1).traffic(nest, outer) for t in "ABC"]

    once, eight = 512 * 512, 8 * 512 * 512
    assert words("IJK") == [(eight, 0), (eight, 0), (0, once)]
    assert words("JKI") == [(eight, 0), (once, 0), (eight - once, eight)]
    assert words("IKJ") == [(once, 0), (eight, 0), (eight - once, eight)]


def gemm(I, J, K, KK, II, JJ, III, JJJ, KKK):
    """T2SP's matrix product: i, j, k, kk, ii, jj in time, iii, jjj, kkk in space."""
    loops = dict(I=I, J=J, K=K, kk=KK, ii=II, jj=JJ, iii=III, jjj=JJJ, kkk=KKK)
    i, j, k = (
        f"{II * III}*I + {III}*ii + iii",
        f"{JJ * JJJ}*J + {JJJ}*jj + jjj",
        f"{KK * KKK}*K + {KKK}*kk + kkk",
    )
    nest = LoopNest(loops, {"A": (i, k), "B": (k, j), "C": (i, j)}, "C")
    time, weight = dict(iii=1, jjj=1, kkk=0), 1
    for loop in ("jj", "ii", "kk", "K", "J", "I"):
        time[loop] = weight
        weight *= loops[loop]
    return nest, SpaceTimeMap(("iii", "jjj", "kkk"), time)


def test_t2sp_gemm_in_small() -> None:
    nest, map = gemm(2, 1, 2, 2, 2, 3, 2, 3, 2)
    rng = np.random.default_rng(0)
    operands = {t: rng.integers(-9, 10, nest.tensor_shape(t)) for t in "AB"}
    run = simulate(nest, map, operands)
    assert (run.values == operands["A"] @ operands["B"]).all()
    assert run.cycles == makespan(nest, map) == 2 * 1 * 2 * 2 * 2 * 3 + 1 + 2 == 51
    assert storage(nest, map, "C") == 6
    assert legal(nest, map, latency=6)
    assert legal(nest, map, latency=7).rule == "L2"
    assert letters(nest, map) == "SSM"
    slow = walk(nest, map, operands)
    assert (slow.values == run.values).all()
    assert (slow.cycles, slow.reads, slow.writes) == (run.cycles, run.reads, run.writes)


#: Published by T2SP (github.com/IntelLabs/t2sp, its README): lanes, clock in MHz, GFLOP/s.
T2SP = {
    "Arria 10": ((10, 8, 16), 244, 620),
    "Stratix 10": ((14, 16, 16), 251, 1790),
}


@pytest.mark.parametrize(("lanes", "clock_mhz", "gflops"), T2SP.values(), ids=T2SP)
def test_t2sp_published_rates_are_those_of_the_map(lanes, clock_mhz, gflops) -> None:
    nest, map = gemm(32, 32, 32, 32, 32, 32, *lanes)
    cycles = makespan(nest, map)
    assert cycles == 32**6 + lanes[0] + lanes[1] - 2
    seconds = cycles / (clock_mhz * 1e6)
    ours = 2 * nest.iterations / seconds / 1e9
    assert ours == pytest.approx(gflops, rel=0.01)
    if lanes == (10, 8, 16):
        assert seconds == pytest.approx(4.40, abs=0.005)


def test_t2sp_buffers_need_nine_words_a_cycle() -> None:
    nest, map = gemm(32, 32, 32, 32, 32, 32, 10, 8, 16)
    order = time_order(nest, map)
    assert order == ("I", "J", "K", "kk", "ii", "jj")
    a, b = (Buffer(tensor, "K") for tensor in "AB")
    assert a.words(nest, order) == 2 * 163_840
    assert b.words(nest, order) == 2 * 131_072
    for buffer, vectors in ((a, 10_240), (b, 8_192)):
        period = buffer.period(nest, order, width=nest.loops["kkk"])
        assert (period.reads, period.writes) == (32_768, vectors)
        assert period.hidden
    words = (163_840 + 131_072) / a.period(nest, order).reads
    assert words == 9
    assert words * 4 * 244e6 == pytest.approx(8.8e9, rel=0.01)


def test_autosa_published_rate_bounds_its_clock() -> None:
    """AutoSA on a U250: 934 GFLOP/s by 13 x 16 elements of 8 lanes (its large_mm)."""
    multipliers = (260 // 20) * (256 // 16) * 8
    assert multipliers == 1_664
    assert 934e9 / (2 * multipliers) == pytest.approx(280.6e6, rel=1e-3)


def listing():
    """The nest and map of a matrix product with jj and ii unrolled."""
    loops = dict(i=2, j=3, k=2, kk=4, jj=4, ii=5)
    accesses = {
        "A": ("4*k + kk", "5*i + ii"),
        "B": ("4*k + kk", "4*j + jj"),
        "C": ("5*i + ii", "4*j + jj"),
    }
    nest = LoopNest(loops, accesses, "C")
    time = dict(i=24, j=8, k=4, kk=1, jj=1, ii=1)
    return nest, SpaceTimeMap(("jj", "ii"), time)


def test_a_loader_sends_once_what_it_removed() -> None:
    nest, map = listing()
    chain = IoNetwork(
        "A",
        (
            Stage("A_loader", removed=("jj",), vector="kk"),
            Stage("A_feeder", moves="scatter", along="ii", buffer=Buffer("A", "k")),
        ),
    )
    chain.check(nest, map)
    assert chain.words(nest, 0) == 2 * 4 * 2 * 5 * 3
    assert chain.words(nest, 1) == 4 * chain.words(nest, 0)
    assert chain.transfers(nest, 0) == chain.words(nest, 0) // 4
    assert (chain.ports(nest, map, 0), chain.ports(nest, map, 1)) == (5, 1)
    assert chain.extra_cycles(nest) == 5
    unloader = IoNetwork("C", (Stage("C_drainer", moves="gather", along="jj"),))
    unloader.check(nest, map)
    assert unloader.extra_cycles(nest) == 4
    assert unloader.ports(nest, map, 0) == 5
    cycles = makespan(nest, map)
    assert cycles == math.prod((2, 3, 2, 4)) + 3 + 4


REFUSED = {
    "indexes": (
        IoNetwork("A", (Stage("A_loader", removed=("ii",)),)),
        r"A_loader.remove\(ii\): ii indexes A, it is no reuse loop; those of A: j, jj",
    ),
    "unknown": (IoNetwork("A", (Stage("l", removed=("zz",)),)), "unknown loop 'zz'"),
    "no side": (
        IoNetwork("A", (Stage("f", moves="scatter", along="kk"),)),
        r"f.scatter\(kk\): kk is no side of the array; sides: jj, ii",
    ),
    "no vector": (IoNetwork("A", (Stage("l", vector="jj"),)), "does not index A"),
    "another buffer": (IoNetwork("A", (Stage("l", buffer=Buffer("B")),)), "holds B"),
    "sent again": (
        IoNetwork("A", (Stage("l"), Stage("f", removed=("jj",)))),
        "remove it from l, too",
    ),
}


@pytest.mark.parametrize(("chain", "message"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_chain_names_its_stage_and_reason(chain, message) -> None:
    with pytest.raises(ValueError, match=message):
        chain.check(*listing())


def test_wrong_parts_of_a_chain() -> None:
    with pytest.raises(ValueError, match="known: direct, scatter, gather"):
        Stage("l", moves="throw")
    with pytest.raises(ValueError, match="along a loop"):
        Stage("l", moves="gather")
    with pytest.raises(ValueError, match="different names, got none"):
        IoNetwork("A", ())
    with pytest.raises(ValueError, match=r"copies=3.*\[1, 2\]"):
        Buffer("A", copies=3)
    with pytest.raises(ValueError, match="unknown loop in time 'jj'"):
        Buffer("A", "jj").words(listing()[0], ("i", "j", "k", "kk"))


def test_fills_leave_out_loops_of_one_turn() -> None:
    assert fills([]) == 1
    assert fills([(True, 3), (False, 5), (True, 1)]) == 3
    assert fills([(False, 5), (True, 3)]) == 15
