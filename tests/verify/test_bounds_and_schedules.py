"""Bounds, initialisation and schedules of one program."""

import loop_programs as programs
import pytest

from elision.verify import (
    ProgramError,
    initialised,
    keeps_dependences,
    within_bounds,
)

pytest.importorskip("islpy")

IMAGE = """
float x[H];
float w[R];
for (int p = 0; p < (H + 2 * 1 - R) / 2 + 1; ++p) {
  y[p] = 0;
  for (int r = 0; r < R; ++r)
    if (2 * p + r - 1 >= 0 && 2 * p + r - 1 < H)
      y[p] += x[2 * p + r - 1] * w[r];
}
"""


def test_guards_keep_reads_within_the_image() -> None:
    assert within_bounds(IMAGE)


@pytest.mark.parametrize(
    ("right", "wrong", "element"),
    [
        ("2 * p + r - 1 >= 0 && ", "", "x[-1]"),
        ("r - 1 < H", "r - 1 <= H", "x[1]"),
        ("r < R", "r <= R", "w[1]"),
    ],
)
def test_an_access_out_of_bounds_is_named(right: str, wrong: str, element: str) -> None:
    verdict = within_bounds(IMAGE.replace(right, wrong))
    assert verdict.status == "refuted"
    assert verdict.witness.element == element


def test_bounds_want_a_declaration() -> None:
    with pytest.raises(ProgramError, match="no array's extents are declared"):
        within_bounds(programs.MATMUL)


def test_what_is_read_before_it_is_written_is_named() -> None:
    assert initialised(programs.MATMUL)
    assert initialised(programs.RECURRENCES)
    late = programs.RECURRENCES.replace("if j == 0", "if j == 1")
    verdict = initialised(late)
    assert verdict.status == "refuted"
    assert verdict.witness.element == "X[0, 0, 0]"
    assert initialised(late, inputs=["X"])


@pytest.mark.parametrize("time", ["i + j + k", "2 * i + 3 * j + k"])
def test_a_time_that_moves_along_every_hop_is_legal(time: str) -> None:
    assert keeps_dependences(programs.RECURRENCES, (time,))


@pytest.mark.parametrize(
    ("time", "array"), [("i + j", "Z"), ("i - j + k", "X"), ("j + k", "Y")]
)
def test_a_time_against_a_hop_is_refuted_with_the_pair(time: str, array: str) -> None:
    verdict = keeps_dependences(programs.RECURRENCES, (time,))
    assert verdict.status == "refuted"
    pair = verdict.witness
    assert pair.element.startswith(array)

    def at(values: dict[str, int]) -> int:
        return eval(time, dict(values))

    assert at(pair.first_at) >= at(pair.second_at)


def test_additions_change_places_but_do_not_run_at_once() -> None:
    body = "for i in range(M):\n  for k in range(K):\n    y[i] += a[i, k]"
    assert keeps_dependences(body, ("i", "-k"))
    assert keeps_dependences(body, ("i",)).status == "refuted"


def test_statements_have_times_of_their_own() -> None:
    body = "for i in range(M):\n  t[i] = x[i]\n  y[i] = t[i]"
    assert keeps_dependences(body, {"S0": ("0", "i"), "S1": ("1", "i")})
    assert not keeps_dependences(body, {"S0": ("1", "i"), "S1": ("0", "i")})
    with pytest.raises(
        ProgramError, match=r"no time for S1, y\[i\] = t\[i\]; given: S0"
    ):
        keeps_dependences(body, {"S0": ("i",)})
    with pytest.raises(ProgramError, match="unknown 'j'; known: M, i"):
        keeps_dependences(body, ("j",))
