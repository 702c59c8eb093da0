"""Compiled models: roles read off the backward graph, codecs traced into both graphs."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_nets import gradients, images
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from elision.memory import Guarantee, Role, Rule, measure_peak, saver
from elision.memory.codecs import Float8, GroupQuant, ThresholdMask
from elision.memory.codecs.traced import traced
from elision.memory.saved.roles import SMOOTH_ROLES


def small_net():
    """Every kind of layer that the tests look at, for 16x16 images."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    layers += [nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Dropout(0.2), nn.Flatten(), nn.Linear(1024, 5))


@pytest.fixture
def nets():
    torch._dynamo.reset()  # or sizes and limits of other tests would count
    model = small_net()
    return model, torch.compile(model, backend="aot_eager")


def compiled_gradients(compiled, model, batch, policy):
    """Of a step whose forward pass ran under the saver, and the saver."""
    torch.manual_seed(1)
    model.zero_grad()
    before = {name: b.clone() for name, b in model.named_buffers()}
    with saver(compiled, policy) as saved:
        loss = F.cross_entropy(compiled(batch[0]), batch[1])
    loss.backward()
    for name, b in model.named_buffers():
        b.copy_(before[name])
    return {n: p.grad.clone() for n, p in model.named_parameters()}, saved


def relative_errors(exact, other):
    return {
        n: float((exact[n] - other[n]).norm() / exact[n].norm())
        for n in exact
        if exact[n].dim() > 1
    }


def test_exact_packs_masks_in_the_graph_and_changes_no_gradient(nets):
    model, compiled = nets
    batch = images(batch=16)
    plain, _ = compiled_gradients(compiled, model, batch, "none")
    exact, saved = compiled_gradients(compiled, model, batch, "exact")
    for name in plain:
        assert torch.equal(plain[name], exact[name]), name
    by_role = {row.slot.role: row for row in saved.ledger.rows if row.codec != "kept"}
    assert set(by_role) == {Role.THRESHOLD, Role.POOL_INDICES, Role.BOOLEAN}
    assert (
        by_role[Role.THRESHOLD].logical_bytes
        == 32 * by_role[Role.THRESHOLD].stored_bytes
    )
    assert saved.ledger.ratio > 1.5
    # In the second use nothing is traced, and the account is the same.
    _, again = compiled_gradients(compiled, model, batch, "exact")
    assert again.ledger.stored_bytes == saved.ledger.stored_bytes


@pytest.mark.parametrize(("policy", "ratio"), [("int8", 4.0), ("fp8", 4.0)])
def test_lossy_codecs_are_as_good_as_in_eager_mode(nets, policy, ratio):
    model, compiled = nets
    batch = images(batch=16)
    exact, _ = compiled_gradients(compiled, model, batch, "none")
    plain_bytes = measure_peak(lambda: compiled(batch[0])).end_bytes
    traced_ones, saved = compiled_gradients(compiled, model, batch, policy)
    torch.manual_seed(1)
    eager = gradients(model, batch, saver(model, policy, seed=0))
    mine, theirs = relative_errors(exact, traced_ones), relative_errors(exact, eager)
    for name in mine:
        assert 0 < mine[name] < 2 * theirs[name] + 1e-3, name
    assert saved.ledger.ratio > ratio

    def forward():
        with saver(compiled, policy):
            return compiled(batch[0])

    assert plain_bytes / measure_peak(forward).end_bytes > 0.9 * ratio


def test_weights_statistics_and_the_batch_are_never_touched(nets):
    model, compiled = nets
    rules = [Rule((GroupQuant(4),), min_bytes=0)]
    _, saved = compiled_gradients(compiled, model, images(batch=4), rules)
    packed = [row.shape for row in saved.ledger.rows if row.codec != "kept"]
    assert packed
    assert not {tuple(p.shape) for p in model.parameters()} & set(packed)
    assert (4, 3, 16, 16) not in packed
    assert {row.slot.module for row in saved.ledger.rows} >= {"0", "2", "4"}


@pytest.mark.parametrize(
    "policy", ["offload", "bits(2.5)", "guaranteed(0.1)", "jpeg(8)"]
)
def test_what_cannot_be_traced_is_refused_with_what_can(nets, policy):
    with pytest.raises(
        RuntimeError, match=r"cannot be traced.*exact, int8, bits\(n\), fp8"
    ):
        saver(nets[1], policy).__enter__()


def test_another_batch_size_is_packed_as_well(nets):
    model, compiled = nets
    ratios = []
    for size in (8, 6, 5):
        exact, _ = compiled_gradients(compiled, model, images(batch=size), "none")
        got, saved = compiled_gradients(compiled, model, images(batch=size), "int8")
        assert 0 < max(relative_errors(exact, got).values()) < 0.02
        ratios.append(saved.ledger.ratio)
    assert min(ratios) > 4


def test_a_write_after_saving_outside_of_the_compiled_part_raises(nets):
    _, compiled = nets
    with saver(compiled, "int8"):
        out = compiled(images()[0]).sigmoid()
        loss = (out * out).sum()
        out.detach().add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@settings(max_examples=40, deadline=None)
@given(
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    seed=st.integers(0, 999),
    relu=st.booleans(),
    bits=st.integers(2, 8),
)
def test_traced_codecs_keep_what_they_declare(shape, seed, relu, bits):
    torch.manual_seed(seed)
    x = torch.randn(shape)
    x = (x.relu() if relu else x).transpose(0, -1)
    for codec in (GroupQuant(bits), Float8(), ThresholdMask()):
        made = traced([codec], relu)
        parts = made.pack(x)
        y = made.unpack(parts, x, x.shape)
        assert (y.shape, y.dtype) == (x.shape, x.dtype)
        if relu or codec.guarantee is Guarantee.EXACT:
            assert torch.equal(y > 0, x > 0)
        if isinstance(codec, GroupQuant):
            # Less than a step, whose bfloat16 is rounded up, and none if it is too fine.
            step = float(parts[1][:, 1].max()) if parts[1].numel() else 0.0
            assert float((y - x).abs().max()) <= step * (1 + 1e-4) + 1e-6


def test_traced_rounding_is_unbiased():
    torch.manual_seed(0)
    x = torch.randn(2, 32)
    for relu in (False, True):
        y = x.relu() if relu else x
        made = traced([GroupQuant(2)], relu)
        draws = torch.stack(
            [made.unpack(made.pack(y), y, y.shape) for _ in range(2000)]
        )
        projected = (draws - y).flatten(1) @ torch.randn(64, 4)
        assert (projected.mean(0).abs() <= 4 * projected.std(0) / 2000**0.5).all()


def test_one_bit_without_a_code_for_zero_is_no_place_to_read_a_mask_from():
    assert traced([GroupQuant(1)], relu=True) is None
    assert traced([GroupQuant(1)], relu=False) is not None


@pytest.mark.parametrize("policy", ["exact", "bits(4)", "int8", "fp8"])
@pytest.mark.parametrize(
    "sides", [((8, 8), (8, 8)), ((7, 9), (9, 11))], ids=["n", "nhw"]
)
def test_graphs_for_any_size_pack_as_graphs_for_one(policy, sides):
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3)),
        *(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)),
    )
    backend = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, backend=backend)
    for batch, size in ((8, (8, 8)), (6, sides[0]), (5, sides[1])):
        x = torch.randn(batch, 2, *size)
        with saver(compiled, policy) as saved:
            y = compiled(x)
        y.square().sum().backward()
        rows = [row for row in saved.ledger.rows if row.nbytes >= 1024]
        kept = {row.slot.role for row in rows if row.codec == "kept"}
        assert kept <= (SMOOTH_ROLES if policy == "exact" else set())
        if policy == "exact":
            found = [p.grad.clone() for p in model.parameters()]
            model.zero_grad()
            model(x).square().sum().backward()
            expected = [p.grad for p in model.parameters()]
            torch.testing.assert_close(found, expected)
        model.zero_grad()
    if sides[0] == sides[1]:  # the third batch has no graph of its own
        assert backend.frame_count == 2


def test_a_model_that_is_compiled_in_name_alone_is_told_once():
    model = nn.Sequential(nn.Linear(4, 4))
    model.compile(
        backend="aot_eager"
    )  # which PyTorch leaves out for its own containers
    with pytest.warns(UserWarning, match="nothing is packed"), saver(model, "int8"):
        model(torch.ones(2, 4)).sum().backward()
    with warnings.catch_warnings(), saver(model, "int8") as saved:
        warnings.simplefilter("error", UserWarning)
        model(torch.ones(2, 4)).sum().backward()
    assert "ran in no compiled graph" in saved.report()
