"""Code made from schedules against the nest walked point by point."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from elision.accelerators.spatial.schedule import LISTINGS, Schedule, parse, read
from elision.accelerators.spatial.schedule.code import (
    LANGUAGES,
    cpp,
    mapped_program,
    python,
    sizes_of,
    source,
    specification,
)
from elision.engines.generated import compiled
from elision.native.shared_object import unavailable
from elision.verify import equivalent, run
from elision.verify import read as read_program

HEADS = {
    "matmul": (
        "size M = 5, N = 6, K = 7\nloop i < M, j < N, k < K\n"
        "C[i, j] += A[i, k] * B[k, j]\n",
        "ijk",
    ),
    "vector": ("size M = 5, K = 7\nloop i < M, k < K\ny[i] += a[i, k] * x[k]\n", "ik"),
    "conv": (
        "size P = 5, R = 3, C = 4, H = 9, T = 2, PAD = 1\nloop p < P, c < C, r < R\n"
        "tensor X[C, H]\nY[p] += X[c, T*p + r - PAD] * F[c, r]\n",
        "pcr",
    ),
    "input gradient": (
        "size P = 5, R = 3, C = 4, H = 9, T = 2, PAD = 1\nloop p < P, c < C, r < R\n"
        "tensor X[C, H]\nX[c, T*p + r - PAD] += G[p] * F[c, r]\n",
        "pcr",
    ),
    "weight gradient": (
        "size P = 5, R = 3, C = 4, H = 9, T = 2, PAD = 1\nloop p < P, c < C, r < R\n"
        "tensor X[C, H]\nF[c, r] += G[p] * X[c, T*p + r - PAD]\n",
        "pcr",
    ),
}


def walked(schedule: Schedule, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """The recurrence, iteration by iteration."""
    nest = schedule.recurrence.nest()
    output = np.zeros(nest.tensor_shape(nest.output), np.int64)
    for z in np.ndindex(*nest.extents):
        places = {t: nest.accesses[t].at(z) for t in nest.accesses}
        if all(nest.accesses[t].holds(place) for t, place in places.items()):
            product = 1
            for tensor in nest.inputs:
                product *= int(inputs[tensor][places[tensor]])
            output[places[nest.output]] += product
    return output


def integers(schedule: Schedule) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    recurrence = schedule.recurrence
    return {t: random.integers(-4, 5, recurrence.shape(t)) for t in recurrence.inputs}


def plain(text: str) -> Callable[..., None]:
    names: dict[str, Callable[..., None]] = {}
    exec(text, names)  # type: ignore[arg-type]
    return names["product"]


def result_of(schedule: Schedule, product: Callable[..., None]) -> np.ndarray:
    """What code makes of the integers, in an array that was not zero before."""
    recurrence = schedule.recurrence
    inputs = integers(schedule)
    output = np.full(recurrence.shape(recurrence.output), 99)
    sizes = [recurrence.sizes[size] for size in sizes_of(schedule)]
    product(*(inputs[t] for t in recurrence.inputs), output, *sizes)
    return output


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    """Schedules with tiles, orders, unrolled loops and buffers; ragged as often as not."""
    head, loops = HEADS[draw(st.sampled_from(sorted(HEADS)))]
    made = parse(head)
    for loop in draw(st.permutations(loops))[: draw(st.integers(0, len(loops)))]:
        size = draw(st.integers(1, 4))
        inside = draw(st.sampled_from([n for n in range(1, size + 1) if size % n == 0]))
        made = made.tile(loop, loop * 2, size)
        if draw(st.booleans()):
            made = made.tile(loop * 2, loop * 3, inside)
    names = [loop.name for loop in made.structure.loops]
    made = made.reorder(*draw(st.permutations(names)))
    constant = [x.name for x in made.structure.loops if x.extent is not None]
    unrolled = draw(st.lists(st.sampled_from(names), unique=True, max_size=2))
    if unrolled:
        made = made.unroll(*unrolled)
    for tensor in made.recurrence.inputs:
        time = made.structure.time
        fits = [
            x
            for at, x in enumerate(time)
            if all(
                y in constant or not made.structure.indexes(tensor, y)
                for y in made.structure.inside(x)
            )
        ]
        if fits and draw(st.booleans()):
            made = made.isolate_producer_chain(tensor, f"{tensor}_feeder")
            made = made.buffer(f"{tensor}_feeder", draw(st.sampled_from(fits)))
    return made


@given(schedules())
@settings(max_examples=60, deadline=None)
def test_python_code_of_any_schedule_computes_the_recurrence(made: Schedule) -> None:
    wanted = walked(made, integers(made))
    assert np.array_equal(result_of(made, plain(python(made))), wanted), python(made)


@pytest.mark.parametrize("head", sorted(HEADS))
def test_the_specification_and_the_mapped_program_are_the_recurrence(head: str) -> None:
    text, loops = HEADS[head]
    made = parse(text).tile(loops[0], "first", 3).tile(loops[1], "second", 2)
    recurrence, inputs = made.recurrence, integers(made)
    wanted = walked(made, inputs)
    fixed = {size: recurrence.sizes[size] for size in recurrence.coefficients}
    mapped = mapped_program(made, buffers=False)
    for program in (specification(made), mapped):
        memory = run(
            read_program(program),
            recurrence.sizes,
            lambda array, place: int(inputs[array][place]),
        )
        found = np.full(wanted.shape, 99)
        for (array, place), value in memory.items():
            if array == recurrence.output:
                found[place] = value
        assert np.array_equal(found, wanted), program
    verdict = equivalent(mapped, specification(made), sizes=fixed)
    assert verdict.status in ("proved", "unknown"), verdict


@pytest.mark.parametrize("buffers", [True, False])
@pytest.mark.parametrize("name", LISTINGS)
def test_every_listing_is_proved_to_be_its_recurrence(name: str, buffers: bool) -> None:
    pytest.importorskip("islpy")
    made = read(name)
    fixed = {size: made.recurrence.sizes[size] for size in made.recurrence.coefficients}
    mapped = mapped_program(made, buffers)
    verdict = equivalent(mapped, specification(made), sizes=fixed)
    assert (verdict.status, verdict.order) == ("proved", "same"), verdict


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("K - 128 * k", "K - 128 * k - 1"),
        ("min(6, M - 6 * i)", "6"),
        ("B[128 * k + kk, 16 * j + jj]", "B[128 * k + kk, 16 * i + jj]"),
    ],
)
def test_a_wrong_program_is_refuted_by_an_input(right: str, wrong: str) -> None:
    pytest.importorskip("islpy")
    made = read("gemm.t2s")
    program = mapped_program(made, buffers=False)
    assert right in program
    verdict = equivalent(program.replace(right, wrong), specification(made))
    assert verdict.status == "refuted"
    assert verdict.witness.found != verdict.witness.expected


def _buffered(made: Schedule, loop: str) -> Schedule:
    """The schedule with both inputs in buffers at a loop."""
    for tensor in made.recurrence.inputs:
        made = made.isolate_producer_chain(tensor, f"{tensor}_feeder")
        made = made.buffer(f"{tensor}_feeder", loop)
    return made


SMALL = {
    "gemm.t2s": [{"M": 13, "N": 19, "K": 131}, {"M": 6, "N": 16, "K": 128}],
    "gemm-two-level.t2s": [{"M": 98, "N": 33, "K": 17}],
    "gemm-a10.t2s": [{"M": 11, "N": 9, "K": 18}],
    "conv.t2s": [
        {"C": 3, "K": 9, "H": 7, "W": 9, "P": 7, "Q": 9},
        {"N": 2, "C": 17, "K": 5, "H": 9, "W": 11, "P": 5, "Q": 6, "T": 2},
    ],
}


@pytest.mark.skipif(unavailable() is not None, reason="no compiler")
@pytest.mark.parametrize("name", LISTINGS)
def test_cpp_of_every_listing_computes_the_recurrence_on_ragged_shapes(
    name: str,
) -> None:
    product = compiled(cpp(read(name)), "cpp", "product")
    for sizes in SMALL[name]:
        made = read(name, sizes)
        recurrence, inputs = made.recurrence, integers(made)
        output = torch.full(recurrence.shape(recurrence.output), 99.0)
        tensors = [
            torch.tensor(inputs[t], dtype=torch.float32) for t in recurrence.inputs
        ]
        for threads in (1, 2):
            output.fill_(99)
            given_sizes = [recurrence.sizes[s] for s in sizes_of(made)]
            product(tensors, output, given_sizes, threads)
            assert np.array_equal(output.numpy(), walked(made, inputs)), sizes


@pytest.mark.skipif(unavailable() is not None, reason="no compiler")
def test_cpp_of_any_schedules_computes_the_recurrences() -> None:
    tiled = parse(HEADS["matmul"][0]).tile("k", "j", "i", "kk", "jj", "ii", 3, 2, 4)
    conv = parse(HEADS["conv"][0]).tile("r", "c", "p", "rr", "cc", "pp", 2, 3, 2)
    drawn = [
        _buffered(made, loop)
        for made, loop in (
            (tiled.unroll("jj", "ii"), "k"),
            (tiled.unroll("jj"), "k"),
            (tiled.reorder("kk", "jj", "ii").unroll("ii"), "k"),
            (tiled.reorder("kk", "ii", "jj").unroll("kk", "jj"), "k"),
            (tiled.tile("kk", "kkk", 1).reorder("kkk", "kk", "ii").unroll("jj"), "k"),
            (conv.unroll("pp", "cc"), "r"),
            (conv.reorder("rr", "cc", "pp", "r", "c", "p").unroll("pp"), "r"),
        )
    ]

    @given(schedules())
    @settings(max_examples=16, deadline=None, phases=[Phase.generate], derandomize=True)
    def collect(made: Schedule) -> None:
        drawn.append(made)

    collect()
    # One compilation of all; what a code includes is included before its namespace.
    texts = [cpp(made, f"product{n}") for n, made in enumerate(drawn)]
    spaces = [f"namespace space{n} {{\n{text}}}\n" for n, text in enumerate(texts)]
    whole = "#include <algorithm>\n" + "".join(spaces)
    for each in ("elements(", "sums", "_feeder[", "omp parallel", "std::min"):
        assert any(each in text for text in texts), f"none drawn has {each}"
    for n, made in enumerate(drawn):
        product = compiled(whole, "cpp", f"product{n}")
        recurrence, inputs = made.recurrence, integers(made)
        output = torch.full(recurrence.shape(recurrence.output), 99.0)
        tensors = [
            torch.tensor(inputs[t], dtype=torch.float32) for t in recurrence.inputs
        ]
        product(tensors, output, [recurrence.sizes[s] for s in sizes_of(made)], 2)
        assert np.array_equal(output.numpy(), walked(made, inputs)), texts[n]


def test_names_that_code_has_are_refused() -> None:
    text = HEADS["vector"][0].replace("y[", "sums[")
    with pytest.raises(ValueError, match="'sums' cannot be a name in code"):
        source(parse(text), "python")


@pytest.mark.skipif(unavailable() is not None, reason="no compiler")
def test_cpp_of_an_input_gradient() -> None:
    text, _ = HEADS["input gradient"]
    made = parse(text).tile("c", "cc", 3).unroll("cc")
    made = made.isolate_producer_chain("F", "F_feeder").tile("p", "pp", 2)
    product = compiled(cpp(made, dtype="double"), "cpp", "product")
    inputs = integers(made)
    output = torch.full((4, 9), 99.0, dtype=torch.float64)
    tensors = [torch.tensor(inputs[t], dtype=torch.float64) for t in "GF"]
    product(tensors, output, [made.recurrence.sizes[s] for s in sizes_of(made)], 1)
    assert np.array_equal(output.numpy(), walked(made, inputs))


def test_a_buffer_below_an_open_loop_has_no_code() -> None:
    made = parse(HEADS["matmul"][0]).tile("j", "jj", 2).unroll("jj")
    made = made.isolate_producer_chain("A", "A_feeder").buffer("A_feeder", "i")
    with pytest.raises(
        ValueError, match=r"buffer\(A_feeder,i\): .* all iterations of k"
    ):
        cpp(made)
    with pytest.raises(ValueError, match="unknown language 'ada'; known: cpp, python"):
        source(made, "ada")
    assert list(LANGUAGES) == ["cpp", "python"]
