"""The exact policy: gradients bit-identical to plain autograd, in fewer bytes."""

import gc
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from memory_nets import (
    Checkpointed,
    Transformer,
    gradients,
    images,
    oddities,
    resnet,
    tokens,
    vgg,
)
from torch import nn

from elision.memory import Role, Rule, measure_peak, saver, watch_peak
from elision.memory.codecs import GroupQuant, Recompute
from elision.workloads.models import make_model

NETS = {
    "resnet": (resnet, images),
    "vgg": (vgg, images),
    "vgg without norm": (lambda: vgg(norm=False, inplace=False), images),
    "oddities": (oddities, images),
    "transformer": (Transformer, tokens),
    "transformer relu": (lambda: Transformer(activation="relu"), tokens),
    "checkpoint": (Checkpointed, images),
    "reentrant checkpoint": (lambda: Checkpointed(reentrant=True), images),
}


@pytest.fixture(params=NETS)
def case(request):
    torch.manual_seed(0)
    make, batch = NETS[request.param]
    return make(), batch()


def assert_same(left, right):
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name


# That checkpointing leaves the saver little to do is meant here.
@pytest.mark.filterwarnings("ignore:elision.memory.saver. checkpointed")
@pytest.mark.parametrize("policy", ["exact", "none"])
@pytest.mark.parametrize("backwards", [1, 2])
def test_gradients_are_bit_identical(case, policy, backwards):
    model, batch = case
    if getattr(model, "reentrant", False):
        backwards = 1  # it frees what it recomputed, with or without a saver
    plain = gradients(model, batch, backwards=backwards)
    assert_same(plain, gradients(model, batch, saver(model, policy), backwards))


def test_gradients_are_bit_identical_under_autocast(case):
    model, batch = case

    def run(context):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return gradients(model, batch, context)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = run(None)
    with saver(model, "exact") as saved:
        mine = run(None)
    assert_same(plain, mine)
    assert all(
        row.codec == "kept" for row in saved.ledger.rows if row.slot.role is Role.WEIGHT
    )


def test_gradients_are_bit_identical_in_channels_last():
    torch.manual_seed(0)
    for make in (resnet, vgg, oddities):
        model = make().to(memory_format=torch.channels_last)
        x, y = images()
        batch = x.to(memory_format=torch.channels_last), y
        assert_same(gradients(model, batch), gradients(model, batch, saver(model)))


def test_double_backward_is_bit_identical():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Softplus(), nn.Conv2d(8, 4, 3))
    x, _ = images()

    def penalty(context):
        model.zero_grad()
        leaf = x.clone().requires_grad_()
        with context:
            out = model(leaf).square().sum()
        (grad,) = torch.autograd.grad(out, leaf, create_graph=True)
        grad.square().sum().backward()
        return {n: p.grad.clone() for n, p in model.named_parameters()}

    plain = penalty(saver(model, "none"))
    assert_same(plain, penalty(saver(model, "exact")))
    assert any(g.abs().sum() > 0 for g in plain.values())


def test_every_saved_tensor_finds_its_consumer():
    torch.manual_seed(0)
    model = resnet()
    x, _ = images()
    with saver(model, "exact") as saved:
        model(x).sum().backward()
    assert all(row.slot.name != "?" for row in saved.ledger.rows)
    found = [
        row.slot.module
        for row in saved.ledger.rows
        if row.slot.consumer == "Convolution.input"
    ]
    expected = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    assert sorted(found) == sorted(expected)


def test_functions_between_modules_belong_to_the_module_that_called_them():
    torch.manual_seed(0)
    model = resnet()
    x, _ = images()
    with saver(model, "exact") as saved:
        out = model(x)
    found = {
        r.slot.module for r in saved.ledger.rows if r.slot.function == "ReluBackward0"
    }
    del out
    # Blocks call ReLUs as functions, the stem has one as a module.
    assert found == {"2", *(str(i) for i in range(3, 7))}


def test_a_recurrent_network_is_reported_line_by_line():
    torch.manual_seed(0)
    model, x = nn.GRU(16, 64), torch.randn(6, 32, 16)
    with saver(model, "int8") as saved:
        out, _ = model(x)
    rows = saved.ledger.rows
    # Its gates multiply in place, for which PyTorch copies the factor.
    assert all(row.slot.name != "?" for row in rows)
    assert any(row.slot.consumer == "Mul.self" for row in rows)
    # A sigmoid's result is a factor elsewhere, which reads the same packed form.
    gates = [r for r in rows if r.slot.function == "SigmoidBackward0"]
    factors = [r for r in rows if r.slot.role is Role.MULTIPLICAND]
    assert all(row.codec.startswith("group") for row in gates + factors)
    assert any(row.stored_bytes == 0 for row in factors)
    report = saved.report().splitlines()
    (line,) = [text for text in report if "Tanh.result" in text]
    assert "group 8-bit" in line
    assert "(the model)" in line
    assert " 6 " in line  # once per element of the sequence
    out[-1].sum().backward()


def test_modules_are_followed_past_failures_and_strangers():
    torch.manual_seed(0)
    model, stranger = nn.Sequential(nn.Linear(32, 32), nn.GELU()), nn.Linear(32, 32)
    x = torch.randn(16, 32)
    with saver(model, pack_batch=True) as saved:
        with pytest.raises(RuntimeError):
            model(x[:, 1:])
        out = stranger(model(x))
    found = [(r.slot.module, r.slot.consumer) for r in saved.ledger.rows]
    # The stranger (whose weight follows) has no path, and does not take another's.
    assert found[:3] == [("0", "Addmm.mat1"), ("1", "Gelu.self"), ("", "Addmm.mat1")]
    assert not model._forward_pre_hooks
    freed = weakref.ref(saved)
    del saved, out
    assert freed() is None  # at once: no cycle has to be found


class Interrupted(nn.Module):
    """Calls something while a function between modules awaits its consumer."""

    def __init__(self, meanwhile):
        super().__init__()
        self.first, self.second = nn.Linear(32, 32), nn.Linear(32, 8)
        self.meanwhile = meanwhile

    def forward(self, x):
        y = self.first(x).exp()
        self.meanwhile()
        return self.second(y)


def test_what_other_threads_run_is_none_of_the_savers_business():
    x = torch.randn(16, 32)
    other = nn.Sequential(*(nn.Linear(32, 32) for _ in range(20)))

    def run(meanwhile):
        model = Interrupted(meanwhile)
        with saver(model, "none") as saved:
            out = model(x)
        out.sum().backward()
        return [(row.slot.module, row.slot.consumer) for row in saved.ledger.rows]

    # New threads, since functions are numbered from zero in each.
    with ThreadPoolExecutor(1) as one:
        alone = one.submit(run, lambda: None).result()
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as another:
        shared = one.submit(run, lambda: another.submit(other, x).result()).result()
    assert alone == shared
    assert ("", "Exp.result") in shared


@pytest.mark.parametrize(("make", "least"), [(resnet, 1.6), (vgg, 1.6)])
def test_fewer_bytes_are_stored_and_the_peak_falls(make, least):
    torch.manual_seed(0)
    model = make(width=16)
    x, y = images(batch=32)

    def step(policy):
        with saver(model, policy):
            loss = F.cross_entropy(model(x), y)
        loss.backward()

    with saver(model, "exact") as saved:
        loss = model(x).sum()
    del loss
    assert saved.ledger.ratio >= least
    for policy in ("none", "exact"):
        step(policy)  # gradients exist from here on
    plain = measure_peak(lambda: step("none")).peak_bytes
    exact = measure_peak(lambda: step("exact")).peak_bytes
    fallen = plain - exact
    spared = saved.ledger.logical_bytes - saved.ledger.stored_bytes
    assert fallen > 0.4 * spared


@pytest.mark.parametrize("policy", ["none", "exact"])
@pytest.mark.parametrize("make", [resnet, vgg])
def test_the_ledger_agrees_with_the_allocator(make, policy):
    torch.manual_seed(0)
    model = make(width=16)
    x, _ = images(batch=32)
    with watch_peak() as measured, saver(model, policy) as saved:
        out = model(x)
    del out
    expected = saved.ledger.stored_bytes - x.untyped_storage().nbytes()
    assert measured.end_bytes == pytest.approx(expected, rel=0.1)


def test_the_report_shows_the_measured_bytes_beside_the_ledger():
    torch.manual_seed(0)
    model = vgg(width=16)
    x, y = images(batch=32)
    with saver(model, "exact", measure=True) as saved:
        loss = F.cross_entropy(model(x), y)
    loss.backward()
    held = saved.ledger.stored_bytes - x.untyped_storage().nbytes()
    assert saved.measured.end_bytes == pytest.approx(held, rel=0.1)
    assert saved.measured.peak_bytes > saved.measured.end_bytes
    assert "MiB at its peak" in saved.report()


def test_a_failing_forward_leaves_no_hooks_behind():
    class Failing(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(64, 64)

        def forward(self, x):
            raise KeyError(int(self.linear(x).relu().sum().isnan()))

    model = Failing()
    with pytest.raises(KeyError), saver(model):
        model(torch.randn(64, 64))
    assert not model._forward_hooks
    assert not model.linear._forward_pre_hooks
    assert torch._C._autograd._top_saved_tensors_default_hooks(True) is None


def test_nothing_is_kept_alive_after_the_graph_is_gone():
    torch.manual_seed(0)
    model = vgg()
    x, _ = images()
    with saver(model, "exact") as saved:
        out = model(x)
    values = [weakref.ref(p) for p in _payloads(out.grad_fn)]
    assert values
    del out
    gc.collect()
    assert not any(value() is not None for value in values)
    assert saved.ledger.rows


def _payloads(node):
    """Every token in the graph."""
    seen, stack = set(), [node]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        stack += [f for f, _ in node.next_functions]
        for attribute in dir(node):
            if attribute.startswith("_raw_saved"):
                token = getattr(node, attribute).data
                if token is not None:
                    yield token


@pytest.mark.parametrize("policy", ["exact", "none"])
def test_an_inplace_write_after_saving_raises(policy):
    weight = nn.Parameter(torch.randn(64, 64))
    x = torch.randn(64, 64)

    class Broken(nn.Module):
        def forward(self, x):
            h = torch.sigmoid(x @ weight)
            y = h * 2
            h.add_(1)
            return y + h

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        Broken()(x).sum().backward()
    broken = Broken()
    with saver(broken, policy):
        loss = broken(x).sum()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


class Rewriter(nn.Module):
    """Writes to a ReLU's result after it was saved."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(-1, 1, 1000))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x, functional=False):
        relu = F.relu_ if functional else self.relu
        first = relu(x * self.scale)
        total = (first + 0).sum()
        return total + relu(first.sub_(0.5)).sum()


@pytest.mark.parametrize("policy", ["exact", "none", "int8"])
def test_memory_that_is_written_between_two_saves_raises_as_in_plain_autograd(policy):
    net, x = Rewriter(), torch.linspace(-2, 2, 1000)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        net(x).backward()
    with saver(net, policy):  # although the masks were packed before the writes
        loss = net(x)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_memory_that_is_written_before_its_consumer_is_known_raises():
    net, x = Rewriter(), torch.linspace(-2, 2, 1000)
    with saver(net, "exact"):
        loss = net(x, functional=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_transformer_derives_what_norms_and_activations_made():
    torch.manual_seed(0)
    model = make_model("transformer", image_size=16).train()
    x, y = images()
    batch = x.contiguous(), y
    plain = gradients(model, batch)
    exact = saver(model, "exact")
    assert_same(plain, gradients(model, batch, exact))
    recomputed = {r.slot.module for r in exact.ledger.rows if r.codec == "recompute"}
    places = ("attention.qkv", "fc1", "fc2")
    assert recomputed == {f"blocks.{i}.{p}" for i in range(4) for p in places}
    assert exact.ledger.ratio > 1.5


def test_an_unknown_policy_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"did you mean 'exact'.*known: none"):
        saver(nn.Linear(1, 1), "exakt")


class Late(nn.Module):
    """Saves many small tensors itself, which are decided on after its layer's input."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(64, 64), nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.first(x)
        gate = h.exp().clamp(max=3).log1p()
        return self.last(h / h.norm(dim=-1, keepdim=True) * gate)


@pytest.mark.parametrize(
    ("policy", "most"),
    [
        ("exact", 0.0),
        ("derived", 0.1),
        ("blpa", 0.5),
        ([Rule((Recompute(),), module="last"), Rule((GroupQuant(8),))], 0.05),
        ([Rule((Recompute(lossy=True),)), Rule((GroupQuant(8),))], 0.05),
    ],
)
def test_nothing_is_computed_again_from_what_is_packed_later(
    policy: object, most: float
) -> None:
    model, x = Late(), torch.randn(128, 64)
    gradients = []
    for inside in (nullcontext(), saver(model, policy, seed=0)):
        model.zero_grad()
        with inside:
            loss = model(x).square().mean()
        loss.backward()
        gradients.append([p.grad for p in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        assert (a - b).norm() <= most * a.norm()
