"""Programs of loop nests, tiled, reordered and mapped to arrays."""

import itertools
from types import SimpleNamespace

import pytest

from elision.verify import ProgramError, equivalent, program_of, run

pytest.importorskip("islpy")

MATMUL = SimpleNamespace(
    loops={"i": "M", "j": "N", "k": "K"},
    accesses={"A": ("i", "k"), "B": ("k", "j"), "C": ("i", "j")},
    output="C",
)

#: A convolution of stride 2 and padding 1, with a matrix for every access.
LAYER = {
    "input": SimpleNamespace(
        rows=((0, 1, 0, 0), (0, 0, 2, 1)), offset=(0, -1), shape=(2, 7)
    ),
    "weight": SimpleNamespace(
        rows=((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 0, 1)),
        offset=(0, 0, 0),
        shape=(3, 2, 3),
    ),
    "output": SimpleNamespace(
        rows=((1, 0, 0, 0), (0, 0, 1, 0)), offset=(0, 0), shape=(3, 4)
    ),
}


def layer(output: str) -> SimpleNamespace:
    loops = {"k": 3, "c": 2, "p": 4, "r": 3}
    return SimpleNamespace(loops=loops, accesses=LAYER, output=output)


@pytest.mark.parametrize("tiles", [{"k": 4}, {"i": 3, "j": 2, "k": 5}])
def test_a_tiled_nest_is_the_nest(tiles: dict[str, int]) -> None:
    assert equivalent(program_of(MATMUL, tiles=tiles), program_of(MATMUL))


@pytest.mark.parametrize("order", [*itertools.permutations("ijk")])
def test_any_order_of_the_loops_is_the_nest(order: tuple[str, ...]) -> None:
    assert equivalent(program_of(MATMUL, order=order), program_of(MATMUL))


@pytest.mark.parametrize(
    ("space", "time"),
    [
        (((1, 0, 0), (0, 1, 0)), (1, 1, 1)),
        (((0, 0, 1), (0, 1, 0)), (1, 1, 1)),
        (((1, 0, 1), (0, 1, 1)), (1, 1, 1)),
        (((1, 0, -1), (0, 1, -1)), (1, 1, 1)),  # an element works every third cycle
        (((1, 0, 0),), (0, 5, 1)),  # no inverse: the iterations are looked for
    ],
)
def test_a_nest_on_an_array_is_the_nest(
    space: tuple[tuple[int, ...], ...], time: tuple[int, ...]
) -> None:
    verdict = equivalent(program_of(MATMUL, space=space, time=time), program_of(MATMUL))
    assert verdict, verdict


def test_a_skew_that_is_forgotten_in_an_index_is_refuted() -> None:
    skewed = str(program_of(MATMUL, space=((0, 0, 1), (0, 1, 0)), time=(1, 1, 1)))
    assert "A[((t - x0) - x1), x0]" in skewed
    wrong = skewed.replace("A[((t - x0) - x1), x0]", "A[(t - x1), x0]")
    verdict = equivalent(wrong, program_of(MATMUL))
    assert verdict.witness.sizes == {"K": 2, "M": 1, "N": 1}


@pytest.mark.parametrize("output", LAYER)
def test_padding_is_skipped_and_all_of_the_output_is_set(output: str) -> None:
    nest = layer(output)
    tiled = program_of(nest, tiles={"p": 3, "c": 2})
    assert equivalent(tiled, program_of(nest))
    written = run(tiled, {}, lambda *_: 1)
    shape = LAYER[output].shape
    assert len(written) == len([*itertools.product(*map(range, shape))])


def test_symbolic_extents_take_the_place_of_numbers() -> None:
    nest = layer("output")
    tiled = program_of(nest, tiles={"k": 2}, extents={"k": "K", "c": "C"})
    assert tiled.sizes == ("C", "K")
    assert equivalent(tiled, program_of(nest, extents={"k": "K", "c": "C"}))
    with pytest.raises(ProgramError, match="may lie in padding"):
        program_of(nest, extents={"p": "P"})


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"tiles": {"x": 2}}, "tile of loop 'x'; known: i, j, k"),
        ({"tiles": {"i": 0}}, "tile of loop i: 0; allowed: at least 1"),
        ({"order": ["i", "k"]}, "order i, k; wanted every loop once: i, j, k"),
        ({"space": [(1, 0, 0)]}, "rows of space and a row of time"),
        ({"space": [(1, 0)], "time": (1, 1, 1)}, "2 coefficients for 3 loops: i, j, k"),
    ],
)
def test_wrong_schedules_are_refused(how: dict, message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        program_of(MATMUL, **how)


def test_an_index_of_an_unknown_loop_is_refused() -> None:
    wrong = SimpleNamespace(
        loops=MATMUL.loops, accesses={**MATMUL.accesses, "A": ("i", "x")}, output="C"
    )
    with pytest.raises(
        ProgramError, match="access of A: unknown loop 'x'; known: i, j"
    ):
        program_of(wrong)
