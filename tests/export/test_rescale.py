import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elision.export.rescale import Rescale

FACTORS = st.floats(2.0**-40, 2.0**20)
SUMS = st.integers(-(2**31), 2**31 - 1)


@given(FACTORS, SUMS)
def test_a_rescaled_sum_is_the_rounded_product(factor: float, total: int) -> None:
    rescale = Rescale.of(torch.tensor([factor], dtype=torch.float64))
    found = int(rescale(torch.tensor([total]))[0])
    # The mantissa is off by 2^-31 of the factor at most, and by 2^-63 below that.
    slack = abs(total) * (factor * 2.0**-31 + 2.0**-62)
    assert abs(found - total * factor) <= 0.5 + slack


@given(FACTORS, SUMS)
def test_rounding_is_of_the_factor_that_is_kept(factor: float, total: int) -> None:
    rescale = Rescale.of(torch.tensor([factor], dtype=torch.float64))
    mantissa, shift = int(rescale.mantissa[0]), int(rescale.shift[0])
    assert 1 <= shift <= 62
    assert -(2**31) <= mantissa < 2**31
    exact = (total * mantissa + (1 << (shift - 1))) // (1 << shift)
    assert int(rescale(torch.tensor([total]))[0]) == exact


def test_a_mantissa_that_carries_stays_within_int32() -> None:
    below = torch.tensor([1 - 2.0**-40], dtype=torch.float64)
    for rescale in (Rescale.of(below), Rescale.shared(below)):
        assert float(rescale.factors[0]) == 1.0


def test_one_shift_serves_all_of_a_sum() -> None:
    factors = torch.tensor([1.7, 0.001], dtype=torch.float64)
    shared = Rescale.shared(factors)
    assert len(set(shared.shift.tolist())) == 1
    assert torch.allclose(shared.factors, factors, rtol=0, atol=2.0**-30)


@pytest.mark.parametrize("factor", [0.0, -1.0, 2.0**30, float("nan")])
def test_a_factor_out_of_range_is_refused(factor: float) -> None:
    with pytest.raises(ValueError, match=r"in \(0, 2\^30\)"):
        Rescale.of(torch.tensor([factor]))
