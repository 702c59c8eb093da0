"""Listings that are read, and those that are refused, with the place and the reason."""

import re

import pytest

from elision.accelerators.spatial import LoopNest
from elision.accelerators.spatial.schedule import (
    LISTINGS,
    ListingError,
    Schedule,
    parse,
    read,
)

HEAD = """\
size M = 24, N = 16, K = 32
loop i < M, j < N, k < K
C[i, j] += A[i, k] * B[k, j]
"""
TILED = HEAD + "tile(k, j, i, kk, jj, ii, 8, 4, 6)\nunroll(jj, ii)\n"
CHAINS = TILED + (
    "isolate_producer_chain(A, A_loader, A_feeder)\n"
    "isolate_producer_chain(B, B_loader, B_feeder)\n"
    "isolate_consumer_chain(C, C_drainer, C_unloader)\n"
)

#: Listing, then the line and column of the error, then words of its message.
REFUSED = [
    (CHAINS + "forward(A_feeder, {0,1})", (9, 1), "ii indexes A, it is no reuse loop"),
    (
        CHAINS + "A_feeder.forward({0,1})",
        (9, 10),
        r"forward\(A_feeder,\{0,1\}\): ii in",
    ),
    (CHAINS + "forward(A_feeder, {1})", (9, 1), r"\{1\} must have a step -1, 0 or 1"),
    (CHAINS + "forward(A_feeder, {0,0})", (9, 1), "leads nowhere"),
    (CHAINS + "forward(A, {1,0}).forward(A, {1,0})", (9, 19), "is forwarded by"),
    (
        CHAINS + "A_loader.remove(ii)",
        (9, 10),
        "ii indexes A, it is no reuse loop; allo",
    ),
    (CHAINS + "A_loader.remove(jjj)", (9, 10), "unknown loop 'jjj' .* known: i, j, k"),
    (CHAINS + "C_drainer.remove(kk)", (9, 11), "handles results"),
    (CHAINS + "A_feder.buffer(k)", (9, 9), "unknown kernel 'A_feder' .did you mean"),
    (CHAINS + "A_feeder.buffer(jj)", (9, 10), "jj is unrolled.*allowed: i, j, k, kk"),
    (CHAINS + "A_feeder.buffer(k, Triple)", (9, 10), "known: Single, Double"),
    (
        CHAINS + "A_feeder.buffer(B_loader, k)",
        (9, 10),
        "data from A_loader, not from B_l",
    ),
    (CHAINS + "A_feeder.scatter(jj)", (9, 10), "jj does not index A.*allowed: ii"),
    (CHAINS + "A_feeder.scatter(kk)", (9, 10), "kk is not unrolled.*allowed: jj, ii"),
    (CHAINS + "A_feeder.scatter(ii, Left)", (9, 10), "known: Up, Down"),
    (CHAINS + "C_drainer.scatter(ii)", (9, 11), "C is written: gather it"),
    (CHAINS + "A_feeder.gather(ii)", (9, 10), "A is read: scatter it"),
    (CHAINS + "B_loader.vload(kk)", (9, 10), "not contiguous along kk.*allowed: jj"),
    (CHAINS + "A_feeder.vload(kk)", (9, 10), "does not meet the memory; A_loader does"),
    (CHAINS + "A_loader.vstore(kk)", (9, 10), "A is on the other side of the array"),
    (CHAINS + "A_loader.vload(jj)", (9, 10), "jj does not index A"),
    (CHAINS + "unroll(kk)", (9, 1), "unroll before the kernels"),
    (TILED + "isolate_producer_chain(C, C_loader)", (6, 1), "of what is read: A, B"),
    (TILED + "isolate_producer_chain(A, B)", (6, 1), "B is a name already"),
    (TILED + "buffer(A_feeder, k)", (6, 1), "neither a tensor nor a kernel; known: A"),
    (TILED + "A_feeder.buffer(k)", (6, 10), "none is isolated"),
    (TILED + "tile(kk, kkk, 3)", (6, 1), "a tile of 3 does not divide kk"),
    (TILED + "tile(k, jj, 2)", (6, 1), "jj is a name already"),
    (
        TILED + "fuse(k, kk)",
        (6, 1),
        "unknown primitive 'fuse'.*known: merge_ures, tile",
    ),
    (HEAD + "tile(k, kk)", (4, 1), "give the loops, as many names"),
    (HEAD + "tile(k, kk, M)", (4, 13), "M is a size, which stays open; write const"),
    (HEAD + "unroll(j", (4, 9), r"the line ends where '\)' must be: unroll"),
    (HEAD + "unroll j", (4, 1), "'unroll' begins no statement; allowed: size, const"),
    (HEAD + "merge_ures(A, D)", (4, 1), "unknown tensor 'D'"),
    (HEAD + "size L = 3", (4, 6), "stand before the recurrence"),
    (HEAD + "C[i, j] += A[i, k] * B[k, j]", (4, 1), "a recurrence already"),
    ("size M = 3, M = 4", (1, 13), "M is a name already"),
    ("size M = many", (1, 10), "a whole number must be"),
    ("size M = 8\nloop i < M*M", (2, 12), "'M[*]M' is not affine: it multiplies the"),
    ("size M = 8\nloop i < M - 8", (2, 6), "i has 0 iterations"),
    ("size M = 8\nloop i < L", (2, 10), "unknown name 'L'.*known: M"),
    ("size M = 8\nloop i < M/2", (2, 11), "'/' does not fit here"),
    (
        "size M = 8\nloop i < M, j < M\nc[i] += a[i*j] * b[j]",
        (3, 13),
        "not affine.*loops",
    ),
    (
        "size M = 8\nloop i < M, j < M\nc[i] += a[i+j] * b[j]",
        (3, 1),
        "say its shape bef",
    ),
    (
        "size M = 8\nloop i < M, j < M\nc[i] += a[i] * b[i]",
        (3, 1),
        "j indexes no tensor",
    ),
    ("size M = 8\nloop i < M\nc[i] += a[i]", (3, 1), "must multiply two tensors"),
    ("size M = 8\nloop i < M\nc[i] = a[i]", (3, 6), "'=' stands where '[+]='"),
    ("size M = 8\nloop i < M\n", (3, 1), "the recurrence is missing"),
    ("size M = 8 loop i < M", (1, 12), "the line must end"),
    ("size M = 8 @", (1, 12), "'@' is no sign of a listing"),
    ("tile(i, ii, 8)", (1, 1), "tile stands before the recurrence"),
    ("tyle(i, ii, 8)", (1, 1), "tyle stands before the recurrence"),
]


@pytest.mark.parametrize(("text", "place", "words"), REFUSED)
def test_a_wrong_listing_says_where_and_what(
    text: str, place: tuple[int, int], words: str
) -> None:
    with pytest.raises(ListingError) as caught:
        parse(text, "wrong.t2s")
    message = str(caught.value)
    assert message.startswith(f"wrong.t2s:{place[0]}:{place[1]}: "), message
    assert re.search(words, message), message
    assert "\n" not in message


def test_both_ways_to_name_a_subject_are_one() -> None:
    by_argument = parse(CHAINS + "buffer(A_feeder, k, Double)\nremove(A_loader, jj)")
    by_dot = parse(CHAINS + "A_feeder.buffer(A_loader, k, Double)\nA_loader.remove(jj)")
    assert by_argument.structure.kernels == by_dot.structure.kernels


def test_the_forms_of_halide_are_read() -> None:
    text = CHAINS.replace("[", "(").replace("]", ")")
    text += "A_feeder.buffer(A_loader, k, BufferStrategy::Double);\n"
    ours = parse(CHAINS + "A_feeder.buffer(A_loader, k, Double)")
    assert parse(text.replace("\n", ";\n")) == ours


def test_a_listing_and_the_calls_give_the_same_schedule() -> None:
    by_calls = (
        Schedule(parse(HEAD).recurrence)
        .tile("k", "j", "i", "kk", "jj", "ii", 8, 4, 6)
        .unroll("jj", "ii")
        .isolate_producer_chain("A", "A_loader", "A_feeder")
        .isolate_producer_chain("B", "B_loader", "B_feeder")
        .isolate_consumer_chain("C", "C_drainer", "C_unloader")
        .remove("A_loader", "jj")
        .buffer("A_feeder", "k")
        .buffer("B_feeder", "k")
        .scatter("A_feeder", "ii")
        .vectorize("A_loader", "kk")
        .forward("A_feeder", (1, 0))
        .gather("C", (1, 0))
        .vstore("C_unloader", "jj")
    )
    listed = parse(
        CHAINS
        + "A_loader.remove(jj)\nbuffer(A_feeder, k, Double)\nbuffer(B_feeder, k, Double)\n"
        + "A_feeder.scatter(ii, Up)\nA_loader.vectorize(kk)\nforward(A_feeder, {1,0})\n"
        + "gather(C, {1,0})\nvstore(C_unloader, jj)\n"
    )
    assert listed == by_calls
    assert parse(HEAD + "\n".join(map(str, by_calls.steps))) == by_calls


@pytest.mark.parametrize("name", LISTINGS)
def test_the_text_of_a_schedule_is_a_listing_of_it(name: str) -> None:
    made = read(name)
    head = "size " + ", ".join(f"{n} = {v}" for n, v in made.recurrence.sizes.items())
    loops = ", ".join(f"{n} < {b}" for n, b in made.recurrence.loops.items())
    shapes = "\n".join(
        f"tensor {tensor}[{', '.join(map(str, axes))}]"
        for tensor, axes in made.recurrence.shapes.items()
    )
    text = f"{head}\nloop {loops}\n{shapes}\n{made}"
    assert parse(text) == made


def test_statements_go_on_inside_brackets_and_behind_dots() -> None:
    text = (
        HEAD + "tile(k, j, i,   # outer\n  kk, jj, ii,\n 8, 4, 6)\n  .unroll(jj,\n ii)"
    )
    assert parse(text) == parse(TILED)


def test_sizes_can_be_given_and_unknown_ones_are_listed() -> None:
    assert read("gemm.t2s", {"M": 7}).recurrence.extent("i") == 7
    assert read("conv.t2s", {"R": 5}).recurrence.extent("r") == 5
    with pytest.raises(
        ValueError, match=r"unknown size of gemm.t2s 'Q'.*known: M, N, K"
    ):
        read("gemm.t2s", {"Q": 7})


def test_a_missing_file_is_answered_with_those_that_exist() -> None:
    with pytest.raises(
        ValueError, match=r"no listing 'gem.t2s'.*conv.t2s, gemm-a10.t2s"
    ):
        read("gem.t2s")


def test_a_nest_is_a_recurrence() -> None:
    made = Schedule(LoopNest.matmul(6, 8, 4)).tile("i", "ii", 4).unroll("ii", "j")
    assert made.design().nest.extents == (2, 4, 8, 4)
