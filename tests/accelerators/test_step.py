import pytest

from elision.accelerators import Systolic
from elision.accelerators.step import (
    blind_products,
    products_cost,
    step_cost,
    training_products,
)
from elision.products import MatmulGeometry, Product, synthetic_products

FIRST, SECOND = ("first", MatmulGeometry(4, 8, 8)), ("second", MatmulGeometry(4, 8, 2))


def test_a_step_is_every_product_but_the_first_input_gradient():
    kinds = [(p.name, p.kind) for p in blind_products([FIRST, SECOND])]
    assert kinds == [
        ("first", Product.FORWARD),
        ("first", Product.WEIGHT_GRAD),
        ("second", Product.FORWARD),
        ("second", Product.INPUT_GRAD),
        ("second", Product.WEIGHT_GRAD),
    ]


def test_random_operands_make_the_step_that_shapes_make() -> None:
    layers = [FIRST, SECOND, FIRST]
    for counted in (False, True):
        drawn = training_products(synthetic_products(layers, 0.5), counted)
        shapes = blind_products(layers, counted)
        assert [(p.name, p.kind) for p in drawn] == [(p.name, p.kind) for p in shapes]
        assert len(shapes) == 9 - (not counted)


def test_a_later_layer_of_the_first_ones_name_keeps_its_input_gradient() -> None:
    kinds = [p.kind for p in blind_products([FIRST, FIRST])]
    assert kinds.count(Product.INPUT_GRAD) == 1


def test_the_cost_of_a_step_is_that_of_its_products():
    layers = [FIRST, SECOND, SECOND, FIRST]
    machine = Systolic(4, 4)
    assert step_cost(machine, layers) == products_cost(machine, blind_products(layers))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "it has no rows"),
        ([FIRST, ("second", None)], "row 2: expected .name, geometry."),
        ([FIRST, SECOND, "conv3"], "row 3: .*'conv3'"),
        ([(FIRST[1], FIRST[0])], "row 1"),
    ],
)
def test_a_broken_layer_list_names_the_row(rows, message):
    with pytest.raises(ValueError, match=f"layer list.*{message}"):
        step_cost(Systolic(4, 4), rows)


def test_there_must_be_something_to_cost():
    with pytest.raises(ValueError, match="no product"):
        products_cost(Systolic(4, 4), [])
