"""Specs: what a person types for a recipe, a machine or a probe."""

import pytest

from elision.common.specs import parse


@pytest.mark.parametrize(
    ("spec", "name", "parameters"),
    [
        ("ant", "ant", {}),
        ("swat:sparsity=0.9,refresh=4", "swat", {"sparsity": 0.9, "refresh": 4}),
        ("scnn:grid=8x4, ideal = true", "scnn", {"grid": (8, 4), "ideal": True}),
        (
            "memory:policy=expected(0.1, batch_norm=all),batches=3",
            "memory",
            {"policy": "expected(0.1, batch_norm=all)", "batches": 3},
        ),
    ],
)
def test_a_spec_is_a_name_and_parameters(spec, name, parameters):
    assert parse(spec) == (name, parameters)


def test_a_part_without_a_value_is_refused():
    with pytest.raises(ValueError, match="write swat:parameter=value"):
        parse("swat:sparsity")
