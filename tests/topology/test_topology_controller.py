"""The controller among what surrounds a training loop, and what it refuses."""

import copy
import io
import pickle

import pytest
import torch
import torch.nn.functional as F
from sparse_models import (
    MOVING,
    OPTIMISERS,
    batch,
    elided,
    gradient,
    sgd,
    small_net,
    train,
)
from torch import nn

import elision
from elision import methods
from elision.topology import UnattachedWarning


def same(a, b):
    """Whether two state dicts are equal bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("name", MOVING)
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(name, optimizer):
    make = OPTIMISERS[optimizer]
    model, made, topology = elided(MOVING[name], optimizer=make)
    train(model, made, range(8))
    saved = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": made.state_dict()}, saved)
    train(model, made, range(8, 16))

    again, other, resumed = elided(MOVING[name], seed=1, optimizer=make)
    saved.seek(0)
    state = torch.load(saved)
    again.load_state_dict(state["model"])
    other.load_state_dict(state["optimizer"])
    train(again, other, range(8, 16))
    assert same(model.state_dict(), again.state_dict())
    assert topology.digest() == resumed.digest()
    assert topology.step == resumed.step == 17


def test_a_state_without_masks_does_not_load():
    model, _, _ = elided(MOVING["rigl"])
    with pytest.raises(
        RuntimeError, match=r"Missing key.*elision_weight_for_forward_mask"
    ):
        model.load_state_dict(small_net().state_dict())


def test_a_state_of_another_method_does_not_load():
    saved = elided(MOVING["set"])[0].state_dict()
    model, _, _ = elided(MOVING["rigl"])
    with pytest.raises(
        RuntimeError, match="saved by method 'set', the model runs 'rigl'"
    ):
        model.load_state_dict(saved)


@pytest.mark.parametrize(
    ("saved", "model", "message"),
    [
        (MOVING["rigl"], methods.Swat(0.8), "by method 'rigl', the model runs 'swat'"),
        (methods.ReSprop(0.8), MOVING["rigl"], "by a method without masks, .* 'rigl'"),
        (MOVING["dst"], methods.MeProp(), "by method 'dst', the model runs 'meprop'"),
    ],
)
def test_a_state_with_masks_goes_into_no_model_without_and_not_back(
    saved, model, message
):
    state = elided(saved)[0].state_dict()
    with pytest.raises(RuntimeError, match=message):
        elided(model)[0].load_state_dict(state)


def test_a_state_of_other_parameters_loads_with_a_warning():
    saved = elided(methods.RigL(0.8, until=10))[0].state_dict()
    model, _, _ = elided(methods.RigL(0.8, until=20))
    with pytest.warns(UserWarning, match="saved by 'rigl' with other parameters"):
        model.load_state_dict(saved)


@pytest.mark.parametrize("before", [True, False])
def test_a_scheduler_may_come_before_or_after(before):
    model = elision.elide(small_net(), MOVING["dst"])
    optimizer = sgd(model)
    if before:
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
        elision.topology.attach(model, optimizer)
    else:
        elision.topology.attach(model, optimizer)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    step_function = type(optimizer).step
    train(model, optimizer, range(10), lambda _: scheduler.step())
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0)
    assert type(optimizer).step is step_function


@pytest.mark.parametrize("keyword", [True, False])
@pytest.mark.parametrize("name", ["rigl", "snfs", "dst"])
def test_a_closure_is_followed(name, keyword):
    model, optimizer, topology = elided(MOVING[name])
    train(model, optimizer, range(7))
    again, other, closed = elided(MOVING[name])
    for step in range(7):

        def closure(step=step):
            return gradient(again, other, step)

        loss = other.step(closure=closure) if keyword else other.step(closure)
        assert loss > 0
    assert topology.digest() == closed.digest()
    assert same(model.state_dict(), again.state_dict())


@pytest.mark.parametrize("name", ["rigl", "set", "dsr", "snfs"])
def test_no_mask_moves_on_gradients_that_are_not_finite(name):
    model, optimizer, topology = elided(MOVING[name])
    train(model, optimizer, range(2))
    before = topology.digest()
    gradient(model, optimizer, 2)
    model[0].weight.grad[0, 0, 0, 0] = torch.inf
    optimizer.step()
    assert topology.digest() == before
    assert topology.step == 4


# Top-KAST and DST add terms of their own to the gradient, which must not be unscaled.
@pytest.mark.parametrize("name", ["rigl", "dst", "top-kast"])
def test_a_grad_scaler_changes_no_step(name):
    model, optimizer, topology = elided(MOVING[name])
    train(model, optimizer, range(7))
    again, other, scaled = elided(MOVING[name])
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for step in range(7):
        images, labels = batch(step)
        other.zero_grad()
        scaler.scale(F.cross_entropy(again(images), labels)).backward()
        scaler.step(other)
        scaler.update()
    assert topology.digest() == scaled.digest()
    assert same(model.state_dict(), again.state_dict())


def test_a_step_that_the_scaler_skips_counts_for_nothing():
    model, optimizer, topology = elided(MOVING["rigl"])
    scaler = torch.amp.GradScaler("cpu")
    images, labels = batch(0)
    scaler.scale(F.cross_entropy(model(images), labels) * torch.inf).backward()
    scaler.step(optimizer)
    assert topology.step == 1


@pytest.mark.parametrize("name", MOVING)
def test_bfloat16_autocast_trains(name):
    model, optimizer, _ = elided(MOVING[name])
    for step in range(4):
        images, labels = batch(step)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        assert torch.isfinite(loss)


@pytest.mark.parametrize("name", ["rigl", "dst"])
def test_a_compiled_model_takes_the_same_steps(name):
    model, optimizer, topology = elided(MOVING[name])
    train(model, optimizer, range(7))
    again, other, compiled = elided(MOVING[name])
    graph = torch.compile(again, fullgraph=True, backend="aot_eager")
    train(graph, other, range(7))
    assert topology.digest() == compiled.digest()
    for ours, theirs in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_a_copy_and_an_average_keep_the_masks():
    model, optimizer, topology = elided(MOVING["rigl"])
    average = torch.optim.swa_utils.AveragedModel(model)
    train(model, optimizer, range(5), lambda _: average.update_parameters(model))
    copied = copy.deepcopy(model)
    assert same(copied.state_dict(), model.state_dict())
    name = next(w.name for w in topology.weights if not w.mask.all())
    mask = topology.masks()[name]
    averaged = average.module.get_submodule(name)
    assert torch.equal(averaged._buffers["elision_weight_for_forward_mask"], mask)
    images, _ = batch(0)
    model.eval(), copied.eval()
    assert torch.equal(model(images), copied(images))


@pytest.mark.parametrize("name", ["rigl", "dst", "swat-m"])
def test_a_pickled_model_goes_on_like_the_one_it_was_made_of(name):
    model, optimizer, _ = elided(MOVING[name])
    train(model, optimizer, range(4))
    again = pickle.loads(pickle.dumps(model))
    assert same(model.state_dict(), again.state_dict())
    for one in (model, again):
        fresh = sgd(one)
        elision.topology.attach(one, fresh)
        train(one, fresh, range(4, 10))
    assert same(model.state_dict(), again.state_dict())


def test_channels_last_takes_the_same_steps():
    model, optimizer, topology = elided(MOVING["rigl"])
    train(model, optimizer, range(7))
    again = elision.elide(small_net(), MOVING["rigl"], engine="torch").to(
        memory_format=torch.channels_last
    )
    other = sgd(again)
    moved = elision.topology.attach(again, other)
    train(again, other, range(7))
    assert topology.digest() == moved.digest()


def test_shared_weights_share_their_mask():
    model = small_net()
    model[9] = nn.Linear(16, 16)
    model[9].weight = model[7].weight
    elision.elide(model, methods.RigL(0.5, "uniform", every=2))
    optimizer = sgd(model)
    topology = elision.topology.attach(model, optimizer)
    assert [w.name for w in topology.weights] == ["3", "7"]
    train(model, optimizer, range(5))
    masks = [model[i]._buffers["elision_weight_for_forward_mask"] for i in (7, 9)]
    assert torch.equal(*masks)
    assert any(move.layer == "7" and move.grown for move in topology.history)


def test_forgetting_to_attach_warns_once():
    model = elision.elide(small_net(), MOVING["rigl"])
    images, _ = batch(0)
    model(images)
    with pytest.warns(UnattachedWarning, match=r"rigl do not move.*attach"):
        model(images)
    model(images)
    model.eval()
    model(images)


def test_restore_takes_everything_back():
    model, optimizer, topology = elided(MOVING["rigl"])
    topology.detach()
    elision.restore(model)
    assert model.state_dict().keys() == small_net().state_dict().keys()
    assert not model._forward_pre_hooks
    assert not model._load_state_dict_pre_hooks
    train(model, optimizer, range(2))
    model.load_state_dict(small_net().state_dict())


def test_an_optimiser_that_does_not_own_a_weight_is_refused():
    model = elision.elide(small_net(), MOVING["rigl"])
    optimizer = torch.optim.SGD(model[7].parameters(), 0.1)
    with pytest.raises(ValueError, match=r"SGD does not own the weights of 0, 3, 9"):
        elision.topology.attach(model, optimizer)


def test_attach_needs_an_elided_model():
    model = small_net()
    with pytest.raises(
        ValueError, match=r"Sequential is not elided: call elision\.elide"
    ):
        elision.topology.attach(model, sgd(model))


def test_attach_does_no_harm_where_nothing_moves():
    model = elision.elide(small_net(), methods.Swat(0.5))
    optimizer = sgd(model)
    topology = elision.topology.attach(model, optimizer)
    train(model, optimizer, range(2))
    assert topology.weights == []
    assert topology.report() == "this recipe moves no mask"
    assert topology.sparsity == 0
    with pytest.raises(ValueError, match="moves no mask, so nothing counts its steps"):
        _ = topology.step


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: methods.RigL(1.0), r"sparsity=1.0\): must be a number in \[0, 1\)"),
        (lambda: methods.RigL(0.5, "erkk"), "unknown distribution 'erkk'"),
        (lambda: methods.RigL(0.5, pattern="bloc"), "unknown pattern 'bloc'"),
        (lambda: methods.RigL(every=0), r"every=0\): must be an integer >= 1"),
        (lambda: methods.SET(every=1.5), r"every=1.5\): must be an integer >= 1"),
        (
            lambda: methods.RigL(fraction=1.5),
            r"start=1.5\): must be a number in \[0, 1\)",
        ),
        (lambda: methods.SET(drop="all"), "must be 'magnitude' or 'signed'"),
        (lambda: methods.TopKAST(0.8, backward_sparsity=0.9), "must not exceed"),
        (lambda: methods.Gradual(start=5, end=5), "0 <= start < end"),
        (lambda: methods.SET(until=2.5), r"until=2.5\): must be an integer >= 1"),
        (lambda: methods.DSR(prune=1.5), "a count >= 1 or a share"),
        (
            lambda: methods.DST(target=1.5),
            r"target=1.5\): must be a number in \(0, 1\)",
        ),
        (lambda: methods.NM(5, 4), "must be 1 <= n <= m"),
        (lambda: methods.NM(decay=float("nan")), r"decay=nan\): must be a number >= 0"),
        (lambda: methods.DST(gain=float("nan")), r"gain=nan\): must be a number >= 0"),
        (
            lambda: methods.TopKAST(penalty=float("nan")),
            r"penalty=nan\): must be a number >= 0",
        ),
        (
            lambda: methods.RigL(momentum_seed=float("nan")),
            r"momentum_seed=nan\): must be a number >= 0",
        ),
        (
            lambda: methods.DSR(phases=((1.5, 10),)),
            r"phases=1.5\): must be an integer >= 0",
        ),
        (lambda: methods.SwatM(refresh=3), "leave refresh, threshold"),
    ],
)
def test_a_bad_parameter_is_one_clear_line(build, message):
    with pytest.raises(ValueError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_an_n_m_pattern_that_does_not_divide_is_refused():
    with pytest.raises(
        ValueError, match="layer 0: 2 of every 3 by magnitude does not divide"
    ):
        elision.elide(small_net(), methods.NM(2, 3, dense=()))


def test_a_pattern_that_names_no_layer_warns():
    with pytest.warns(elision.layers.NoEffectWarning, match="'head' names no layer"):
        elision.elide(small_net(), methods.RigL(0.5, layers=(("head", 0.0),)))


def test_the_report_names_every_layer_and_what_is_out_of_reach():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(8, 8)
            self.table, self.mix = nn.Embedding(8, 8), nn.EmbeddingBag(8, 8)

    model = elision.elide(Mixed(), methods.RigL(0.5))
    topology = elision.topology.attach(model, sgd(model))
    lines = topology.report().splitlines()
    assert lines[1].split() == ["body", "8x8", "32", "0.5000"]
    assert lines[-2] == "layers left dense: table"
    assert "mix.weight" in lines[-1]


@pytest.mark.parametrize("name", ["rigl", "set", "dst"])
def test_a_second_controller_takes_the_place_of_the_first(name):
    model, optimizer, topology = elided(MOVING[name])
    train(model, optimizer, range(7))
    again, other, _ = elided(MOVING[name])
    second = elision.topology.attach(again, other)
    train(again, other, range(7))
    assert second.step == topology.step == 8
    assert same(model.state_dict(), again.state_dict())
    assert len(other.param_groups[0]["params"]) == len(
        optimizer.param_groups[0]["params"]
    )


@pytest.mark.parametrize("name", ["rigl", "dst"])
def test_a_controller_lets_go_of_a_model_that_was_restored(name):
    model, optimizer, _ = elided(MOVING[name])
    train(model, optimizer, range(2))
    elision.restore(model)
    train(model, optimizer, range(2, 4))
    assert model[3].weight.count_nonzero() > 0.8 * model[3].weight.numel()
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


def test_a_mask_is_set_by_hand_and_a_stranger_is_refused_by_name():
    _, _, topology = elided(methods.Static(0.8))
    weight = topology.weights[0]
    for set_mask in (topology.move, topology.record):
        weight.weight.data.fill_(1)
        mask = torch.zeros_like(weight.mask)
        mask[0] = True
        set_mask(weight, mask)
        assert weight.nnz == int(mask.sum())
        assert bool(weight.weight[~mask].any()) == (set_mask == topology.record)
    weight.weight.grad = torch.ones_like(weight.weight)
    assert torch.equal(topology.gradient(weight), weight.weight.grad)
    stranger = elided(methods.Static(0.8))[2].weights[0]
    names = ", ".join(own.name for own in topology.weights)
    with pytest.raises(ValueError, match=f"its weights are {names}"):
        topology.move(stranger, stranger.mask)
