"""The drawings of the multiplier array: what they count, and that they are SVG."""

from xml.etree import ElementTree

import numpy as np
import pytest

from elision.accelerators import Ant, Scnn
from elision.products import Conv2dGeometry, LayerProduct, Product
from elision.report.multiplier_array import (
    array_steps,
    multiplier_array_animation,
    multiplier_array_svgs,
)

IMAGE = np.array([[1, 0, 0], [0, -1, 2], [0, 0, 3]])
KERNEL = np.array([[2, -3], [0, 0]])


def products(steps):
    steps = list(steps)
    return sum(s.valid for s in steps), sum(s.redundant for s in steps)


@pytest.mark.parametrize(("lanes", "redundant"), [(4, 4), (2, 2), (1, 0)])
def test_the_slides_example(lanes, redundant):
    assert products(array_steps(IMAGE, KERNEL, lanes)) == (4, redundant)
    assert products(array_steps(IMAGE, KERNEL, lanes, anticipates=False)) == (4, 4)


@pytest.mark.parametrize("seed", range(5))
def test_steps_are_those_of_the_machines(seed):
    rng = np.random.default_rng(seed)
    image = rng.integers(1, 9, (9, 8)) * (rng.random((9, 8)) < 0.4)
    kernel = rng.integers(1, 9, (6, 5)) * (rng.random((6, 5)) < 0.4)
    product = LayerProduct(
        Product.FORWARD,
        Conv2dGeometry(1, 1, 9, 8, 1, (6, 5)),
        image[None, None],
        kernel[None, None],
    )
    for machine, anticipates in ((Ant(window=100), True), (Scnn(), False)):
        cost = machine.cost(product)
        steps = list(array_steps(image, kernel, 4, anticipates))
        counted = (cost.valid_multiplies, cost.redundant_multiplies)
        assert products(steps) == counted
        # One step per cycle; ANT also looks at vectors that turn out to have no partner.
        assert len(steps) <= cost.details["busy_cycles"]
        if not anticipates:
            assert len(steps) == cost.details["busy_cycles"]


def test_drawings_are_svg_documents():
    drawings = multiplier_array_svgs(IMAGE, KERNEL, lanes=2)
    assert len(drawings) == 2
    for number, drawing in enumerate(drawings, 1):
        root = ElementTree.fromstring(drawing)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        title = root.findtext("{http://www.w3.org/2000/svg}title")
        assert title.startswith(f"step {number} of 2: ")
    # The second image vector, 2 and 3 in the last column, cannot use the kernel's 2.
    assert ", 1 kernel value skipped" in drawings[1]


def test_an_animation_shows_one_step_at_a_time():
    drawing = multiplier_array_animation(IMAGE, KERNEL, lanes=1, step_seconds=2)
    namespace = "{http://www.w3.org/2000/svg}"
    root = ElementTree.fromstring(drawing)
    frames = [g.find(f"{namespace}animate") for g in root.iter(f"{namespace}g")]
    assert len(frames) == 4  # one valid product each
    shown = [frame.get("values").split(";") for frame in frames]
    for moment in zip(*shown, strict=True):
        assert sorted(moment) == ["inline", "none", "none", "none"]
    assert {frame.get("dur") for frame in frames} == {"8s"}


def test_a_kernel_that_does_not_fit():
    with pytest.raises(ValueError, match="must fit the image"):
        list(array_steps(KERNEL, IMAGE))
