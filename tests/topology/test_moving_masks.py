"""The rules against their closed forms: SET, RigL, SNFS, DSR, DST and relatives."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse_models import (
    FIXED_BUDGET,
    MOVING,
    OPTIMISERS,
    elided,
    gradient,
    sgd,
    small_net,
    train,
)
from torch import nn

import elision
from elision import methods
from elision.common.specs import build
from elision.methods import METHODS
from elision.study.papers.sparse_training import runs as runs
from elision.topology.rules.learned_thresholds import step_derivative
from elision.topology.rules.momentum_budget import _counts
from elision.topology.schedule import CubicSparsity, DropFraction, Periodic
from elision.topology.score import signed_rank
from elision.topology.selection import apportion, best


@pytest.mark.parametrize("name", FIXED_BUDGET)
def test_the_number_of_active_weights_is_exact_at_every_step(name):
    model, optimizer, topology = elided(MOVING[name])
    masked = sum(w.mask.numel() for w in topology.weights)
    everything = sum(
        m.weight.numel() for m in elision.layers.elidable_layers(model).values()
    )
    reach = masked if name == "rigl-uniform" else everything
    budget = round(0.2 * reach) - (0 if name == "rigl-uniform" else everything - masked)
    seen = []
    train(model, optimizer, range(20), lambda step: seen.append(topology.nnz))
    assert set(seen) == {budget}
    moved = any(move.grown for move in topology.history)
    assert moved == (name != "static")


@pytest.mark.parametrize("optimizer", OPTIMISERS)
@pytest.mark.parametrize(
    "name", ["set", "rigl", "rigl-added", "dsr", "gradual", "srigl"]
)
def test_inactive_weights_are_zero_and_without_state(name, optimizer):
    model, optimizer, topology = elided(MOVING[name], optimizer=OPTIMISERS[optimizer])

    def check(step):
        for weight in topology.weights:
            off = ~weight.mask
            assert not weight.weight[off].any()
            for value in optimizer.state[weight.weight].values():
                if value.shape == weight.shape:
                    assert not value[off].any()

    train(model, optimizer, range(14), check)


@pytest.mark.parametrize("name", ["set", "rigl", "snfs", "dsr", "srigl"])
def test_grown_weights_start_at_zero_with_clean_state(name):
    model, optimizer, topology = elided(MOVING[name])
    train(model, optimizer, range(2))
    before = {w.name: w.mask.clone() for w in topology.weights}
    train(model, optimizer, range(2, 3))
    grown = 0
    for weight in topology.weights:
        new = weight.mask & ~before[weight.name]
        grown += int(new.sum())
        assert not weight.weight[new].any()
        assert not optimizer.state[weight.weight]["momentum_buffer"][new].any()
    assert grown > 0


# Thresholds learn, so DST is dense in its first step alone.
@pytest.mark.parametrize("name", [name for name in MOVING if name != "dst"])
def test_at_sparsity_zero_every_method_is_dense_training(name):
    options = {
        "n-m": methods.NM(4, 4),
        "top-kast": methods.TopKAST(0.0, backward_sparsity=0.0, penalty=0.0, every=3),
    }
    method = options.get(name)
    if method is None:
        moving = MOVING[name]
        method = type(moving)(**{**moving.parameters(), "sparsity": 0.0})
    model, optimizer, _ = elided(method)
    plain = small_net()
    plain_optimizer = sgd(plain)
    train(model, optimizer, range(8))
    train(plain, plain_optimizer, range(8))
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_rigl_keeps_the_largest_and_grows_the_largest_gradients():
    model, optimizer, topology = elided(methods.RigL(0.8, every=3, until=18))
    train(model, optimizer, range(2))
    gradient(model, optimizer, 2)
    expected = {}
    fraction = 0.15 * (1 + math.cos(math.pi * 3 / 18))
    for weight in topology.weights:
        n = int(fraction * weight.nnz)
        if weight.mask.all():
            continue
        magnitude = torch.where(weight.mask, weight.magnitude(), -1).flatten()
        kept = torch.zeros_like(magnitude, dtype=torch.bool)
        kept[magnitude.topk(weight.nnz - n).indices] = True
        slope = torch.where(kept, -1, weight.weight.grad.abs().flatten())
        kept[slope.topk(n).indices] = True
        expected[weight.name] = kept.view(weight.shape)
    before = {k: v.clone() for k, v in model.named_parameters()}
    optimizer.step()
    for weight in topology.weights:
        if weight.name in expected:
            assert torch.equal(weight.mask, expected[weight.name])
            unmoved = torch.where(weight.mask, before[f"{weight.name}.weight"], 0)
            new = weight.weight * (before[f"{weight.name}.weight"] != 0)
            assert torch.equal(new, unmoved * (before[f"{weight.name}.weight"] != 0))


def test_a_rigl_move_that_is_added_reads_the_dense_gradient_of_its_step():
    model, optimizer, topology = elided(MOVING["rigl-added"])
    train(model, optimizer, range(2))
    gradient(model, optimizer, 2)
    slopes = {w.name: w.weight.grad.abs().clone() for w in topology.weights}
    old = {w.name: w.mask.clone() for w in topology.weights}
    bias = model[9].bias.clone()
    optimizer.step()
    assert not torch.equal(model[9].bias, bias)  # the gradient step was taken
    fraction = 0.15 * (1 + math.cos(math.pi * 3 / 18))
    for weight in topology.weights:
        n = int(fraction * weight.nnz)
        stay = old[weight.name] & weight.mask
        if old[weight.name].all():
            continue
        grown = weight.mask & ~old[weight.name]
        assert int(grown.sum()) > 0
        left_out = torch.where(weight.mask, 0.0, slopes[weight.name])
        assert slopes[weight.name][grown].min() >= left_out.max()
        assert int(stay.sum()) >= weight.nnz - n


def test_srigl_added_grows_as_well():
    method = methods.SRigL(0.8, every=3, until=18, replaces_step=False)
    model, optimizer, topology = elided(method)
    train(model, optimizer, range(3))
    assert sum(move.grown for move in topology.history) > 0.1 * topology.nnz


def test_a_rigl_move_replaces_the_gradient_step():
    model, optimizer, _ = elided(methods.RigL(0.8, every=3, until=18))
    train(model, optimizer, range(2))
    bias = model[9].bias.clone()
    momentum = optimizer.state[model[9].bias]["momentum_buffer"].clone()
    train(model, optimizer, range(2, 3))
    assert torch.equal(model[9].bias, bias)
    assert torch.equal(optimizer.state[model[9].bias]["momentum_buffer"], momentum)
    assert model[9].bias.grad is not None
    train(model, optimizer, range(3, 4))
    assert not torch.equal(model[9].bias, bias)


@pytest.mark.parametrize("replaces_step", [True, False])
def test_a_grown_weight_may_start_with_its_gradient_as_momentum(replaces_step):
    method = methods.RigL(
        0.8, every=3, until=18, momentum_seed=0.5, replaces_step=replaces_step
    )
    model, optimizer, topology = elided(method)
    train(model, optimizer, range(2))
    before = {w.name: w.mask.clone() for w in topology.weights}
    gradient(model, optimizer, 2)
    slopes = {w.name: w.weight.grad.clone() for w in topology.weights}
    optimizer.step()
    grown = 0
    for weight in topology.weights:
        new = weight.mask & ~before[weight.name]
        grown += int(new.sum())
        momentum = optimizer.state[weight.weight]["momentum_buffer"]
        assert torch.equal(momentum[new], 0.5 * slopes[weight.name][new])
        assert not weight.weight[new].any()
    assert grown > 0


def test_a_momentum_to_start_from_needs_momentum():
    method = methods.RigL(0.8, every=1, momentum_seed=1.0)
    model, optimizer, _ = elided(method, optimizer=OPTIMISERS["adam"])
    with pytest.raises(ValueError, match="Adam keeps none: leave momentum_seed at 0"):
        train(model, optimizer, range(1))


@pytest.mark.parametrize("drop", ["magnitude", "signed"])
def test_set_drops_what_it_says(drop):
    model, optimizer, topology = elided(methods.SET(0.8, every=3, drop=drop))
    train(model, optimizer, range(2))
    assert not topology.history
    before = {w.name: w.nnz for w in topology.weights}
    train(model, optimizer, range(2, 3))
    for move in topology.history:
        numel = topology.masks()[move.layer].numel()
        wanted = min(int(0.3 * before[move.layer]), numel - before[move.layer])
        assert move.dropped == move.grown == wanted


def test_signed_rank_drops_the_same_share_of_both_signs():
    # A published code keeps 296 instead of 1379 of 1970 weights at a rate of 0.3.
    g = torch.Generator().manual_seed(0)
    weight = torch.randn(1970, generator=g) + 0.2
    rank = signed_rank(weight, torch.ones(1970, dtype=torch.bool))
    stay = best(rank, 1970 - int(0.3 * 1970), g)
    assert int(stay.sum()) == 1379
    for sign in (weight >= 0, weight < 0):
        assert abs(int((stay & sign).sum()) - 0.7 * int(sign.sum())) < 2
        assert weight[stay & sign].abs().min() > weight[~stay & sign].abs().max()


def test_snfs_moves_weights_to_the_layers_with_momentum():
    model, optimizer, topology = elided(methods.SNFS(0.8, every=3, until=18))
    train(model, optimizer, range(2))
    before = {w.name: w.nnz for w in topology.weights}
    seen = {}

    def watch(*_):
        for w in topology.weights:
            buffer = optimizer.state[w.weight]["momentum_buffer"]
            seen[w.name] = float(buffer[w.mask].abs().mean())

    handle = optimizer.register_step_post_hook(watch)
    # The rule's own hook runs first, so look at what the step leaves before it.
    optimizer._optimizer_step_post_hooks.move_to_end(handle.id, last=False)
    train(model, optimizer, range(2, 3))
    fraction = DropFraction(0.5, 0.005, 18).at(3)
    mean = sum(seen.values()) / len(seen)
    dropped, room = [], []
    for weight in topology.weights:
        size, nnz = weight.mask.numel(), before[weight.name]
        stirred_less = seen[weight.name] > mean and size - nnz < 0.2 * size
        share = min(fraction, (size - nnz) / size) if stirred_less else fraction
        dropped.append(min(int(share * nnz), nnz - 1))
        room.append(int(0.99 * (size - nnz + dropped[-1])))
    grown = apportion(sum(dropped), list(seen.values()), room, evenly=True)
    expected = [g - d for g, d in zip(grown, dropped, strict=True)]
    assert [w.nnz - before[w.name] for w in topology.weights] == expected
    assert sum(expected) == 0
    assert any(expected)


def test_snfs_momentum_gathers_the_gradient_of_inactive_weights():
    model, optimizer, topology = elided(methods.SNFS(0.8, every=100))
    train(model, optimizer, range(3))
    weight = next(w for w in topology.weights if not w.mask.all())
    assert optimizer.state[weight.weight]["momentum_buffer"][~weight.mask].any()
    assert not weight.weight[~weight.mask].any()


def test_momentum_scores_need_momentum():
    model, optimizer, _ = elided(
        methods.SNFS(0.8, every=1), optimizer=lambda m: sgd(m, momentum=0.0)
    )
    with pytest.raises(ValueError, match="SGD keeps none; use SGD with momentum"):
        train(model, optimizer, range(1))


@pytest.mark.parametrize(("prune", "factor"), [(1, 0.5), (100_000, 2.0), (None, 1.0)])
def test_dsr_threshold_halves_doubles_and_stays(prune, factor):
    threshold = 0.05
    model = elision.elide(small_net(), methods.DSR(0.8, every=1, threshold=threshold))
    probe = elision.topology.attach(model, torch.optim.SGD(model.parameters(), 0.0))
    below = sum(
        int((w.mask & (w.magnitude() < threshold)).sum()) for w in probe.weights
    )
    method = methods.DSR(0.8, every=1, threshold=threshold, prune=prune or below)
    model = elision.elide(small_net(), method)
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    topology = elision.topology.attach(model, optimizer)
    train(model, optimizer, range(1))
    assert float(topology.state("threshold")) == pytest.approx(threshold * factor)


def test_dsr_leaves_a_weight_in_every_layer_and_avoids_what_it_pruned():
    model = elision.elide(small_net(), methods.DSR(0.9, every=1, threshold=100.0))
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    topology = elision.topology.attach(model, optimizer)
    before = {w.name: w.mask.clone() for w in topology.weights}
    nnz = topology.nnz
    train(model, optimizer, range(1))
    assert topology.nnz == nnz
    for weight in topology.weights:
        assert weight.nnz >= 1
        if weight.density < 0.4:
            assert int((weight.mask & before[weight.name]).sum()) == 1


def test_the_derivative_of_dst_has_its_published_values():
    q = torch.tensor([0, 0.2, 0.4, 0.7, 1, 1.1], dtype=torch.float64)
    expected = [2, 1.2, 0.4, 0.4, 0.4, 0]
    assert step_derivative(q).tolist() == pytest.approx(expected)
    assert step_derivative(-q).tolist() == pytest.approx(expected)


def test_dst_gradients_are_those_of_its_definition():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5, bias=False))
    model[0].weight.data *= 3
    x, y = torch.randn(7, 6), torch.randn(7, 5)

    class Step(torch.autograd.Function):
        @staticmethod
        def forward(ctx, q):
            ctx.save_for_backward(q)
            return (q > 0).to(q)

        @staticmethod
        def backward(ctx, g):
            return g * step_derivative(ctx.saved_tensors[0])

    weight = model[0].weight.detach().clone().requires_grad_()
    threshold = torch.linspace(0, 1, 5).requires_grad_()
    used = weight * Step.apply(weight.abs() - threshold[:, None])
    loss = ((x @ used.T - y) ** 2).mean() + 0.01 * torch.exp(-threshold).sum()
    loss.backward()

    elision.elide(model, methods.DST(alpha=0.01))
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    topology = elision.topology.attach(model, optimizer)
    with torch.no_grad():
        topology.trained["0"].copy_(torch.linspace(0, 1, 5))
    before = model[0].weight.detach().clone()
    ((model(x) - y) ** 2).mean().backward()
    optimizer.step()
    assert torch.allclose(before - model[0].weight, weight.grad, atol=1e-6)
    moved = torch.linspace(0, 1, 5) - topology.trained["0"]
    assert torch.allclose(moved, threshold.grad, atol=1e-6)
    assert torch.equal(topology.weights[0].state("threshold"), topology.trained["0"])


@pytest.mark.parametrize(("kept", "reset"), [(1, True), (2, False)])
def test_dst_resets_a_layer_that_keeps_one_percent_or_less(kept, reset):
    model = elision.elide(nn.Sequential(nn.Linear(10, 10)), methods.DST())
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    topology = elision.topology.attach(model, optimizer)
    with torch.no_grad():
        model[0].weight.fill_(0.1).view(-1)[:kept] = 1.0
        topology.trained["0"].fill_(0.5)
    model(torch.randn(3, 10)).sum().backward()
    assert bool((topology.trained["0"] == 0).all()) == reset


def test_dst_steers_to_a_target():
    model, optimizer, topology = elided(methods.DST(alpha=1e-2, target=0.7))
    train(model, optimizer, range(200))
    assert topology.sparsity == pytest.approx(0.7, abs=0.01)


def test_gradual_pruning_follows_the_cubic_to_the_exact_budget():
    model, optimizer, topology = elided(methods.Gradual(0.8, start=2, end=12, every=2))
    total = sum(w.mask.numel() for w in topology.weights)
    seen = {}
    train(
        model,
        optimizer,
        range(16),
        lambda s: seen.__setitem__(s + 1, topology.sparsity),
    )
    cubic = CubicSparsity(2, 12)
    for step in (2, 4, 8, 12, 16):
        expected = round((1 - 0.8 * cubic.at(min(step, 12))) * total)
        assert seen[step] == pytest.approx(1 - expected / total, abs=1.5 / total)
    assert topology.nnz == round(0.2 * total)


def test_top_kast_learns_in_the_superset_alone():
    method = methods.TopKAST(0.8, backward_sparsity=0.5, every=100, penalty=0.01)
    model = elision.elide(small_net(), method)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    topology = elision.topology.attach(model, optimizer)
    before = {w.name: w.weight.detach().clone() for w in topology.weights}
    train(model, optimizer, range(3))
    for weight in topology.weights:
        learns = weight.state("learns")
        moved = weight.weight != before[weight.name]
        assert not (weight.mask & ~learns).any()
        assert not moved[~learns].any()
        assert moved[learns & ~weight.mask].any() or not (learns & ~weight.mask).any()


def test_srigl_keeps_a_constant_fan_in():
    model, optimizer, topology = elided(MOVING["srigl"])
    budget = {w.name: w.nnz for w in topology.weights}

    def check(step):
        for weight in topology.weights:
            fan_in = weight.mask.flatten(1).sum(1)
            assert fan_in[fan_in > 0].unique().numel() == 1
            assert weight.nnz <= budget[weight.name]

    train(model, optimizer, range(20), check)
    assert any(move.grown for move in topology.history)


def test_srigl_ablates_a_neuron_that_does_not_matter_for_good():
    model, optimizer, topology = elided(
        methods.SRigL(0.5, every=1, until=50, fraction=0.2)
    )
    weight = topology.weights[1]
    with torch.no_grad():
        weight.weight[3] *= 1e-6
        model[3].weight.register_hook(
            lambda g: g * (torch.arange(16) != 3).view(-1, 1, 1, 1)
        )
    train(model, optimizer, range(3))
    assert not weight.mask[3].any()
    assert weight.mask[2].any()


def test_n_m_pulls_what_it_leaves_out():
    model = elision.elide(small_net(), methods.NM(2, 4, decay=0.5))
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    elision.topology.attach(model, optimizer)
    gradient(model, optimizer, 0)
    w = model[7].weight.detach().clone()
    g = model[7].weight.grad.clone()
    groups = w.abs().view(16, 4, 4)
    kept = groups >= groups.topk(2, -1).values[..., 1:]
    assert int(kept.sum()) == w.numel() // 2
    optimizer.step()
    expected = w - g - 0.5 * w * ~kept.view(16, 16)
    assert torch.allclose(model[7].weight, expected)


def test_swat_m_shares_by_momentum_and_keeps_its_sum():
    model, optimizer, topology = elided(methods.SwatM(0.8))
    total = sum(w.weight.numel() for w in topology.weights)
    train(model, optimizer, range(4))
    shares = [float(w.state("density")) for w in topology.weights]
    counts = [
        s * w.weight.numel() for s, w in zip(shares, topology.weights, strict=True)
    ]
    assert sum(counts) == pytest.approx(round(0.2 * total), abs=len(counts))
    assert len(set(shares)) > 1
    for weight in topology.weights:
        activations = weight.layers[0]._buffers["elision_input_for_weight_grad_density"]
        assert torch.equal(activations, weight.state("density"))
    # What was left out learns all the same.
    assert optimizer.state[topology.weights[0].weight]["momentum_buffer"].all()


@given(
    st.integers(1, 400),
    st.lists(
        st.tuples(st.floats(0.01, 9), st.integers(10, 99)), min_size=2, max_size=6
    ),
)
def test_swat_m_counts_are_exact_and_full_layers_dense(budget, layers):
    means, sizes = [m for m, _ in layers], [n for _, n in layers]
    budget = min(budget, sum(sizes))
    counts = _counts(budget, means, sizes)
    assert sum(counts) == budget
    assert all(0 <= c <= n for c, n in zip(counts, sizes, strict=True))


@pytest.mark.parametrize(
    ("means", "sizes", "counts"),
    [
        # 80, 30 and 10 by share; the 60 that do not fit go to the others, 30 each.
        ([8, 3, 1], [20, 200, 200], [20, 60, 40]),
        # 30 more of the second layer do not fit: the third has them.
        ([8, 3, 1], [20, 30, 200], [20, 30, 70]),
        # 100 of 101 is above 99 %: dense, and the others pay for the one.
        ([10, 1, 1], [101, 200, 200], [101, 10, 9]),
    ],
)
def test_swat_m_spreads_evenly_what_a_full_layer_cannot_take(means, sizes, counts):
    assert _counts(120, means, sizes) == counts


def test_snfs_spreads_evenly_what_a_full_layer_cannot_take():
    _, _, topology = elided(methods.SNFS(0.5, "uniform", every=1))
    names = [w.name for w in topology.weights]
    active = {w.name: w.mask for w in topology.weights}
    dropped = {name: int(active[name].sum()) // 2 for name in names}
    # The smallest layer has nearly all the momentum and room for little of the growth.
    small = min(topology.weights, key=lambda w: w.mask.numel()).name
    shares = {name: 0.01 / place for place, name in enumerate(names, 1)}
    shares[small] = 0.98
    grown = topology.rule._grown(active, dropped, shares)
    others = [count for name, count in grown.items() if name != small]
    assert sum(grown.values()) == sum(dropped.values())
    assert grown[small] == int(0.99 * int((~active[small]).sum() + dropped[small]))
    assert max(others) - min(others) <= 0.01 * sum(dropped.values()) + 1


@pytest.mark.parametrize(
    ("pattern", "axes"),
    [("filter", (1, 2, 3)), ("channel", (0, 2, 3)), ("kernel", (2, 3))],
)
@pytest.mark.parametrize("method", [methods.SET, methods.RigL])
def test_structured_masks_stay_structured(method, pattern, axes):
    made = method(0.5, "uniform", (), pattern, every=2)
    model, optimizer, topology = elided(made)
    nnz = topology.nnz
    train(model, optimizer, range(7))
    mask = topology.masks()["3"].float()
    assert set(mask.mean(axes).flatten().tolist()) == {0.0, 1.0}
    assert topology.nnz == nnz
    assert any(move.grown for move in topology.history)


def test_blocks_stay_blocks_and_must_divide():
    made = methods.RigL(0.5, "uniform", pattern="block-4x8", every=2, dense=("9",))
    model, optimizer, topology = elided(made)
    train(model, optimizer, range(5))
    blocks = topology.masks()["3"].float().view(4, 4, 9, 8).mean((1, 3))
    assert set(blocks.flatten().tolist()) == {0.0, 1.0}
    with pytest.raises(ValueError, match="layer 3: blocks of 5x8 do not divide"):
        elision.elide(small_net(), methods.RigL(0.5, "uniform", pattern="block-5x8"))


@settings(max_examples=30)
@given(st.integers(1, 50), st.integers(1, 60), st.integers(1, 400))
def test_moves_come_in_their_period_until_the_end(every, until, step):
    assert Periodic(every, until).at(step) == (step % every == 0 and step <= until)


@pytest.mark.parametrize("name", ["set", "rigl", "srigl", "snfs", "dsr", "gradual"])
@pytest.mark.parametrize("steps", [4, 315, 40_000])
def test_a_schedule_fits_the_length_of_its_run(name, steps):
    method = build("recipe", name, METHODS).fitted(steps)
    end = method.end if name == "gradual" else method.until
    assert end == 3 * steps // 4
    moves = sum(method.rule().moves(step) for step in range(1, steps + 1))
    fewest = 4 if name == "snfs" else 30
    assert moves >= min(fewest, end // 5)
    published = 1000 if name == "dsr" else 100
    assert method.every == min(published, max(5, end // fewest))
    given = build("recipe", f"{name}:every=9", METHODS).fitted(steps, ("every",))
    assert given.every == 9


def test_the_studys_own_schedules_are_those_of_a_fitted_method():
    assert runs.METHODS["rigl-erk"](0.9, 315) == methods.RigL(every=7, until=236)
    assert methods.WReSprop().fitted(1000).warmup_steps == 100
    assert methods.Swat().fitted(10) == methods.Swat()


def test_periods_lengthen_by_phase():
    when = Periodic(10, phases=((100, 50), (200, 100)))
    moves = [t for t in range(1, 401) if when.at(t)]
    assert moves == [*range(10, 100, 10), 100, 150, 200, 300, 400]


def test_the_drop_fraction_follows_its_formula():
    fraction = DropFraction(0.3, horizon=100)
    for t in (0, 25, 50, 100):
        assert fraction.at(t) == pytest.approx(0.15 * (1 + math.cos(math.pi * t / 100)))
    assert DropFraction(0.5, 0.005, 100).at(100) == pytest.approx(0.005)
    assert DropFraction(0.3, decay="constant").at(9999) == 0.3


@pytest.mark.parametrize("method", [methods.RigL, methods.SET, methods.SNFS])
def test_masks_move_whatever_the_programs_default_device(method: type) -> None:
    torch.manual_seed(0)
    model = nn.Linear(20, 10)
    elision.elide(model, method(sparsity=0.5, every=2, dense=()), engine="torch")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x = torch.randn(8, 20)
    with torch.device("meta"):
        topology = elision.topology.attach(model, optimizer)
        for _ in range(4):
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()
    assert topology.moves == 2
    assert topology.nnz == 100
