"""Rules by which the library's machines and kernels compute, proved along one axis.

Each rule is a program whose formulas and constants are those of the code: taken from its
source, or from the objects that it makes; where a formula is written out again, the
code's own answers are checked against the program on drawn layers as well. The
specification is the definition of the product: pixel ``h``, output ``o`` and tap ``r``
meet iff ``h = t·o - p + d·r``. Strides, paddings and dilations are numbers, sizes are not.
"""

import re
from math import ceil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import elision
from elision.accelerators.outer.planar import PlanarPlan, _cut
from elision.accelerators.outer.planes import Axis, OuterProduct, axis_of, planes_of
from elision.accelerators.systolic.lowering import fold_result, matrices
from elision.products import Conv2dGeometry, LayerProduct, Product
from elision.products.axes import Axis as MeetingAxis
from elision.verify import equivalent, read, run
from elision.verify.products import unfolded

pytest.importorskip("islpy")

#: Stride, padding and dilation.
LAYERS = [(1, 0, 1), (1, 2, 2), (2, 1, 1), (2, 3, 1), (3, 1, 2), (4, 0, 1)]


def assumed(stride: int, padding: int, dilation: int) -> str:
    """P outputs of an axis of H pixels and R taps."""
    reach = f"H + {2 * padding} - {dilation} * (R - 1) - 1"
    return f"assume {reach} >= 0\nassume P == ({reach}) // {stride} + 1\n"


def definition(kind: Product, stride: int, padding: int, dilation: int) -> str:
    result, first, second, size = {
        Product.FORWARD: ("Y[o]", "X[h]", "W[r]", "P"),
        Product.INPUT_GRAD: ("X[h]", "Y[o]", "W[r]", "H"),
        Product.WEIGHT_GRAD: ("W[r]", "Y[o]", "X[h]", "R"),
    }[kind]
    return f"""
{assumed(stride, padding, dilation)}
for z in range({size}):
    {result[0]}[z] = 0
for o in range(P):
    for r in range(R):
        h = {stride} * o - {padding} + {dilation} * r
        if 0 <= h < H:
            {result} += {first} * {second}
"""


def axis(kind: Product, stride: int, padding: int, dilation: int) -> Axis:
    """The code's axis of a layer, on which sizes have no influence but for the reach."""
    return axis_of(kind, geometry(stride, padding, dilation), 0)


def geometry(
    stride: int, padding: int, dilation: int, size: int = 17
) -> Conv2dGeometry:
    return Conv2dGeometry(
        1, 1, size, 9, 1, kernel=(3, 1), stride=(stride, 1), padding=(padding, 0),
        dilation=(dilation, 1),
    )  # fmt: skip


#: Of an outer product: result, image, kernel, and the sizes of the three.
OUTER = {
    Product.FORWARD: ("Y[u]", "X[i]", "W[j]", "P", "H", "R"),
    Product.INPUT_GRAD: ("X[u]", "Y[i]", "W[R - 1 - j]", "H", "P", "R"),
    Product.WEIGHT_GRAD: ("W[u]", "X[i]", "Y[j]", "R", "H", "P"),
}


def offset(of: Axis, kind: Product, dilation: int, padding: int) -> str:
    """The image's offset for any number of taps; the layer at hand has three."""
    if kind is not Product.INPUT_GRAD:
        return str(of.image_offset)
    assert of.image_offset == dilation * 2 - padding
    return f"({dilation} * (R - 1) - {padding})"


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("kind", list(Product))
def test_ants_range_rule_selects_what_makes_the_product(
    kind: Product, layer: tuple[int, int, int]
) -> None:
    # The bounds of `rectangles`: -((t·(outputs - 1) - y) // step) up to y // step + 1.
    _, padding, dilation = layer
    result, image, kernel, results, images, kernels = OUTER[kind]
    of = axis(kind, *layer)
    y = f"{of.image_step} * i + {offset(of, kind, dilation, padding)}"
    program = f"""
{assumed(*layer)}
for u in range({results}):
    {result} = 0
for i in range({images}):
    y = {y}
    for j in range(
        max(-(({of.stride} * ({results} - 1) - y) // {of.kernel_step}), 0),
        min(y // {of.kernel_step} + 1, {kernels}),
    ):
        k = {of.kernel_step} * j
        u = (y - k) // {of.stride}
        if (y - k) % {of.stride} == 0:
            {result} += {image} * {kernel}
"""
    verdict = equivalent(program, definition(kind, *layer))
    assert verdict, verdict
    if of.kernel_step > 1 or of.stride > 1:
        return
    narrower = program.replace("// 1 + 1,", "// 1,")
    assert equivalent(narrower, definition(kind, *layer)).status == "refuted"


@pytest.mark.parametrize(("tile", "size"), [(5, None), (2, 3)])
@pytest.mark.parametrize("layer", LAYERS)
def test_scnns_tiles_and_passes_make_the_product(
    layer: tuple[int, int, int], tile: int, size: int | None
) -> None:
    # Elements own tiles of the padded image, a pass computes `size` outputs; values meet
    # in residue classes, and what an element computes for outputs of its neighbour's
    # tile (the halo) is added there.
    stride, padding, _ = layer
    of = axis(Product.FORWARD, *layer)
    assert of.image_offset == padding
    first, outputs = (
        ("0", "P") if size is None else (f"{size} * a", f"min({size}, P - first)")
    )
    extent = f"H + {2 * padding}"
    if size is not None:
        extent = f"{stride} * (outputs - 1) + {of.kernel_step} * (R - 1) + 1"
    program = f"""
{assumed(*layer)}
assume {tile} * E >= H + {2 * padding}
for o in range(P):
    Y[o] = 0
for a in range({"1" if size is None else f"(P + {size - 1}) // {size}"}):
    for e in range(E):
        for residue in range({stride}):
            for x in range({tile} * e, {tile} * e + {tile}):
                for r in range(R):
                    first = {first} + 0 * a
                    outputs = {outputs} + 0 * a
                    i = x - ({of.image_offset} - {stride} * first)
                    k = {of.kernel_step} * r
                    u = x // {stride} - k // {stride}
                    if x % {stride} == residue and k % {stride} == residue:
                        if 0 <= i < H and x < {extent} and 0 <= u < outputs:
                            Y[u + first] += X[i] * W[r]
"""
    verdict = equivalent(program, definition(Product.FORWARD, *layer))
    assert verdict, verdict
    missed = program.replace(f"assume {tile} * E >= H", f"assume {tile} * (E + 3) >= H")
    assert equivalent(missed, definition(Product.FORWARD, *layer)).status == "refuted"


@given(
    st.sampled_from(LAYERS), st.integers(9, 30), st.integers(1, 4), st.integers(1, 4)
)
@settings(max_examples=25, deadline=None)
def test_passes_and_tiles_are_those_of_the_code(
    layer: tuple[int, int, int], size: int, parts: int, elements: int
) -> None:
    of = axis_of(Product.FORWARD, geometry(*layer, size), 0)
    if parts > of.outputs:
        return
    passes = _cut(of, 3, parts)
    each = ceil(of.outputs / parts)
    starts = range(0, of.outputs, each)
    assert [p.image_offset for p in passes] == [
        layer[1] - layer[0] * first for first in starts
    ]
    assert [p.outputs for p in passes] == [min(each, of.outputs - f) for f in starts]
    if parts == 1:
        assert of.extent == size + 2 * layer[1]
        ones = OuterProduct(
            *planes_masks(geometry(*layer, size)), of, Axis(1, 0, 1, 1, 9, 9)
        )
        plan = PlanarPlan.of(ones, (elements, 1), 10**6)
        assert plan.tile[0] == ceil(of.extent / elements)


def planes_masks(shape: Conv2dGeometry) -> tuple:
    operands = (torch.ones(shape.shape_of(name)) for name in Product.FORWARD.operands)
    planes = planes_of(LayerProduct(Product.FORWARD, shape, *operands))
    return planes.images, planes.kernels


# The table of the native kernels.

SOURCE = Path(elision.__file__).parent / "native" / "kernels" / "meeting.hpp"


def formulas(stride: int, padding: int, dilation: int) -> SimpleNamespace:
    """The index arithmetic of meeting.hpp, its names put in for those of the tests."""
    text = SOURCE.read_text(encoding="utf-8")

    def found(pattern: str) -> str:
        (whole,) = set(re.findall(pattern, text))
        for name, value in {
            "v.stride_y": stride, "v.pad_y": padding, "v.dil_y": dilation,
            "v.h": "H", "v.r": "R", "pad_y": padding, "dil_y": dilation,
            "stride_y": stride,
        }.items():  # fmt: skip
            whole = re.sub(rf"(?<![\w.]){re.escape(name)}\b", str(value), whole)
        return re.sub(r"\bh\b", "H", re.sub(r"\(r - 1\)", "(R - 1)", whole))

    return SimpleNamespace(
        outputs=found(r"int out_h\(\) const \{ return (.*?); \}"),
        forward=found(r"\{r \* v\.s \+ s, (r \* v\.dil_y - v\.pad_y),"),
        phases=found(r"for \(int y = 0; y < (std::min\(v\.stride_y, v\.h\));"),
        rows=found(r"Phase phase\{y, x, (\(v\.h - y - 1\) / v\.stride_y \+ 1),"),
        distance=found(r"int dy = (y \+ v\.pad_y - r \* v\.dil_y);"),
        skipped=found(r"if \((dy % v\.stride_y != 0)\) continue;"),
        partner=found(r"\{r \* v\.s \+ s, (dy / v\.stride_y), dx / v\.stride_x\}"),
    )


@pytest.mark.parametrize("layer", LAYERS)
def test_the_kernels_phases_make_the_input_gradient(
    layer: tuple[int, int, int],
) -> None:
    stride, _, _ = layer
    f = formulas(*layer)
    program = f"""
assume(H + {2 * layer[1]} - {layer[2]} * (R - 1) - 1 >= 0);
assume(P == {f.outputs});
for (int h = 0; h < H; ++h) X[h] = 0;
for (int y = 0; y < {f.phases.replace("std::", "")}; ++y)
  for (int own = 0; own < {f.rows}; ++own)
    for (int r = 0; r < R; ++r) {{
      int dy = {f.distance};
      if (!({f.skipped})) {{
        int o = own + {f.partner};
        if (o >= 0 && o < P)
          X[y + {stride} * own] += Y[o] * W[r];
      }}
    }}
"""
    verdict = equivalent(program, definition(Product.INPUT_GRAD, *layer))
    assert verdict, verdict
    if stride > 1:
        without = program.replace(f"!({f.skipped})", "dy == dy")
        assert (
            equivalent(without, definition(Product.INPUT_GRAD, *layer)).status
            == "refuted"
        )


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("kind", [Product.FORWARD, Product.WEIGHT_GRAD])
def test_the_kernels_table_makes_the_products_told_from_the_output(
    kind: Product, layer: tuple[int, int, int]
) -> None:
    f = formulas(*layer)
    forward = kind is Product.FORWARD
    result, value, size = (
        ("Y[o]", "X[h] * W[r]", "P") if forward else ("W[r]", "X[h] * Y[o]", "R")
    )
    program = f"""
assume(H + {2 * layer[1]} - {layer[2]} * (R - 1) - 1 >= 0);
assume(P == {f.outputs});
for (int z = 0; z < {size}; ++z) {result[0]}[z] = 0;
for (int o = 0; o < P; ++o)
  for (int r = 0; r < R; ++r) {{
    int h = o * {layer[0]} + ({f.forward});
    if (h >= 0 && h < H) {result} += {value};
  }}
"""
    verdict = equivalent(program, definition(kind, *layer))
    assert verdict, verdict


# Phases as slices, in Python.


def sliced(stride: int, padding: int, dilation: int) -> str:
    return f"""
{assumed(stride, padding, dilation)}
for z in range(P):
    Y[z] = 0
for r in range(R):
    shift = r * {dilation} - {padding}
    for o in range(
        max(-(shift // {stride}), 0), min((H - 1 - shift) // {stride}, P - 1) + 1
    ):
        Y[o] += X[o * {stride} + shift] * W[r]
"""


@pytest.mark.parametrize("layer", LAYERS)
def test_slices_of_pixels_and_outputs_make_the_product(
    layer: tuple[int, int, int],
) -> None:
    verdict = equivalent(sliced(*layer), definition(Product.FORWARD, *layer))
    assert verdict, verdict


@given(st.sampled_from(LAYERS), st.integers(1, 4), st.integers(0, 12))
@settings(max_examples=40, deadline=None)
def test_the_slices_are_those_of_the_code(
    layer: tuple[int, int, int], taps: int, more: int
) -> None:
    stride, padding, dilation = layer
    pixels = max(dilation * (taps - 1) + 1 - 2 * padding, 1) + more
    outputs = (pixels + 2 * padding - dilation * (taps - 1) - 1) // stride + 1
    own = MeetingAxis(pixels, outputs, taps, stride, padding, dilation)
    reads: list[tuple[int, int]] = []
    for tap in range(taps):
        at, of = own.meeting(tap)
        pairs = zip(
            range(*at.indices(outputs)), range(*of.indices(pixels)), strict=True
        )
        reads += [(o, h, tap) for o, h in pairs]
    ones = run(
        read(sliced(*layer)),
        {"H": pixels, "P": outputs, "R": taps},
        lambda array, index: 1,
    )
    counts = [sum(o == each for o, *_ in reads) for each in range(outputs)]
    assert [ones["Y", (o,)] for o in range(outputs)] == counts
    assert all(h == stride * o - padding + dilation * r for o, h, r in reads)


# Lowering to matrices.


@given(
    st.sampled_from(LAYERS),
    st.integers(1, 2),
    st.integers(1, 3),
    st.sampled_from([1, 2]),
    st.sampled_from(list(Product)),
)
@settings(max_examples=12, deadline=None)
def test_the_matrices_of_the_proof_are_those_of_the_code(
    layer: tuple[int, int, int], batch: int, channels: int, groups: int, kind: Product
) -> None:
    stride, padding, dilation = layer
    shape = Conv2dGeometry(
        batch, channels * groups, 11, 6, 2 * groups, kernel=(3, 2),
        stride=(stride, 1), padding=(padding, 1), dilation=(dilation, 2), groups=groups,
    )  # fmt: skip
    draw = torch.Generator().manual_seed(stride + 10 * channels)
    first, second = (
        torch.randint(-9, 10, shape.shape_of(name), generator=draw)
        for name in kind.operands
    )
    given = dict(zip(kind.operands, (first, second), strict=True))
    names = {"X": "input", "W": "weight", "Y": "grad_output"}

    def load(array: str, index: tuple[int, ...]) -> int:
        return int(given[names[array]][index])

    from elision.verify.products import sizes_of

    sizes = sizes_of(shape)
    program = read(unfolded(kind, shape))
    memory = run(program, sizes, load)
    a, b = matrices(LayerProduct(kind, shape, first, second))
    if kind is not Product.INPUT_GRAD:  # its X is not unfolded but its result folded
        unfolded_x = a if kind is Product.FORWARD else a.swapaxes(1, 2)
        for (array, index), value in memory.items():
            if array == "U":
                at = index if groups > 1 else (0, *index)
                assert unfolded_x[at] == value
    result = fold_result(a @ b, kind, shape)
    name = {v: k for k, v in names.items()}[kind.absent]
    for (array, index), value in memory.items():
        if array == name:
            assert result[index] == value


@pytest.mark.parametrize(("stride", "padding", "dilation"), LAYERS)
def test_the_dense_kernel_gathers_the_input_gradient(
    stride: int, padding: int, dilation: int
) -> None:
    # native/kernels/direct.cpp, phase_of: taps from the last to the first.
    gathered = f"""
{assumed(stride, padding, dilation)}
for h in range(H):
    X[h] = 0
for phase in range({stride}):
    for back in range(R):
        at = phase + {padding} - {dilation} * (R - 1 - back)
        if at % {stride} == 0:
            for i in range((H - phase + {stride - 1}) // {stride}):
                o = i + at // {stride}
                if 0 <= o < P:
                    X[phase + {stride} * i] += Y[o] * W[R - 1 - back]
"""
    source = SOURCE.with_name("direct.cpp").read_text()
    assert "phase + v.padding[axis] - tap * v.dilation[axis]" in source
    assert "for (int64_t tap = v.taps[axis] - 1; tap >= 0; --tap)" in source
    specification = definition(Product.INPUT_GRAD, stride, padding, dilation)
    verdict = equivalent(gathered, specification)
    assert verdict.status == "proved", verdict
    wrong = gathered.replace("W[R - 1 - back]", "W[back]")
    assert equivalent(wrong, specification).status == "refuted"


CHUNKS = """
assume C >= 1
for k in range(K):
    for c in range(C):
        if c == 0:
            Y[k] = 0
        for i in range(4):
            Y[k] += X[c, i] * W[k, c, i]
        if c == C - 1:
            Y[k] = relu(Y[k] + B[k])
"""

THEN = """
assume C >= 1
for k in range(K):
    S[k] = 0
    for c in range(C):
        for i in range(4):
            S[k] += X[c, i] * W[k, c, i]
    Y[k] = relu(S[k] + B[k])
"""


def test_what_follows_a_sum_is_done_at_its_last_chunk() -> None:
    source = SOURCE.with_name("direct.cpp").read_text()
    assert "part + 1 == parts && any ? &post : nullptr" in source
    verdict = equivalent(CHUNKS, THEN, outputs=("Y",))
    assert verdict.status == "proved", verdict
    always = CHUNKS.replace("if c == C - 1:", "if c >= 0:")
    assert equivalent(always, THEN, outputs=("Y",)).status == "refuted"
    single = ("assume C == 1\n" + text for text in (always, THEN))
    assert equivalent(*single, outputs=("Y",)).status == "proved"
