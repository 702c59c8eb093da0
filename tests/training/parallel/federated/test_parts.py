"""Partitions, secure sums and the account of privacy, each beside closed forms."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elision.common.specs import build
from elision.training.parallel.federated.partitions import PARTITIONS
from elision.training.parallel.federated.privacy import Gaussian
from elision.training.parallel.federated.secure import PairwiseMasks, Seeds
from elision.workloads import load_dataset


@given(
    name=st.sampled_from(sorted(PARTITIONS)),
    clients=st.integers(1, 8),
    count=st.integers(60, 200),
    seed=st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_every_example_has_one_client(
    name: str, clients: int, count: int, seed: int
) -> None:
    labels = np.arange(count) % 7
    kind = build("partition", f"{name}:clients={clients}", PARTITIONS)
    parts = kind.parts(count, labels, seed)
    assert len(parts) == clients
    assert min(map(len, parts)) >= 1
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(count))
    again = kind.parts(count, labels, seed)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


@pytest.mark.parametrize("alpha", [0.1, 0.5, 1.0, 100.0])
def test_shares_of_a_label_are_a_dirichlet_draw(alpha: float) -> None:
    """The expected sum of squared shares is (alpha + 1) / (n alpha + 1)."""
    clients, per = 10, 2000
    labels = np.repeat(np.arange(100), per)
    spec = f"dirichlet:clients={clients},alpha={alpha},least=1"
    kind = build("partition", spec, PARTITIONS)
    parts = kind.parts(len(labels), labels, 0)
    shares = np.array([np.bincount(labels[p], minlength=100) for p in parts]) / per
    found = (shares**2).sum(0)
    expected = (alpha + 1) / (clients * alpha + 1)
    assert found.mean() == pytest.approx(expected, abs=4 * found.std() / 10 + 1e-3)


def test_a_photograph_is_a_source() -> None:
    photos = load_dataset("photo-patches")
    parts = build("partition", "contiguous:clients=10", PARTITIONS).parts(
        len(photos.train_images), None, 0
    )
    assert [len(photos.train_labels[p].unique()) for p in parts] == [1] * 10


def test_shards_give_few_labels() -> None:
    labels = np.arange(1000) % 10
    parts = build("partition", "shards:clients=10", PARTITIONS).parts(1000, labels, 0)
    assert max(len(np.unique(labels[p])) for p in parts) <= 2


@pytest.mark.parametrize(
    ("spec", "labels", "words"),
    [
        ("dirichlet:clients=9,alpha=0.01,least=10", np.arange(99) % 2, "1000 draws"),
        ("shards:clients=60,each=2", np.arange(99), "120 shards of 99 examples"),
        ("shards", None, "these examples have none"),
        ("iid:clients=0", None, "clients=0"),
        ("dirichlet:alpha=0", None, "alpha=0"),
    ],
)
def test_parts_that_cannot_be_are_refused(
    spec: str, labels: np.ndarray | None, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        build("partition", spec, PARTITIONS).parts(99, labels, 0)


@given(data=st.data(), bits=st.sampled_from([16, 32]))
@settings(max_examples=60, deadline=None)
def test_masks_cancel_exactly_for_any_that_report(
    data: st.DataObject, bits: int
) -> None:
    clients = data.draw(
        st.lists(st.integers(0, 99), min_size=2, max_size=7, unique=True)
    )
    reported = data.draw(st.lists(st.sampled_from(clients), min_size=1, unique=True))
    masks = PairwiseMasks(bits=bits, range=data.draw(st.floats(0.1, 10)))
    seeds = Seeds(data.draw(st.text(max_size=5)))
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    values = {c: 20 * random.standard_normal(5) for c in clients}
    codes = {c: masks.encode(v, len(clients)) for c, v in values.items()}
    sent = {c: masks.mask(codes[c], c, clients, seeds) for c in clients}
    total = masks.unmask([sent[c] for c in reported], reported, clients, seeds)
    plain = sum(codes[c].astype(np.int64) for c in reported) % 2**bits
    assert np.array_equal(total.astype(np.int64), plain)
    step = masks.step(len(clients))
    cut = sum(np.clip(values[c], -masks.range, masks.range) for c in reported)
    assert np.abs(masks.decode(total, len(clients)) - cut).max() <= len(reported) * step


def test_a_masked_message_alone_is_uniform() -> None:
    masks, seeds = PairwiseMasks(bits=16), Seeds("0/0")
    zeros = masks.encode(np.zeros(40_000), 2)
    sent = masks.mask(zeros, 0, [0, 1], seeds)
    counts = np.bincount(sent >> 12, minlength=16)
    # Chi-squared of 16 classes: 15 expected, 44 is exceeded once in 10,000.
    assert ((counts - 2500) ** 2 / 2500).sum() < 44
    other = masks.mask(zeros, 1, [0, 1], seeds)
    assert not np.array_equal(sent, other)
    # Without the seeds of the own masks the sum is uniform, too.
    assert np.count_nonzero(sent + other) > 39_000


def test_rounding_makes_no_value_longer() -> None:
    masks = PairwiseMasks(bits=16)
    values = np.random.default_rng(0).uniform(-1, 1, 1000)
    back = masks.decode(masks.encode(values, 8), 8)
    assert (np.abs(back) <= np.abs(values)).all()


def test_the_account_lies_between_its_bounds() -> None:
    """Full participation: below the closed form of the moments, above the exact curve."""
    pytest.importorskip("opacus")
    for rounds, noise in ((1, 1.0), (10, 2.0), (50, 4.0)):
        mechanism = Gaussian(noise=noise)
        found = mechanism.epsilon(1.0, rounds)
        tail = math.log(1 / mechanism.delta)
        assert found <= rounds / (2 * noise**2) + math.sqrt(2 * rounds * tail) / noise
        assert found >= exact_epsilon(math.sqrt(rounds) / noise, mechanism.delta)
    assert Gaussian().epsilon(1.0, 0) == 0.0
    assert Gaussian().epsilon(0.1, 10) < Gaussian().epsilon(1.0, 10)


def exact_epsilon(mu: float, delta: float) -> float:
    """Of one Gaussian mechanism, by the curve of Balle and Wang (ICML 2018), theorem 8."""

    def phi(x: float) -> float:
        return 0.5 * math.erfc(-x / math.sqrt(2))

    low, high = 0.0, 100.0
    for _ in range(100):
        middle = (low + high) / 2
        curve = phi(mu / 2 - middle / mu) - math.exp(middle) * phi(
            -mu / 2 - middle / mu
        )
        low, high = (middle, high) if curve > delta else (low, middle)
    return high
