"""Stored forms: every bit of every format flips, and flips back."""

import pytest
import torch

from elision.faults import STORAGES, flip, stored_as
from elision.formats import FORMATS, Coded, format_named

NATIVE = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn,
    torch.float8_e5m2, torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64,
    torch.bool,
]  # fmt: skip


def _bits(x):
    return stored_as(x).parts["values"].words


@pytest.mark.parametrize("dtype", NATIVE, ids=str)
def test_every_bit_of_a_dtype_flips_and_flips_back(dtype):
    x = torch.tensor([[0.0, 1.0, -3.0], [0.1, 100.0, 7.0]]).to(dtype)
    part = stored_as(x).parts["values"]
    for bit in range(part.bits):
        once = flip(x, 4, bit)
        differs = _bits(once) ^ _bits(x)
        assert differs.count_nonzero() == 1
        mask = 1 << bit
        word = int(differs.view(-1)[4]) & (2**part.bits - 1)
        assert word == mask
        assert torch.equal(_bits(flip(once, 4, bit)), _bits(x))


@pytest.mark.parametrize("name", FORMATS)
def test_every_bit_of_a_format_flips_and_flips_back(name):
    torch.manual_seed(0)
    x = stored_as(torch.randn(3, 40), name).values()
    width = format_named(name).bits
    for bit in range(width):
        for index in (0, 57, int(x.abs().argmax())):
            once = flip(x, index, bit, name)
            again = flip(once, index, bit, name)
            assert torch.equal(again, x), (bit, index)
            codes, before = (
                stored_as(x, name).changed("values", i, b).parts["values"].words
                for i, b in (([index], [bit]), ([], []))
            )
            assert (codes ^ before).view(-1)[index] == 1 << bit


@pytest.mark.parametrize(
    "name", [n for n, f in FORMATS.items() if isinstance(f, Coded)]
)
def test_a_flip_equals_the_scalar_reference(name):
    format = FORMATS[name]
    torch.manual_seed(0)
    codes = torch.arange(2**8)
    if format.bits > 8:
        codes = torch.randint(2**format.bits, (64,))
    x = format.decode(codes)
    x = x[x.isfinite()]
    codes = format.encode(x)
    for bit in range(format.bits):
        expected = [
            float(format.decode(torch.tensor(int(c) ^ 1 << bit))) for c in codes
        ]
        after = flip(x, torch.arange(len(x)), torch.tensor(bit), name)
        assert torch.equal(after, torch.tensor(expected).double()) or torch.equal(
            after.nan_to_num(nan=-7.0),
            torch.tensor(expected).double().nan_to_num(nan=-7.0),
        )


@pytest.mark.parametrize("name", ["fp32", "bf16", "fp16", "fp8-e4m3", "fp8-e5m2"])
def test_the_sign_bit_negates(name):
    x = FORMATS[name].round(torch.randn(50))
    after = flip(x, torch.arange(50), FORMATS[name].bits - 1, name)
    assert torch.equal(after, -x)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("format", [None, "int8", "mxfp4", "dfp16", "ternary", "uint8"])
def test_a_storage_holds_the_values_and_every_bit_of_every_part_flips_back(
    storage, format
):
    torch.manual_seed(0)
    x = torch.randn(4, 3, 3, 3)
    x[torch.rand_like(x) < 0.7] = 0
    x[2] = 0
    held = stored_as(x, format, storage)
    golden = held.values()
    kept = x[x != 0]
    if storage != "dense":
        assert torch.equal(golden[x != 0], stored_as(kept, format).values())
        assert not golden[x == 0].any()
    elif format is None:
        assert torch.equal(golden, x)
    for name, part in held.parts.items():
        for bit in range(part.bits):
            for index in (0, part.words.numel() // 2, part.words.numel() - 1):
                once = held.changed(name, [index], [bit])
                once.values()  # never raises, whatever the bit
                again = once.changed(name, [index], [bit])
                assert torch.equal(again.parts[name].words, part.words)
                assert torch.equal(again.values(), golden)


def test_two_flips_of_one_bit_in_one_call_cancel_and_stuck_bits_do_not():
    x = torch.tensor([1.0, 2.0])
    held = stored_as(x)
    assert torch.equal(held.changed("values", [0, 0], [31, 31]).values(), x)
    stuck = held.changed("values", [0, 0, 1], [31, 31, 31], "stuck-at-1")
    assert stuck.values().tolist() == [-1.0, -2.0]
    assert torch.equal(
        stuck.changed("values", [0, 1], [31, 31], "stuck-at-0").values(), x
    )


def test_a_changed_tensor_is_stored_anew():
    x = flip(torch.tensor([1.0, 0.5]), 0, 0, "int8")
    x.mul_(2)
    assert torch.equal(
        flip(flip(x, 1, 3, "int8"), 1, 3, "int8"), stored_as(x, "int8").values()
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: flip(torch.ones(3), 3, 0), r"fault\(index=3\): must be in \[0, 3\)"),
        (lambda: flip(torch.ones(3), 0, 32), r"fault\(bit=32\): must be in \[0, 32\)"),
        (lambda: flip(torch.ones(3), -1, 0), r"fault\(index=-1\)"),
        (lambda: flip(torch.ones(3), 0, 0, "int88"), "unknown"),
        (lambda: stored_as(torch.ones(3), storage="coo"), "unknown storage 'coo'.*csr"),
        (
            lambda: stored_as(torch.ones(3)).changed("scales.0", [0], [0]),
            "unknown part",
        ),
    ],
)
def test_wrong_places_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "x", [torch.ones(2, dtype=torch.complex64), torch.eye(2).to_sparse()]
)
def test_a_tensor_without_plain_words_is_refused(x):
    with pytest.raises(TypeError, match="dense and real"):
        flip(x, 0, 0)
