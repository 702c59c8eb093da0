"""Compressors as functions on tensors: all ranks in one process."""

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from elision.engines.native import library
from elision.formats import format_named, round
from elision.training.parallel import (
    COMPRESSORS,
    Compressor,
    Feedback,
    Message,
    State,
    emulate,
    make_compressor,
    wire_bits,
)
from elision.training.parallel.compressors import halves, top_k
from elision.training.parallel.compressors.places import (
    pack_places,
    place_bits,
    unpack_places,
)

#: One spec for every compressor and way; DGC without momentum adds up as the others do.
SPECS = (
    *(name for name in COMPRESSORS if name != "dgc"),
    *("dgc:momentum=0", "dgc:momentum=0,share=0.1,warmup=5"),
    *("bf16:rounding=stochastic", "int8:rounding=nearest", "int8:block=64"),
    *("fp8:element=e5m2", "top-k:share=0.3,threshold=exact", "random-k:unbiased=true"),
    *(
        "qsgd:width=2",
        "qsgd:width=8,block=0",
        "terngrad:clip=2.5",
        "powersgd:warm=false",
    ),
)
UNBIASED = [s for s in SPECS if make_compressor(s).guarantee == "unbiased"]
SHAPES = st.sampled_from([(1,), (7,), (300,), (12, 9), (40, 3, 3, 3), (70, 65)])


def whole_numbers(shape: Sequence[int], seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(-8, 9, tuple(shape), generator=random).float()


def states(ranks: int, **given) -> list[State]:
    return [State(name="w", rank=r, ranks=ranks, **given) for r in range(ranks)]


def remembering(spec: str) -> Compressor:
    made = make_compressor(spec)
    exact = made.guarantee == "exact"
    return made if made.remembers or exact else Feedback(made)


@settings(max_examples=12, deadline=None)
@given(SHAPES, st.integers(1, 3), st.integers(0, 99))
@pytest.mark.parametrize("spec", SPECS)
def test_what_was_applied_and_what_is_remembered_are_the_gradients(
    spec: str, shape: tuple[int, ...], ranks: int, seed: int
) -> None:
    compressor, kept = remembering(spec), states(ranks)
    total, applied = torch.zeros(shape), torch.zeros(shape)
    for step in range(4):
        grads = [
            whole_numbers(shape, 1000 * seed + 10 * step + r) for r in range(ranks)
        ]
        total += sum(grads) / ranks
        found, shares = emulate(compressor, grads, kept)
        assert torch.allclose(sum(shares) / ranks, found, atol=1e-4, rtol=1e-5)
        applied += found
    memories = [s.tensors.get("memory", torch.zeros(shape)) for s in kept]
    remembered = sum(m.view(shape) for m in memories) / ranks
    # Whole numbers are exact in every message but for scales and factors. What is sent
    # and cancelled later (an unbiased random-k under feedback grows) rounds as float32.
    largest = max(1, applied.abs().max().item(), remembered.abs().max().item())
    assert (applied + remembered - total).abs().max() <= 1e-5 * largest
    assert all(s.step == 4 for s in kept)


@settings(max_examples=8, deadline=None)
@given(SHAPES, st.integers(0, 99))
@pytest.mark.parametrize("spec", SPECS)
def test_bits_sent_are_those_of_the_formula(
    spec: str, shape: tuple[int, ...], seed: int
) -> None:
    compressor, state = make_compressor(spec), State(name="w")
    if spec == "mask":
        state.mask = whole_numbers(shape, seed + 1) > 2
    for step in range(3):
        formula = compressor.bits(shape, state)
        message = compressor.compress(whole_numbers(shape, seed + step), state)
        assert message.bits == formula
        assert compressor.decompress(message).shape == shape


def test_formulas_are_the_published_ones() -> None:
    n, a, b = 65_536, 256, 256
    expected = {
        "fp32": 32 * n,
        "bf16": 16 * n,
        "fp16": 16 * n,
        "int8": 8 * n + 32,
        "int8:block=256": 8 * n + 32 * 256,
        "dfp16": 16 * n + 8,
        "random-k:share=0.01": 32 * 656,
        "qsgd:width=4,block=512": 4 * n + 32 * 128,
        "terngrad": 2 * n + 32,
        "sign": n + 32,
        "powersgd:rank=4": 32 * 4 * (a + b),
        "top-k:share=0.01": 656 * (32 + 8) + 16 * 256,
        "dgc:share=0.001": 66 * (32 + 16) + 32,
    }
    for spec, bits in expected.items():
        assert make_compressor(spec).bits((a, b)) == bits, spec
    # 26 MB at 0.1 %: the ratio that the index coding decides.
    assert 32 * 25_000_000 / make_compressor("dgc").bits((25_000_000,)) > 650


@pytest.mark.parametrize("spec", UNBIASED)
def test_the_mean_of_many_messages_is_the_tensor(spec: str) -> None:
    compressor, state = make_compressor(spec), State(name="w")
    x = torch.randn(6, 11, generator=torch.Generator().manual_seed(5))
    drawn = torch.stack(
        [compressor.decompress(compressor.compress(x, state)) for _ in range(600)]
    )
    error = drawn.mean(0) - x
    # Six standard deviations of the mean, of the value with the most noise, and float32.
    assert error.abs().max() <= 6 * drawn.std(0).max() / math.sqrt(600) + 1e-6
    assert drawn.std(0).max() > 0


@pytest.mark.parametrize("name", [n for n in COMPRESSORS if n not in ("fp32", "mask")])
def test_a_declared_bias_is_there(name: str) -> None:
    """Biased: a tensor whose message is another one, however often it is sent."""
    compressor = COMPRESSORS[name]()
    if compressor.guarantee != "biased":
        assert name in {"fp8", "int8", "dfp16", "qsgd", "terngrad"}
        return
    x = torch.full((40, 40), 1 / 3)
    x[0] = 0.7
    if name == "powersgd":
        x = torch.randn(40, 40, generator=torch.Generator().manual_seed(1))
    drawn = [compressor.decompress(compressor.compress(x, State())) for _ in range(9)]
    assert not torch.allclose(torch.stack(drawn).mean(0), x, rtol=1e-7, atol=1e-7)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(0, 99))
def test_power_sgd_reproduces_a_matrix_of_its_rank(rank: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    left, right = (torch.randn(n, rank, generator=random) for n in (50, 30))
    tensors = [left @ right.T, 2 * left @ right.T]
    found, _ = emulate(COMPRESSORS["powersgd"](rank=rank), tensors, states(2))
    error = (found - 1.5 * tensors[0]).norm()
    # float32, times what the condition of a square random factor may cost.
    assert error <= 1e-3 * tensors[0].norm()


def test_a_warm_start_comes_closer_from_step_to_step() -> None:
    x = torch.randn(60, 50, generator=torch.Generator().manual_seed(0))
    best = torch.linalg.svdvals(x)[2:].norm()
    compressor, state, errors = COMPRESSORS["powersgd"](rank=2), State(), []
    for _ in range(60):
        sent = compressor.decompress(compressor.compress(x, state))
        errors.append((x - sent).norm())
    assert errors[-1] < errors[5] < errors[0]
    assert errors[-1] < 1.01 * best


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 2000), st.floats(0.001, 1), st.integers(0, 9))
def test_random_places_are_distinct_and_those_of_every_rank(
    size: int, share: float, step: int
) -> None:
    compressor = COMPRESSORS["random-k"](share=share)
    drawn = []
    for state in states(3, step=step):
        drawn.append(compressor.compress(torch.ones(size), state).places)
    assert all(torch.equal(drawn[0], other) for other in drawn[1:])
    assert len(drawn[0].unique()) == len(drawn[0]) == max(1, math.ceil(share * size))
    assert 0 <= drawn[0].min() <= drawn[0].max() < size


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200_000), st.floats(0, 1), st.integers(0, 9))
def test_places_come_back_in_the_bits_counted(
    size: int, share: float, seed: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    count = max(1, int(share * size))
    places = torch.randperm(size, generator=random)[:count].sort().values
    parts = pack_places(places, size)
    assert torch.equal(unpack_places(parts), places)
    assert Message(parts, torch.Size([size])).bits == place_bits(count, size)
    assert place_bits(count, size) <= 32 * count


@pytest.mark.parametrize("share", [0.001, 0.01, 0.3, 1.0])
@pytest.mark.parametrize("kind", ["normal", "ties", "zeros"])
@pytest.mark.parametrize("native", [True, False])
def test_a_sampled_threshold_chooses_the_largest(
    share: float, kind: str, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not native:
        monkeypatch.setattr(top_k, "unavailable", lambda: "no compiler")
    x = torch.randn(300, 700, generator=torch.Generator().manual_seed(3))
    x = {"normal": x, "ties": x.sign(), "zeros": x * (x > 3)}[kind]
    exact, sampled = (
        COMPRESSORS["top-k"](share=share, threshold=t).compress(x, State())
        for t in ("exact", "sampled")
    )
    magnitudes = [m.parts[0].abs().sort().values for m in (exact, sampled)]
    assert torch.equal(*magnitudes)
    if kind == "normal":
        top = COMPRESSORS["top-k"]()
        assert torch.equal(top.decompress(exact), top.decompress(sampled))


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 900), st.integers(0, 99), st.sampled_from([-20, 0, 12]))
@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("int8:rounding=nearest", "int8"),
        ("int8:rounding=nearest,block=64", "int8:block=64"),
        ("fp8:rounding=nearest", "scaled(fp8-e4m3)"),
        ("fp8:rounding=nearest,element=e5m2", "scaled(fp8-e5m2)"),
        ("dfp16:rounding=nearest", "dfp16"),
    ],
)
def test_what_arrives_is_what_the_format_rounds_to(
    spec: str, name: str, size: int, seed: int, exponent: int
) -> None:
    x = torch.randn(size, generator=torch.Generator().manual_seed(seed)) * 2.0**exponent
    compressor = make_compressor(spec, feedback=False)
    found = compressor.decompress(compressor.compress(x, State()))
    assert torch.equal(found, round(x, name))
    assert torch.equal(found, format_named(name).round(x))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3000), st.floats(0, 1), st.integers(0, 9), st.booleans())
def test_native_places_are_those_of_topk(
    size: int, share: float, seed: int, tied: bool
) -> None:
    if reason := library.unavailable():
        pytest.skip(reason)
    x = torch.randn(size, generator=torch.Generator().manual_seed(seed))
    x = x.mul(20).round() if tied else x
    count = max(1, int(share * size))
    places = library.largest_places(x, count)
    if places is None:
        assert tied
        return
    assert len(places) == count
    assert (places.diff() > 0).all()
    largest = x.abs().topk(count).values.sort().values
    assert torch.equal(x[places].abs().sort().values, largest)


def test_votes_are_counted() -> None:
    tensors = [torch.tensor([s * 3.0, 1.0, -1.0]) for s in (1, -1, -1)]
    found, shares = emulate(COMPRESSORS["sign"](), tensors, states(3))
    assert torch.allclose(found, torch.tensor([-1.0, 1.0, -1.0]) * 5 / 3)
    assert all(torch.equal(found, share) for share in shares)


def test_dgc_with_momentum_sends_what_momentum_would_have_applied() -> None:
    compressor, state = (
        COMPRESSORS["dgc"](share=0.1, momentum=0.5, masking=False),
        State(),
    )
    velocity, applied, owed = (torch.zeros(200) for _ in range(3))
    for step in range(6):
        grad = whole_numbers((200,), step)
        velocity = 0.5 * velocity + grad
        owed += velocity
        applied += compressor.decompress(compressor.compress(grad, state))
    assert torch.equal(applied + state.tensors["memory"], owed)


def test_dgc_clears_the_momentum_of_what_was_sent_and_clips() -> None:
    masked, state = COMPRESSORS["dgc"](share=0.5, momentum=0.5), State()
    masked.compress(torch.tensor([4.0, 1.0]), state)
    assert state.tensors["velocity"].tolist() == [0.0, 1.0]
    clipped = COMPRESSORS["dgc"](share=1.0, momentum=0, clip=1.0)
    sent = clipped.decompress(
        clipped.compress(torch.tensor([3.0, 4.0]), State(ranks=4))
    )
    assert sent.tolist() == pytest.approx([0.3, 0.4])
    small = clipped.decompress(
        clipped.compress(torch.tensor([0.1, 0.0]), State(ranks=4))
    )
    assert small.tolist() == pytest.approx([0.1, 0.0])


def test_the_network_sends_a_ring_or_every_message() -> None:
    part = torch.zeros(100)
    assert wire_bits(Message((part,), part.shape, summed=True), 4) == 3200 * 2 * 3 / 4
    assert wire_bits(Message((part,), part.shape), 4) == 3200 * 3


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("topk", "did you mean 'top-k'.*known: fp32, bf16, fp16"),
        ("top-k:share=0", r"TopK\(share=0.0\): must be a number in \(0, 1\]"),
        ("top-k:part=0.1", "unknown parameter of compressor 'top-k' 'part'"),
        ("qsgd:width=3", r"QSGD\(width=3\): must be 2 or 4 or 8"),
        ("powersgd:rank=0", r"PowerSGD\(rank=0\)"),
        ("int8:rounding=up", "must be 'stochastic' or 'nearest'"),
    ],
)
def test_bad_specs_are_refused(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_compressor(spec)


def test_a_second_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="remembers by itself"):
        make_compressor("dgc", feedback=True)
    with pytest.raises(ValueError, match="leaves nothing to remember"):
        make_compressor("mask", feedback=True)


def plainly_narrowed(values: Tensor, memory: Tensor | None, most: float, dtype):
    """What is sent and what is left, by torch alone."""
    whole = values if memory is None else values + memory
    sent = whole.to(dtype).clamp(-most, most)
    return sent, whole - sent.float()


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([1, 5, 16, 4097, 40_000]),
    st.sampled_from([1.0, 1e-7, 6e-8, 1e6, 1e-40]),
    st.booleans(),
    st.sampled_from([math.inf, math.nan, 0.0]),
    st.integers(0, 99),
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("native", [True, False])
def test_halves_and_what_they_leave_are_torchs(
    native: bool,
    dtype: torch.dtype,
    size: int,
    scale: float,
    some: bool,
    odd: float,
    seed: int,
) -> None:
    if native and (reason := library.unavailable()):
        pytest.skip(reason)
    random = torch.Generator().manual_seed(seed)
    x, memory = torch.randn(2, size, generator=random) * scale
    x[seed % size] = odd
    memory = memory if some else None
    most = 32752.0 if dtype == torch.float16 else math.inf
    sent = torch.empty(size, dtype=dtype)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(halves, "_NATIVE", 0 if native else math.inf)
        left, finite = halves.narrowed(x, memory, sent, most, keep=True)
        ranks = 2 + seed % 3
        mean = halves.widened(sent, ranks, torch.empty(size))
    expected, owed = plainly_narrowed(x, memory, most, dtype)
    assert left is not None
    assert finite == math.isfinite(odd)
    for mine, other in (
        (sent, expected),
        (left, owed),
        (mean, expected.float() / ranks),
    ):
        assert torch.equal(mine.isnan(), other.isnan())
        assert torch.equal(mine.nan_to_num(7), other.nan_to_num(7))


@pytest.mark.parametrize("ranks", [1, 2, 3, 5, 7, 16, 100])
def test_a_sum_of_the_largest_halves_is_finite(ranks: int) -> None:
    tensors = [torch.full((3,), 1e6) for _ in range(ranks)]
    found, _ = emulate(COMPRESSORS["fp16"](), tensors, states(ranks))
    assert found.isfinite().all()
    # Each of the additions rounds to one part in 2048.
    assert (found > 0.95 * 65504 / ranks).all()


@pytest.mark.parametrize("spec", ["fp16", "bf16", "powersgd:rank=2"])
@pytest.mark.parametrize("shape", [(9, 7), (5,), (96, 80)])
@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_those_that_look_find_what_is_not_finite(
    spec: str, shape: tuple[int, ...], odd: float
) -> None:
    compressor = make_compressor(spec)
    assert compressor.looks
    for place in (0, 3):
        x = whole_numbers(shape, 1)
        assert next(compressor.exchange(x, State(name="w"))).finite
        x.view(-1)[place] = odd
        assert not next(compressor.exchange(x, State(name="w"))).finite


@pytest.mark.parametrize("spec", SPECS)
def test_what_travels_value_by_value_may_be_sent_as_one(spec: str) -> None:
    compressor, valuewise = make_compressor(spec), spec in ("bf16", "fp16")
    assert compressor.valuewise == valuewise
    one, several = State(name="w"), [State(name="w", step=4) for _ in range(3)]
    for step in range(3 if valuewise else 0):
        x = torch.randn(50, generator=torch.Generator().manual_seed(step))
        whole = emulate(compressor, [x], [one])[0]
        pairs = zip(x.split(20), several, strict=True)
        parts = [emulate(compressor, [p], [s])[0] for p, s in pairs]
        assert torch.equal(whole, torch.cat(parts))
        memories = [s.tensors["memory"] for s in several]
        assert torch.equal(one.tensors["memory"], torch.cat(memories))


@pytest.mark.parametrize("spec", ["fp16", "bf16", "powersgd:rank=2", "top-k"])
@pytest.mark.parametrize("feedback", [False, True])
def test_the_mean_may_be_written_over_the_tensor(spec: str, feedback: bool) -> None:
    """As the hook asks for; with memory for the message that a reply may overwrite."""
    compressor = make_compressor(spec, feedback)
    found = []
    for in_place in (False, True):
        state = State(name="w")
        for step in range(3):
            x = torch.randn(90, 70, generator=torch.Generator().manual_seed(step))
            state.out = x if in_place else None
            found.append(emulate_alone(compressor, x, state).clone())
        found.append(state.tensors.get("memory", torch.zeros(1)))
    for mine, other in zip(found[:4], found[4:], strict=True):
        assert torch.equal(mine, other)


def emulate_alone(compressor: Compressor, x: Tensor, state: State) -> Tensor:
    """One rank; its own message comes back, overwritten where it is added up."""
    running = compressor.exchange(x, state)
    message = next(running)
    while True:
        try:
            message = running.send(message if message.summed else [message])
        except StopIteration as stop:
            return stop.value[0]
