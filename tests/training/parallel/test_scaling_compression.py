"""Compressors in the scaling model: their own formulas, their declarations, what pays."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elision.training.parallel import COMPRESSORS, State, make_compressor
from elision.training.parallel.scaling import Link, StepCosts, scaling_model
from elision.training.parallel.scaling.coding import (
    CodedGradients,
    measured_compression,
)
from elision.training.parallel.scaling.collectives import AllGather, Ring
from elision.training.parallel.scaling.compression import Coded
from elision.training.parallel.scaling.explain import explained
from elision.training.parallel.scaling.overlap import Bucket

SHAPES = [(32, 16, 3, 3), (32,), (48, 40), (7,)]


@pytest.mark.parametrize("name", sorted(set(COMPRESSORS) - {"mask"}))
def test_bytes_are_the_formula_and_the_way_is_the_messages(name: str) -> None:
    found = measured_compression(name, SHAPES, rounds=1)
    compressor = make_compressor(name)
    for shape, coded in zip(SHAPES, found.messages, strict=True):
        late = State(ranks=2, step=10**6)
        size = compressor.bits(torch.Size(shape), late) / 8
        assert coded.summed + coded.gathered == size
        sent = []
        running = compressor.exchange(torch.randn(shape), late)
        message = next(running)
        while True:
            sent.append(message)
            reply = message if message.summed else [message, message]
            try:
                message = running.send(reply)
            except StopIteration:
                break
        assert (coded.summed > 0) == sent[0].summed
        assert coded.rounds == (len(sent) if sent[0].summed else 1)
        assert sum(m.bits for m in sent) / 8 == size
        assert coded.once > 0
    assert found.size == sum(m.summed + m.gathered for m in found.messages)


def test_masks_are_not_known_from_shapes() -> None:
    with pytest.raises(ValueError, match="depends on the masks"):
        measured_compression("mask", SHAPES)


def costs(sizes: list[float], ready: list[float]) -> StepCosts:
    gradients = tuple(map(Bucket, sizes, sorted(ready)))
    return StepCosts((0.0, 0.0), (0.01, 0.0), 0.0, gradients)


messages = st.builds(
    Coded,
    summed=st.one_of(st.just(0.0), st.floats(1, 1e6)),
    gathered=st.floats(1, 1e6),
    once=st.floats(1e-6, 1e-2),
    each=st.floats(0, 1e-3),
    rounds=st.integers(1, 2),
)


@given(
    coded=st.lists(messages, min_size=1, max_size=5),
    ranks=st.integers(2, 9),
    latency=st.floats(0, 1e-4),
)
def test_a_bucket_is_its_gradients_messages_in_two_collectives(
    coded: list[Coded], ranks: int, latency: float
) -> None:
    link = Link(1e8, latency)
    model = scaling_model(
        costs([4e4] * len(coded), [1.0] * len(coded)),
        link,
        batch=64,
        ranks=[ranks],
        compression=CodedGradients("some", tuple(coded)),
        bucket_cap=1e12,
    )
    (bucket,) = model.buckets(ranks)
    summed, gathered = sum(m.summed for m in coded), sum(m.gathered for m in coded)
    rounds = max(m.rounds for m in coded)
    reduce = rounds * Ring(link).seconds(summed / rounds, ranks) if summed else 0.0
    assert bucket.on_link == pytest.approx(
        reduce + AllGather(link).seconds(gathered, ranks)
    )
    assert bucket.coding == pytest.approx(sum(m.once + ranks * m.each for m in coded))
    sent = (ranks - 1) * gathered + 2 * (ranks - 1) / ranks * summed
    assert model.row(ranks).sent_bytes == pytest.approx(sent)


@given(
    sizes=st.lists(st.floats(1e3, 1e7), min_size=2, max_size=5),
    share=st.floats(0.01, 0.9),
    seconds=st.floats(1e-6, 1e-2),
    bandwidth=st.floats(1e7, 1e11),
)
def test_what_pays_is_what_is_below_the_break_even_and_not_hidden(
    sizes: list[float], share: float, seconds: float, bandwidth: float
) -> None:
    ready = [(i + 1) / len(sizes) for i in range(len(sizes))]
    coded = tuple(Coded(summed=size * share, once=seconds) for size in sizes)
    model = scaling_model(
        costs(sizes, ready),
        Link(bandwidth),
        batch=64,
        ranks=[4],
        compression=CodedGradients("some", coded),
        bucket_cap=1.0,
    )
    backward = model.backward_seconds(4)
    ways = model.uncompressed.timeline(4)
    rows = explained(model, 4)
    assert [row.size for row in rows] == sizes
    for row, way in zip(rows, ways, strict=True):
        hidden = way.end <= backward
        assert row.left == pytest.approx(backward - way.ready, abs=1e-12)
        if not math.isclose(bandwidth, row.break_even, rel_tol=1e-6):
            pays = not hidden and bandwidth < row.break_even
            assert (row.verdict == "pays") == pays
        assert ("hidden" in row.verdict) == hidden


def test_an_explanation_needs_a_compressor_and_ranks() -> None:
    model = scaling_model(costs([8.0], [1.0]), Link(1.0), batch=8, ranks=[2])
    with pytest.raises(ValueError, match="give compression="):
        explained(model, 2)
    with pytest.raises(ValueError, match="1 rank"):
        explained(model, 1)
