"""The three products of a convolution as programs, for all sizes.

Sizes: batch N, channels C and filters K of a group, groups G, rows H and columns V of the
input, R and S of the filter, P and Q of the output, which follow from the others. Stride,
padding and dilation are numbers. A matrix product is the 1x1 convolution of images of one
pixel.

:func:`definition` is the specification. :func:`unfolded` computes by matrices (im2col and
its adjoint), :func:`blocked` in blocks of channels, filters and pixels, both as the
kernels and machines of the library do; :func:`gathered` is the input gradient pixel by
pixel.
"""

from collections.abc import Mapping
from textwrap import dedent, indent

from elision.common.checks import integer
from elision.products import Conv2dGeometry, Product

__all__ = ["blocked", "definition", "gathered", "sizes_of", "unfolded"]

#: Arrays of the products and their subscripts.
_ARRAYS = {
    "input": ("X", "n, g * C + c, h, v"),
    "weight": ("W", "g * K + k, c, r, s"),
    "grad_output": ("Y", "n, g * K + k, p, q"),
}

_RESULTS = {
    "input": ("X", "N", "G * C", "H", "V"),
    "weight": ("W", "G * K", "C", "R", "S"),
    "grad_output": ("Y", "N", "G * K", "P", "Q"),
}


def sizes_of(geometry: Conv2dGeometry) -> dict[str, int]:
    """Value of every size for one layer.

    Example:
        >>> sizes_of(Conv2dGeometry(1, 4, 9, 9, 8, kernel=3, groups=2))["K"]
        4
    """
    g = geometry.groups
    return {
        "N": geometry.batch,
        "C": geometry.in_channels // g,
        "K": geometry.out_channels // g,
        "G": g,
        "H": geometry.height,
        "V": geometry.width,
        "R": geometry.kernel[0],
        "S": geometry.kernel[1],
        "P": geometry.out_height,
        "Q": geometry.out_width,
    }


def definition(kind: Product, geometry: Conv2dGeometry) -> str:
    """A product by its definition: every meeting of pixel, tap and output, added up.

    Args:
        kind: the product.
        geometry: of which stride, padding and dilation count; the sizes stay symbols,
            but for groups: of more than one, C and K are numbers, too.

    Example:
        >>> from elision.verify import equivalent
        >>> layer = Conv2dGeometry(1, 3, 8, 8, 16, kernel=3, stride=2, padding=1)
        >>> forward = definition(Product.FORWARD, layer)
        >>> print(equivalent(blocked(Product.FORWARD, layer), forward).status)
        proved
    """
    return _program(kind, geometry, _nested(["n", "k", "p", "q", "c", "r", "s"]))


def blocked(
    kind: Product, geometry: Conv2dGeometry, channels: int = 16, pixels: int = 7
) -> str:
    """A product in blocks, as direct convolutions compute it.

    Args:
        kind: the product.
        geometry: as of :func:`definition`.
        channels: channels, and filters, of a block; one vector.
        pixels: output columns of a block; they stay in registers.

    The order of the loops is that of E. Georganas et al., Anatomy of high-performance
    deep learning convolutions on SIMD architectures (SC 2018).
    """
    channels = integer("blocked", "channels", channels)
    pixels = integer("blocked", "pixels", pixels)
    loops = [
        "for n in range(N):",
        f"for kb in range(0, K, {channels}):",
        f"for cb in range(0, C, {channels}):",
        "for p in range(P):",
        f"for qb in range(0, Q, {pixels}):",
        "for r in range(R):",
        "for s in range(S):",
        f"for q in range(qb, min(qb + {pixels}, Q)):",
        f"for k in range(kb, min(kb + {channels}, K)):",
        f"for c in range(cb, min(cb + {channels}, C)):",
    ]
    return _program(kind, geometry, loops)


def gathered(geometry: Conv2dGeometry) -> str:
    """The input gradient pixel by pixel: what the stride divides, the taps rotated."""
    (ty, tx), (dy, dx) = geometry.stride, geometry.dilation
    (py, px) = geometry.padding
    body = f"""
    a = h + {py} - {dy} * r
    b = v + {px} - {dx} * s
    if a % {ty} == 0 and b % {tx} == 0:
        p = a // {ty}
        q = b // {tx}
        if 0 <= p < P and 0 <= q < Q:
            X[{_ARRAYS["input"][1]}] += {_read("grad_output")} * {_read("weight")}
    """
    loops = _nested(["n", "c", "h", "v", "k", "r", "s"])
    return _head(geometry) + _zeros("input", geometry) + _stacked(geometry, loops, body)


def unfolded(kind: Product, geometry: Conv2dGeometry) -> str:
    """A product by matrices of N·P·Q rows and C·R·S columns, for each group.

    ``U[m, j]`` holds the pixel that output pixel m meets at weight j, or 0 in the
    padding; the input gradient is folded back by adding.

    Args:
        kind: the product.
        geometry: as of :func:`definition`; P, Q, R and S must be given as numbers, since
            rows and columns are divided by them (:func:`sizes_of`).
    """
    split = """
    n = m // (P * Q)
    p = m // Q % P
    q = m % Q
    c = j // (R * S)
    r = j // S % R
    s = j % S
    """
    split = dedent(split).strip()
    meet = f"{split}\n{_meeting(geometry)}"
    rows, columns = "for m in range(N * P * Q):", "for j in range(C * R * S):"
    product = {
        Product.FORWARD: "Z[g, m, k] += U[g, m, j] * W[g * K + k, c, r, s]",
        Product.INPUT_GRAD: "Z[g, m, j] += Y[n, g * K + k, p, q] * W[g * K + k, c, r, s]",
        Product.WEIGHT_GRAD: "Z[g, j, k] += U[g, m, j] * Y[n, g * K + k, p, q]",
    }[kind]
    free, summed = {
        Product.FORWARD: ([rows, "for k in range(K):"], columns),
        Product.INPUT_GRAD: ([rows, columns], "for k in range(K):"),
        Product.WEIGHT_GRAD: ([columns, "for k in range(K):"], rows),
    }[kind]
    parts = [_head(geometry)]
    if kind is not Product.INPUT_GRAD:
        copy = """
        U[g, m, j] = 0
        if 0 <= h < H and 0 <= v < V:
            U[g, m, j] = X[n, g * C + c, h, v]
        """
        parts.append(_stacked(geometry, [rows, columns], meet + "\n" + dedent(copy)))
    target = product.partition(" +=")[0]
    parts.append(_stacked(geometry, free, f"{target} = 0"))
    parts.append(_stacked(geometry, [*free, summed], f"{split}\n{product}"))
    if kind is Product.FORWARD:
        put = f"{split}\nY[n, g * K + k, p, q] = Z[g, m, k]"
        put = "\n".join(x for x in put.splitlines() if "j" not in x)
        parts.append(_stacked(geometry, free, put))
    elif kind is Product.WEIGHT_GRAD:
        put = f"{split}\nW[g * K + k, c, r, s] = Z[g, j, k]"
        put = "\n".join(x for x in put.splitlines() if " m" not in x)
        parts.append(_stacked(geometry, free, put))
    else:
        fold = "if 0 <= h < H and 0 <= v < V:\n    X[n, g * C + c, h, v] += Z[g, m, j]"
        parts.append(_zeros("input", geometry))
        parts.append(_stacked(geometry, free, f"{meet}\n{fold}"))
    return "".join(parts)


def _nested(loops: list[str]) -> list[str]:
    extents = dict(zip("nkpqcrshv", "NKPQCRSHV", strict=True))
    return [f"for {x} in range({extents[x]}):" for x in loops]


def _read(operand: str) -> str:
    array, at = _ARRAYS[operand]
    return f"{array}[{at}]"


def _head(geometry: Conv2dGeometry) -> str:
    """What is known of the sizes: P and Q follow, and the filter fits the image."""
    found = ""
    axes = zip(
        "HV",
        "RS",
        "PQ",
        geometry.stride,
        geometry.padding,
        geometry.dilation,
        strict=True,
    )
    for size, taps, outputs, stride, padding, dilation in axes:
        reach = f"{size} + {2 * padding} - {dilation} * ({taps} - 1) - 1"
        found += f"assume {reach} >= 0\nassume {outputs} == ({reach}) // {stride} + 1\n"
    return found


def _meeting(geometry: Conv2dGeometry) -> str:
    """The pixel that an output and a tap meet."""
    (ty, tx), (dy, dx) = geometry.stride, geometry.dilation
    (py, px) = geometry.padding
    return f"h = {ty} * p + {dy} * r - {py}\nv = {tx} * q + {dx} * s - {px}"


def _stacked(geometry: Conv2dGeometry, loops: list[str], body: str) -> str:
    """Loops around a body; groups are the outermost loop, or none."""
    text = dedent(body).strip()
    if geometry.groups == 1:
        text = text.replace("g * C + ", "").replace("g * K + ", "").replace("[g, ", "[")
    else:
        loops = ["for g in range(G):", *loops]
    for loop in reversed(loops):
        text = f"{loop}\n{indent(text, '    ')}"
    return text + "\n"


def _zeros(result: str, geometry: Conv2dGeometry) -> str:
    array, *extents = _RESULTS[result]
    if geometry.groups == 1:
        extents = [e.removeprefix("G * ") for e in extents]
    loops = [f"for z{n} in range({e}):" for n, e in enumerate(extents)]
    text = f"{array}[{', '.join(f'z{n}' for n in range(4))}] = 0"
    for loop in reversed(loops):
        text = f"{loop}\n{indent(text, '    ')}"
    return text + "\n"


def _program(kind: Product, geometry: Conv2dGeometry, loops: list[str]) -> str:
    result = kind.absent
    first, second = kind.operands
    body = f"""
    if 0 <= h < H and 0 <= v < V:
        {_read(result)} += {_read(first)} * {_read(second)}
    """
    body = _meeting(geometry) + dedent(body)
    return _head(geometry) + _zeros(result, geometry) + _stacked(geometry, loops, body)


#: Sizes that :func:`unfolded` divides by.
DIVISORS = ("P", "Q", "R", "S")


def fixed(geometry: Conv2dGeometry, names: tuple[str, ...]) -> Mapping[str, int]:
    """Values of some sizes, and of all channels where there are groups."""
    sizes = sizes_of(geometry)
    if geometry.groups > 1:
        names = (*names, "G", "C", "K")
    return {name: sizes[name] for name in names}
