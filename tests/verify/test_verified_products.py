"""The three products of convolutions: by definition, in blocks, unfolded, gathered."""

import pytest
import torch

import elision
from elision.products import Conv2dGeometry, Product
from elision.verify import equivalent, read, run
from elision.verify.products import (
    DIVISORS,
    blocked,
    definition,
    fixed,
    gathered,
    sizes_of,
    unfolded,
)

pytest.importorskip("islpy")

LAYERS = {
    "plain": Conv2dGeometry(2, 3, 9, 7, 4, kernel=(3, 2)),
    "strided": Conv2dGeometry(
        2, 3, 9, 7, 4, kernel=(3, 2), stride=(2, 3), padding=(1, 0)
    ),
    "dilated": Conv2dGeometry(1, 2, 9, 8, 3, kernel=(3, 2), dilation=(1, 2), padding=2),
    "stride over the kernel": Conv2dGeometry(1, 2, 8, 7, 3, kernel=1, stride=(2, 3)),
    "groups": Conv2dGeometry(1, 4, 7, 6, 6, kernel=(3, 2), padding=1, groups=2),
    "depthwise": Conv2dGeometry(2, 3, 7, 6, 3, kernel=(3, 2), stride=2, groups=3),
}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("kind", list(Product))
def test_the_definition_is_what_the_library_computes(kind: Product, layer: str) -> None:
    shape = LAYERS[layer]
    first, second = (
        torch.randint(-9, 10, shape.shape_of(name)).double() for name in kind.operands
    )
    names = {"X": "input", "W": "weight", "Y": "grad_output"}
    given = dict(zip(kind.operands, (first, second), strict=True))
    found = run(
        read(definition(kind, shape)),
        sizes_of(shape),
        lambda array, index: int(given[names[array]][index]),
    )
    expected = shape.compute(kind, first, second)
    assert len(found) == expected.numel()
    assert all(expected[index] == value for (_, index), value in found.items())


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("kind", list(Product))
def test_blocks_make_the_product(kind: Product, layer: str) -> None:
    shape = LAYERS[layer]
    verdict = equivalent(
        blocked(kind, shape), definition(kind, shape), sizes=fixed(shape, ())
    )
    assert verdict, verdict


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("kind", list(Product))
def test_matrices_make_the_product(kind: Product, layer: str) -> None:
    shape = LAYERS[layer]
    sizes = fixed(shape, DIVISORS)
    verdict = equivalent(unfolded(kind, shape), definition(kind, shape), sizes=sizes)
    assert verdict, verdict


@pytest.mark.parametrize("layer", LAYERS)
def test_the_gathered_input_gradient_is_the_scattered_one(layer: str) -> None:
    shape = LAYERS[layer]
    specification = definition(Product.INPUT_GRAD, shape)
    sizes = fixed(shape, ("R", "S"))
    assert equivalent(gathered(shape), specification, sizes=sizes)
    wrong = gathered(shape).replace("c, r, s]", "c, R - 1 - r, s]")
    turned = equivalent(wrong, specification, sizes=sizes)
    assert turned.status == ("proved" if shape.kernel[0] == 1 else "refuted")


def convolutions() -> list[Conv2dGeometry]:
    layers = elision.shapes.model_layers("resnet18", 224, 1)
    return [g for _, g in layers if isinstance(g, Conv2dGeometry)]


def test_every_product_of_resnet18_is_proved_for_any_batch_and_channels() -> None:
    layers = convolutions()
    assert len(layers) == 20
    known: dict[tuple, bool] = {}
    for shape in layers:
        for kind in Product:
            specification = definition(kind, shape)
            for form in (blocked, unfolded):
                # Sizes that are left out stay unknown: one proof holds for many layers.
                names = ("R", "S") if form is blocked else (*DIVISORS, "H", "V")
                sizes = fixed(shape, names)
                key = form, kind, specification, tuple(sizes.items())
                if key not in known:
                    known[key] = bool(
                        equivalent(form(kind, shape), specification, sizes=sizes)
                    )
    assert all(known.values())
    assert len(known) < 2 * 3 * len(layers)
