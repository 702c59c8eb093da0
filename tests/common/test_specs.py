"""Specs: what a person types for a recipe, a machine, a policy or a probe."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.common.specs import Spec, build, parse, resolve


@pytest.mark.parametrize(
    ("spec", "name", "positional", "named"),
    [
        ("ant", "ant", (), {}),
        ("ant()", "ant", (), {}),
        ("swat:sparsity=0.9,refresh=4", "swat", (), {"sparsity": 0.9, "refresh": 4}),
        ("swat(0.9, refresh=4)", "swat", (0.9,), {"refresh": 4}),
        ("scnn:grid=8x4, ideal = true", "scnn", (), {"grid": (8, 4), "ideal": True}),
        ("scnn( 8x4 , none )", "scnn", ((8, 4), None), {}),
        (
            "memory:policy=expected(0.1, batch_norm=all),batches=3",
            "memory",
            (),
            {"policy": "expected(0.1, batch_norm=all)", "batches": 3},
        ),
        ("memory(bits(4), rounds=2)", "memory", ("bits(4)",), {"rounds": 2}),
        ("memory:policy=bits:average=4", "memory", (), {"policy": "bits:average=4"}),
        ("memory(bits:average=4)", "memory", ("bits:average=4",), {}),
        ("f:word='it''s, a=1)'", "f", (), {"word": "it's, a=1)"}),
        ('f("8x4", g("(", 1))', "f", ("8x4", 'g("(", 1)'), {}),
        ("f:key=timm:resnet18", "f", (), {"key": "timm:resnet18"}),
        ("fp8:dense=(:first, :last)", "fp8", (), {"dense": (":first", ":last")}),
        ("fp8(dense=(:first), b=())", "fp8", (), {"dense": (":first",), "b": ()}),
        ("f((1, 'a,b'), 2x3x4)", "f", ((1, "a,b"), "2x3x4"), {}),
    ],
)
def test_both_notations_give_a_name_and_parameters(
    spec: str, name: str, positional: tuple[Any, ...], named: dict[str, Any]
) -> None:
    assert parse(spec) == (name, positional, named)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("swat:sparsity", "'sparsity' is not a parameter; write swat:parameter=value"),
        ("swat:0.9", "'0.9' is not a parameter"),
        ("swat:a=1,", "'' is not a parameter"),
        ("swat(,)", "'' is not a parameter"),
        ("swat:spar sity=0.9", "'spar sity=0.9' is not a parameter"),
        ("swat:a==1", "'a==1' is not a parameter"),
        ("swat:a=", "'a=' is not a parameter"),
        ("swat(a=1, 2)", "'2' is not a parameter"),
        ("swat:a='b'c", "is not a parameter"),
        ("swat:a=(b=1)", "'a=(b=1)' is not a parameter"),
        ("swat:a=(b,)", "'a=(b,)' is not a parameter"),
        ("grid:rows=32,rows=16", "'rows' is given twice"),
        ("grid(rows=32, rows=16)", "'rows' is given twice"),
        ("", "a name is missing"),
        (":a=1", "a name is missing"),
        ("(1)", "a name is missing"),
        ("bits(4", "a parenthesis is not closed"),
        ("bits(f(4)", "a parenthesis is not closed"),
        ("bits(4)(5)", "closes that was not opened"),
        ("bits(4))", "closes that was not opened"),
        ("f:word='open", "a quotation is not closed"),
    ],
)
def test_a_malformed_spec_is_refused_with_the_place(spec: str, said: str) -> None:
    with pytest.raises(ValueError, match=": ") as error:
        parse(spec)
    assert said in str(error.value)
    assert repr(spec) in str(error.value)


VALUES = (
    st.integers()
    | st.floats(allow_nan=False)
    | st.booleans()
    | st.none()
    | st.tuples(st.integers(0), st.integers(0))
    | st.text()
    | st.text("abx:=(),'\" 18.", max_size=9)
    | st.lists(st.text("abx:=(),'\" 18.", max_size=9), max_size=3).map(tuple)
)
PARAMETERS = st.dictionaries(st.from_regex(r"[A-Za-z_]\w*", fullmatch=True), VALUES)


@given(st.lists(VALUES, max_size=4).map(tuple), PARAMETERS)
def test_a_spec_written_is_read_again(
    positional: tuple[Any, ...], named: dict[str, Any]
) -> None:
    spec = Spec("name", positional, named)
    read = parse(str(spec))
    assert read == spec
    assert list(map(type, read.positional)) == list(map(type, positional))
    assert list(map(type, read.named.values())) == list(map(type, named.values()))


def grid(rows: int, columns: int = 1, *, ideal: bool = False) -> tuple[int, int, bool]:
    return rows, columns, ideal


TABLE = {"grid": grid, "bare": lambda: 0, "open": lambda **words: words}


@pytest.mark.parametrize(
    "spec", ["grid:rows=2,columns=3", "grid(2, 3)", "grid(2, columns=3)"]
)
def test_a_value_without_a_name_goes_by_the_makers_order(spec: str) -> None:
    assert resolve("shape", spec, TABLE) == (grid, {"rows": 2, "columns": 3})
    assert build("shape", spec, TABLE) == (2, 3, False)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("grit(2)", "unknown shape 'grit' (did you mean 'grid'?); known: grid, bare"),
        (
            "grid(2, colums=3)",
            "unknown parameter of shape 'grid' 'colums' (did you mean 'columns'?); "
            "known: rows, columns, ideal",
        ),
        ("grid(2, rows=3)", "shape 'grid(2, rows=3)': 'rows' is given twice"),
        ("grid(2, 3, true)", "without a name may stand for rows, columns; got 3"),
        ("bare(2)", "shape 'bare(2)': bare takes no parameters"),
        ("grid", "missing 1 required positional argument: 'rows'"),
        ("grid(2.5)", "shape grid(rows=2.5): must be an integer"),
        ("grid(2, ideal=2)", "shape grid(ideal=2): must be yes or no"),
        ("grid(4x4)", "shape grid(rows=(4, 4)): must be an integer"),
    ],
)
def test_values_that_fit_no_parameter_are_refused(spec: str, said: str) -> None:
    with pytest.raises(ValueError, match="shape") as error:
        build("shape", spec, TABLE)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("word", "meant"),
    [("yes", True), ("on", True), ("no", False), ("off", False), ("False", False)],
)
def test_a_boolean_is_what_its_word_says(word: str, meant: bool) -> None:
    assert build("shape", f"grid(2, ideal={word})", TABLE) == (2, 1, meant)


def test_a_maker_that_takes_any_parameter_gets_them_all() -> None:
    assert build("shape", "open:a=1,b=inf", TABLE) == {"a": 1, "b": math.inf}


def test_what_a_caller_passes_wins_over_the_spec() -> None:
    assert build("shape", "grid(2)", TABLE, columns=5) == (2, 5, False)
    with pytest.raises(ValueError, match="unknown parameter"):
        resolve("shape", "grid:rows=2", TABLE, given=("rows",))
