"""Programs against their specifications, and every wrong version with its witness."""

import importlib.util

import loop_programs as programs
import pytest
from verified_pairs import PROVED, REFUTED

from elision.verify import ProgramError, Verdict, equivalent, read, run

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("islpy") is None, reason="islpy is not installed"
)


@pytest.mark.parametrize("case", PROVED)
def test_a_right_program_is_proved(case: str) -> None:
    program, specification, sizes, order = PROVED[case]
    verdict = equivalent(program, specification, sizes=sizes)
    assert verdict.status == "proved", verdict
    assert verdict.order == order, verdict
    assert verdict.witness is None


@pytest.mark.parametrize("case", REFUTED)
def test_a_wrong_program_is_refuted_on_an_input_that_tells(case: str) -> None:
    program, specification, sizes, smallest = REFUTED[case]
    verdict = equivalent(program, specification, sizes=sizes)
    assert verdict.status == "refuted", verdict
    assert {k: verdict.witness.sizes[k] for k in smallest} == smallest
    assert verdict.witness.found != verdict.witness.expected
    if verdict.witness.seed is None:
        assert witness_again(program, specification, verdict) == (
            verdict.witness.found,
            verdict.witness.expected,
        )


def witness_again(program: str, specification: str, verdict: Verdict) -> tuple:
    """Values of the output that differs, the interpreter being run on the witness."""
    inputs = verdict.witness.inputs

    def given(array: str, index: tuple[int, ...]) -> int:
        return inputs.get(f"{array}[{', '.join(map(str, index))}]", 0)

    return tuple(
        by_name(run(read(text), verdict.witness.sizes, given)).get(
            verdict.witness.output
        )
        for text in (program, specification)
    )


def by_name(memory: dict) -> dict[str, int]:
    return {f"{a}[{', '.join(map(str, i))}]": value for (a, i), value in memory.items()}


def test_the_pair_that_swaps_is_named() -> None:
    backwards = programs.MATMUL.replace("range(K)", "range(K - 1, -1, -1)")
    verdict = equivalent(backwards, programs.MATMUL)
    assert "A[0, 1]·B[1, 0] is added before A[0, 0]·B[0, 0]" in verdict.reason


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("one buffer", "C lacks a product of A; instead stands A[1, 0]"),
        ("no guard on i", "C has besides a product of A and B"),
        ("steps of 4, tiles of 5", "C has another coefficient of a product of A and B"),
        (
            "B transposed",
            "C lacks a product of A and B; instead stands A[0, 0]·B[1, 0]",
        ),
    ],
)
def test_what_differs_is_said(case: str, reason: str) -> None:
    program, specification, sizes, _ = REFUTED[case]
    assert equivalent(program, specification, sizes=sizes).reason == reason


def test_sizes_of_one_program_are_those_of_the_other() -> None:
    only_square = programs.MATMUL.replace("range(N)", "range(M)")
    assert equivalent(only_square, programs.MATMUL).status == "refuted"
    assert equivalent("assume M == N\n" + only_square, programs.MATMUL)


@pytest.mark.parametrize(
    ("program", "outputs", "message"),
    [
        ("for i in range(M): z[i] = 1", ("x",), "output 'x': .* it writes z"),
        ("for i in range(M): z[i, 0] = 1", None, "z has 2 subscripts in the program"),
        ("assume 2 < M < 3\nfor i in range(M): z[i] = 1", None, "no sizes satisfy"),
        ("for i in range(M // -2): z[i] = 1", None, "the divisor is -2"),
        (
            "for i in range(exp(M)): z[i] = 1",
            None,
            "function 'exp' in a bound of loop i",
        ),
    ],
)
def test_programs_that_cannot_be_compared(
    program: str, outputs: tuple[str, ...] | None, message: str
) -> None:
    with pytest.raises(ProgramError, match=message):
        equivalent(program, "for i in range(M): z[i] = 1", outputs=outputs)
