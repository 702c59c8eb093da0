"""Every geometry: products against autograd, counts against enumeration, saved forms."""

import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_layers import (
    autograd,
    batched_matmuls,
    convolutions,
    convolutions_3d,
    forward,
    lines,
    matmuls,
    sparse_operands,
    transposed_convolutions,
)

from elision.products import (
    Conv1dGeometry,
    Conv2dGeometry,
    Conv3dGeometry,
    Convolution,
    ConvTranspose1dGeometry,
    ConvTranspose2dGeometry,
    ConvTranspose3dGeometry,
    Geometry,
    LayerProduct,
    MatmulGeometry,
    Product,
    Trace,
    TransposedConvolution,
)
from elision.products.canonical import canonical_geometry
from elision.products.geometries import geometry_from_json

every_geometry = (
    matmuls
    | batched_matmuls
    | convolutions()
    | transposed_convolutions()
    | convolutions_3d()
    | lines()
    | transposed_convolutions(1)
    | transposed_convolutions(3)
)
kinds = st.sampled_from(list(Product))
patterns = st.sampled_from(["dense", "empty", "half", "slices"])
seeds = st.integers(0, 99)


def product_of(
    kind: Product, geometry: Geometry, operands: dict[str, torch.Tensor]
) -> LayerProduct:
    first, second = (operands[name] for name in kind.operands)
    return LayerProduct(kind, geometry, first, second)


Place = tuple[int, ...]


def terms(geometry: Geometry) -> list[tuple[Place, Place, Place]]:
    """Places in input, weight and output of every multiplication, padding left out."""
    if isinstance(geometry, MatmulGeometry):
        found = []
        for b, m, i, n in itertools.product(
            *map(
                range, (geometry.batch, geometry.rows, geometry.inner, geometry.columns)
            )
        ):
            entry = () if geometry.batch == 1 else (b,)
            found.append(((*entry, m, i), (*entry, n, i), (*entry, m, n)))
        return found
    if isinstance(geometry, TransposedConvolution):
        return [(y, w, x) for x, w, y in terms(geometry.convolution)]
    assert isinstance(geometry, Convolution)
    channels = geometry.in_channels // geometry.groups
    filters = geometry.out_channels // geometry.groups
    ranges = (geometry.batch, geometry.out_channels, channels)
    found = []
    for n, k, c in itertools.product(*map(range, ranges)):
        for out in itertools.product(*map(range, geometry.out_sizes)):
            for tap in itertools.product(*map(range, geometry.kernel)):
                place = tuple(
                    o * t - p + r * d
                    for o, r, t, p, d in zip(
                        *(out, tap, geometry.stride, geometry.padding),
                        geometry.dilation,
                        strict=True,
                    )
                )
                inside = zip(place, geometry.sizes, strict=True)
                if all(0 <= y < size for y, size in inside):
                    channel = k // filters * channels + c
                    found.append(((n, channel, *place), (k, c, *tap), (n, k, *out)))
    return found


@settings(deadline=None, max_examples=150)
@given(every_geometry, patterns, seeds)
def test_products_are_those_of_autograd(
    geometry: Geometry, pattern: str, seed: int
) -> None:
    drawn = sparse_operands(geometry, pattern, seed)
    expected = (
        forward(geometry, drawn["input"], drawn["weight"]),
        *autograd(geometry, **drawn),
    )
    assert expected[0].shape == geometry.shape_of("grad_output")
    for kind, result in zip(Product, expected, strict=True):
        product = product_of(kind, geometry, drawn)
        assert torch.equal(product.compute(), result)
        assert product.result_shape == tuple(result.shape)


@settings(deadline=None, max_examples=60)
@given(every_geometry, patterns, seeds)
def test_valid_products_and_results_are_those_of_every_term(
    geometry: Geometry, pattern: str, seed: int
) -> None:
    drawn = sparse_operands(geometry, pattern, seed)
    named: list[dict[str, Place]] = [
        dict(zip(("input", "weight", "grad_output"), places, strict=True))
        for places in terms(geometry)
    ]
    for kind in Product:
        first, second = kind.operands
        result = torch.zeros(geometry.shape_of(kind.absent)).double()
        valid = 0
        for places in named:
            term = drawn[first][places[first]] * drawn[second][places[second]]
            valid += int(term != 0)
            result[places[kind.absent]] += term
        product = product_of(kind, geometry, drawn)
        assert product.counts.valid == valid
        assert torch.equal(product.compute(), result)


#: Axes of (N, C | K, C | N, K) tensors that the two operands of a product share.
SHARED = {
    Product.FORWARD: (1, 1),
    Product.INPUT_GRAD: (1, 0),
    Product.WEIGHT_GRAD: (0, 0),
}


@settings(deadline=None, max_examples=60)
@given(convolutions_3d(), kinds, patterns, seeds)
def test_planes_of_a_3d_convolution_meet_all_with_all(
    geometry: Conv3dGeometry, kind: Product, pattern: str, seed: int
) -> None:
    if geometry.groups > 1:
        return  # the shared index of a group is tested on 2-D convolutions
    drawn = sparse_operands(geometry, pattern, seed)
    left, right = (
        (drawn[name] != 0).transpose(0, axis).flatten(1).sum(1)
        for name, axis in zip(kind.operands, SHARED[kind], strict=True)
    )
    counts = product_of(kind, geometry, drawn).counts
    if isinstance(canonical_geometry(geometry), MatmulGeometry):
        assert counts.nonzero == counts.valid  # the values of a window share an index
    else:
        assert counts.nonzero == int(left @ right)


@given(matmuls, kinds, patterns, seeds)
def test_equal_products_count_the_same(
    geometry: MatmulGeometry, kind: Product, pattern: str, seed: int
) -> None:
    drawn = sparse_operands(geometry, pattern, seed)
    matrix = product_of(kind, geometry, drawn)
    images = Conv2dGeometry(geometry.rows, geometry.inner, 1, 1, geometry.columns, 1)
    over_images = product_of(
        kind, images, {n: v.reshape(images.shape_of(n)) for n, v in drawn.items()}
    )
    pixels = Conv2dGeometry(1, geometry.inner, geometry.rows, 1, geometry.columns, 1)
    over_pixels = product_of(
        kind,
        pixels,
        {
            n: (v if n == "weight" else v.T).reshape(pixels.shape_of(n))
            for n, v in drawn.items()
        },
    )
    assert matrix.counts == over_images.counts
    assert matrix.counts.redundant == 0
    assert matrix.counts.valid == over_pixels.counts.valid
    assert matrix.dense_macs == over_images.dense_macs == over_pixels.dense_macs
    if kind is not Product.WEIGHT_GRAD:  # whose planes of pixels meet all with all
        assert matrix.counts == over_pixels.counts


@given(batched_matmuls, kinds, patterns, seeds)
def test_a_batch_counts_what_its_products_count(
    geometry: MatmulGeometry, kind: Product, pattern: str, seed: int
) -> None:
    drawn = sparse_operands(geometry, pattern, seed)
    one = MatmulGeometry(geometry.rows, geometry.inner, geometry.columns)
    parts = [
        product_of(kind, one, {name: value[b] for name, value in drawn.items()})
        for b in range(geometry.batch)
    ]
    whole = product_of(kind, geometry, drawn)
    assert whole.dense_macs == sum(part.dense_macs for part in parts)
    assert whole.counts.nonzero == sum(part.counts.nonzero for part in parts)
    assert whole.counts.valid == sum(part.counts.valid for part in parts)


@settings(deadline=None)
@given(every_geometry, kinds, patterns, seeds)
def test_every_product_is_one_of_a_convolution(
    geometry: Geometry, kind: Product, pattern: str, seed: int
) -> None:
    product = product_of(kind, geometry, sparse_operands(geometry, pattern, seed))
    convolution = product.as_convolution()
    assert isinstance(convolution.geometry, Convolution)
    result = geometry.from_convolution(kind.absent, convolution.compute())
    assert torch.equal(result, product.compute())
    assert convolution.counts == product.counts
    assert convolution.dense_macs == product.dense_macs
    blind = LayerProduct(kind, geometry).as_convolution()
    assert (blind.kind, blind.geometry) == (convolution.kind, convolution.geometry)
    for name in kind.operands:
        there = geometry.to_convolution(name, product.operands[name])
        assert torch.equal(
            geometry.from_convolution(name, there), product.operands[name]
        )


@given(every_geometry, st.integers(2, 4))
def test_a_batch_changes_the_first_axis_alone(geometry: Geometry, batch: int) -> None:
    changed = geometry.with_batch(batch)
    for name in ("input", "grad_output"):
        assert changed.shape_of(name) == (batch, *geometry.shape_of(name)[1:])


@given(every_geometry)
def test_a_geometry_comes_back_from_its_saved_form(geometry: Geometry) -> None:
    assert geometry_from_json(geometry.to_json()) == geometry
    assert geometry.description.count("\n") == 0


def test_a_matrix_product_is_saved_as_before_there_were_batches() -> None:
    plain = {"kind": "matmul", "rows": 2, "inner": 3, "columns": 4}
    assert MatmulGeometry(2, 3, 4).to_json() == plain
    assert MatmulGeometry(2, 3, 4, batch=5).to_json() == {**plain, "batch": 5}


def test_traces_hold_every_geometry(tmp_path: Path) -> None:
    layers = [
        MatmulGeometry(2, 3, 4, batch=2),
        Conv1dGeometry(2, 2, 5, 4, 3),
        Conv2dGeometry.of_1d((2, 2, 5), (4, 2, 3)),
        Conv3dGeometry(1, 2, 3, 3, 3, 2, 2),
        ConvTranspose1dGeometry.of((1, 2, 3), (2, 2, 2), 2, output_padding=1),
        ConvTranspose2dGeometry.of((1, 2, 3, 3), (2, 2, 2, 2), stride=2),
        ConvTranspose3dGeometry.of((1, 2, 3, 3, 2), (2, 2, 2, 2, 1), stride=2),
    ]
    products = [
        product_of(kind, geometry, sparse_operands(geometry, "half", 0))
        for geometry in layers
        for kind in Product
    ]
    Trace.of(products).save(tmp_path / "trace")
    for found, product in zip(Trace.load(tmp_path / "trace"), products, strict=True):
        assert (found.kind, found.geometry) == (product.kind, product.geometry)
        assert torch.equal(found.compute(), product.compute())


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups"),
    [(1, 0, 1, 1), (2, 1, 1, 2), (1, 3, 2, 1)],
)
def test_a_1d_convolution_is_one_of_height_1(
    stride: int, padding: int, dilation: int, groups: int
) -> None:
    x, weight = (
        torch.randint(-4, 5, (2, 4, 9)),
        torch.randint(-4, 5, (6, 4 // groups, 3)),
    )
    geometry = Conv2dGeometry.of_1d(
        (2, 4, 9), (6, 4 // groups, 3), stride, padding, dilation, groups
    )
    line = Conv1dGeometry(2, 4, 9, 6, 3, stride, padding, dilation, groups)
    assert line.on_two_axes == geometry
    x, weight = x.double(), weight.double()
    expected = torch.nn.functional.conv1d(
        x, weight, None, stride, padding, dilation, groups
    )
    first, second = x.unsqueeze(2), weight.unsqueeze(2)
    found = LayerProduct(Product.FORWARD, geometry, first, second).compute()
    assert torch.equal(found.squeeze(2), expected)
    product = LayerProduct(Product.FORWARD, line, x, weight)
    assert torch.equal(product.compute(), expected)
    flat = product.as_convolution()
    assert flat.geometry == geometry
    assert torch.equal(flat.first, first)
    assert canonical_geometry(line) == canonical_geometry(geometry)


def test_wrong_geometries_are_named() -> None:
    with pytest.raises(ValueError, match=r"MatmulGeometry\(batch=0\): must be an int"):
        MatmulGeometry(1, 2, 3, batch=0)
    with pytest.raises(ValueError, match=r"Conv3dGeometry\.kernel .* or a triple of"):
        Conv3dGeometry(1, 2, 3, 3, 3, 2, kernel=(1, 2))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"Conv1dGeometry\.stride .* a tuple of one"):
        Conv1dGeometry(1, 2, 9, 2, 3, stride=(1, 2))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"ConvTranspose3dGeometry\(output_padding=2"):
        ConvTranspose3dGeometry.of((1, 2, 3, 3, 3), (2, 2, 2, 2, 2), 2, 0, 2)
    with pytest.raises(ValueError, match="does not fit the input 3x3x3"):
        Conv3dGeometry(1, 2, 3, 3, 3, 2, kernel=4)
    with pytest.raises(ValueError, match=r"output_padding=2\): must be less than"):
        ConvTranspose2dGeometry.of(
            (1, 2, 3, 3), (2, 2, 2, 2), stride=2, output_padding=2
        )
    with pytest.raises(ValueError, match="must divide"):
        ConvTranspose2dGeometry.of((1, 3, 3, 3), (3, 2, 2, 2), groups=2)


def test_depthwise_layers_say_so() -> None:
    assert Conv2dGeometry(1, 4, 5, 5, 8, 3, groups=4).is_depthwise
    assert not Conv2dGeometry(1, 1, 5, 5, 8, 3).is_depthwise
    assert not MatmulGeometry(2, 1, 3, batch=4).is_depthwise
    deep = ConvTranspose2dGeometry.of((1, 4, 3, 3), (4, 2, 2, 2), groups=4)
    assert deep.is_depthwise


@pytest.mark.parametrize(
    ("geometry", "words"),
    [  # decisions of engines are kept under these words
        (MatmulGeometry(2, 3, 4), "linear 2 x 3 -> 4"),
        (MatmulGeometry(2, 3, 4, batch=5), "linear 2 x 3 -> 4, batch 5"),
        (Conv2dGeometry(1, 2, 5, 6, 4, 3), "conv 1 x 2 @ 5x6 -> 4, kernel 3x3"),
        (
            Conv2dGeometry(1, 2, 5, 6, 4, (3, 1), 2, 1, 1, 2),
            "conv 1 x 2 @ 5x6 -> 4, kernel 3x1, stride 2x2, padding 1x1, groups 2x1",
        ),
        (
            Conv3dGeometry(1, 2, 4, 5, 6, 4, 2),
            "conv3d 1 x 2 @ 4x5x6 -> 4, kernel 2x2x2",
        ),
        (
            Conv1dGeometry(1, 2, 9, 4, 3, 2, 1, 1, 2),
            "conv1d 1 x 2 @ 9 -> 4, kernel 3, stride 2, padding 1, groups 2x1",
        ),
        (
            ConvTranspose2dGeometry.of((1, 2, 3, 3), (2, 4, 2, 2)),
            "transposed conv 1 x 4 @ 4x4 -> 2, kernel 2x2",
        ),
    ],
)
def test_words(geometry: Geometry, words: str) -> None:
    assert geometry.description == words
