import pytest

from elision.accelerators import Systolic
from elision.accelerators.step import blind_products, products_cost, step_cost
from elision.products import MatmulGeometry, Product

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
