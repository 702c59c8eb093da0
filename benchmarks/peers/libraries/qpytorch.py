"""QPyTorch: float32 rounded to narrow formats (Zhang et al., 2019)."""

import importlib
from collections.abc import Iterator

import torch

from benchmarks.peers.base import OURS, Agreement, Peer, Work
from elision.formats import FORMATS, native

#: Name here, exponent and mantissa bits there.
FLOATS = (("fp8-e5m2", 5, 2), ("fp8-e4m3", 4, 3), ("bf16", 8, 7))


def works(small: bool) -> Iterator[Work]:
    """A tensor of normally distributed values, rounded to nearest."""
    quant = importlib.import_module("qtorch.quant")
    count = 1 << (12 if small else 20)
    x = torch.randn(count, generator=torch.Generator().manual_seed(0))
    for name, exponent, mantissa in FLOATS:
        form = FORMATS[name]

        def ours(form=form):
            return native.rounded(x, form, "nearest")

        def theirs(exponent=exponent, mantissa=mantissa):
            return quant.float_quantize(x, exponent, mantissa, rounding="nearest")

        here, there = ours(), theirs()
        assert here is not None
        step = 2.0**-mantissa  # of a value between 1 and 2
        normal = x.abs() >= 2.0 ** (2 - 2 ** (exponent - 1))
        # Of float32's 23 bits of mantissa those that are rounded off say one half.
        rounded_off = x.view(torch.int32) & ((1 << 23 - mantissa) - 1)
        halfway = rounded_off == 1 << 22 - mantissa
        compared = normal & ~halfway
        off = (here - there)[compared].abs() / x[compared].abs()
        yield Work(
            f"{count:,} normally distributed values to {name}, to nearest",
            {OURS: ours, "QPyTorch": theirs, "a copy": x.clone},
            (
                Agreement(
                    "normal numbers of the format, values halfway between two left out; "
                    "difference in steps of the mantissa",
                    (off.max() / step).item(),
                    0.0,
                ),
            ),
            f"{(here != there).float().mean().item():.1e} of the values: those below the "
            "smallest normal number of the format, and those halfway between two, which "
            "go to the even one here and away from zero there",
        )


PEER = Peer(
    "QPyTorch",
    "emulated number formats",
    works,
    requirements=("qtorch", "ninja"),
    distribution="qtorch",
)
