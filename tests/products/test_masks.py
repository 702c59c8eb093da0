"""Masks of non-zeros: in chunks as whole, whatever the memory order."""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from elision.products import masks
from elision.products.masks import nonzero_mask

VALUES = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5) % 4 * 0.5

FORMS = {
    "contiguous": VALUES,
    "transposed": VALUES.transpose(0, 3),
    "strided": VALUES[:, :, ::2, 1:],
    "expanded": VALUES[:1].expand(4, 3, 4, 5),
    "one image": VALUES[:1, :, :, ::2],
    "scalar": VALUES[0, 0, 0, 1],
    "empty": VALUES[:0],
}


@pytest.mark.parametrize("chunk", [1, 7, 16, 1 << 22])
@pytest.mark.parametrize("form", FORMS)
def test_chunks_make_the_whole_mask(
    form: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masks, "_CHUNK", chunk)
    for value in (FORMS[form], FORMS[form].numpy()):
        mask = nonzero_mask("it", value)
        assert mask.dtype == bool
        assert np.array_equal(mask, FORMS[form].numpy() != 0)


@pytest.mark.parametrize("chunk", [1, 7, 1 << 22])
@pytest.mark.parametrize("at", [0, 60, 119])
def test_a_value_that_is_not_finite_is_found_in_any_chunk(
    at: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masks, "_CHUNK", chunk)
    values = VALUES.clone()
    values.view(-1)[at] = torch.nan
    for value in (values, values.numpy(), values.transpose(0, 2)):
        with pytest.raises(ValueError, match="it holds a NaN or an infinity"):
            nonzero_mask("it", value)


def test_a_tensor_without_memory_is_named() -> None:
    with FakeTensorMode():
        fake = torch.empty(2, 3)
    for value, said in (
        (fake, "it: its values cannot be read: "),
        (torch.empty(2, 3, device="meta"), "it is on the meta device"),
        (np.array([["a"]]), "it has no numbers, its dtype is <U1"),
    ):
        with pytest.raises(ValueError, match=said):
            nonzero_mask("it", value)


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64]
)
def test_subnormal_numbers_are_no_zeros_in_a_thread_that_flushes_them(
    dtype: torch.dtype,
) -> None:
    tiny = torch.finfo(dtype).smallest_normal / 4
    values = torch.tensor([0.0, -0.0, tiny, -tiny, 1.0], dtype=dtype)
    expected = np.array([False, False, True, True, True])
    given = [values, values * 1j if dtype.itemsize > 2 else values]
    if dtype is not torch.bfloat16:
        array = values.numpy()
        given += [array, array.astype(array.dtype.newbyteorder(">")), array + 0j]
    assert torch.set_flush_denormal(True)
    try:
        for value in given:
            assert np.array_equal(nonzero_mask("it", value), expected)
    finally:
        torch.set_flush_denormal(False)
