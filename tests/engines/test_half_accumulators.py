"""Accumulators in halves against additions that are rounded once, as AVX512-FP16 has them."""

import ctypes
import shutil
import subprocess

import pytest
import torch

from elision.engines.accumulating import compute
from elision.formats import FORMATS
from elision.formats.accumulate import Accumulate
from elision.native import builder
from elision.products import LayerProduct, MatmulGeometry, Product

#: 32 sums at once of `terms` products, chunk by chunk; a[t] is one value, b[t] has 32.
SOURCE = """
#include <immintrin.h>
extern "C" void sums(const float* a, const float* b, float* out, int terms, int chunk) {
  __m512 low = _mm512_setzero_ps(), high = low;
  for (int t = 0; t < terms;) {
    __m512h s = _mm512_setzero_ph();
    for (int end = t + chunk < terms ? t + chunk : terms; t < end; ++t) {
      __m256h x = _mm512_cvtxps_ph(_mm512_loadu_ps(b + 32 * t));
      __m256h y = _mm512_cvtxps_ph(_mm512_loadu_ps(b + 32 * t + 16));
      __m512i both = _mm512_inserti64x4(
          _mm512_castsi256_si512((__m256i)x), (__m256i)y, 1);
      s = _mm512_fmadd_ph(_mm512_set1_ph((_Float16)a[t]), (__m512h)both, s);
    }
    __m512i parts = (__m512i)s;
    __m256i first = _mm512_castsi512_si256(parts);
    __m256i second = _mm512_extracti64x4_epi64(parts, 1);
    low = _mm512_add_ps(low, _mm512_cvtxph_ps((__m256h)first));
    high = _mm512_add_ps(high, _mm512_cvtxph_ps((__m256h)second));
  }
  _mm512_storeu_ps(out, low);
  _mm512_storeu_ps(out + 16, high);
}
"""


@pytest.fixture(scope="module")
def hardware(tmp_path_factory):
    if "avx512_fp16" not in builder.cpu_fields().get("flags", "").split():
        pytest.skip("this CPU does not add halves")
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++")
    folder = tmp_path_factory.mktemp("halves")
    source, library = folder / "sums.cpp", folder / "sums.so"
    source.write_text(SOURCE)
    flags = ["-O2", "-shared", "-fPIC", "-mavx512fp16", "-mavx512dq", "-mavx512vl"]
    command = [compiler, *flags, str(source), "-o", str(library)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        pytest.skip("this compiler does not know AVX512-FP16")
    return ctypes.CDLL(str(library)).sums


def drawn(rows, terms):
    """Halves of a positive mean, and their product in float64."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, terms, generator=generator).abs()
    w = torch.randn(32, terms, generator=generator) + 0.2
    x, w = (FORMATS["fp16"].round(v) for v in (x, w))
    return x, w, x.double() @ w.double().mT


def fused_halves(x, w, chunk):
    """Sums of halves whose every addition is rounded once, as the hardware's are."""
    total = torch.zeros(len(x), len(w))
    for first in range(0, x.shape[1], chunk):
        s = torch.zeros(len(x), len(w), dtype=torch.float64)
        for a, b in zip(
            x[:, first : first + chunk].mT, w[:, first : first + chunk].mT, strict=True
        ):
            product = a[:, None].double() * b.double()
            total_odd = to_odd(product, s)
            # One step of a half, subnormal ones included.
            exponent = torch.frexp(total_odd).exponent - 11
            step = torch.ldexp(torch.ones_like(s), exponent.clamp(min=-24))
            s = torch.round(total_odd / step) * step
        total = total + s.float()
    return total


def to_odd(a, b):
    """The float64 sum, its last bit set where it is inexact: no tie can appear."""
    total = a + b
    shadow = total - a
    error = (a - (total - shadow)) + (b - shadow)
    bits = total.view(torch.int64)
    towards = torch.where((error > 0) == (total > 0), 1, -1)
    inexact_even = (error != 0) & (bits & 1 == 0)
    return torch.where(inexact_even, bits + towards, bits).view(torch.float64)


def assert_near(emulated, real, exact):
    """The emulator rounds to float32 on the way, which moves few sums, by one step."""
    errors = [((y - exact).norm() / exact.norm()).item() for y in (real, emulated)]
    assert errors[1] == pytest.approx(errors[0], rel=0.02)
    assert (real != emulated).double().mean() < 0.2


def emulated(x, w, chunk):
    geometry = MatmulGeometry(len(x), x.shape[1], len(w))
    product = LayerProduct(Product.FORWARD, geometry, x, w)
    return compute(product, Accumulate("fp16", chunk))


@pytest.mark.parametrize("chunk", [1024, 128, 8])
def test_fused_additions_make_the_same_errors(chunk):
    x, w, exact = drawn(16, 1024)
    assert_near(emulated(x, w, chunk), fused_halves(x, w, chunk), exact)


@pytest.mark.parametrize("chunk", [1024, 128, 8])
def test_halves_of_the_hardware_make_the_same_errors(hardware, chunk):
    x, w, exact = drawn(16, 1024)
    real, columns = torch.empty(len(x), 32), w.mT.contiguous()
    for row, sums in zip(x, real, strict=True):
        pointers = (row.data_ptr(), columns.data_ptr(), sums.data_ptr())
        hardware(*(ctypes.c_void_p(p) for p in pointers), x.shape[1], chunk)
    assert torch.equal(real, fused_halves(x, w, chunk))
    assert_near(emulated(x, w, chunk), real, exact)
