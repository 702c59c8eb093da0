"""The rule of quantised training: blending, clipping, and steps that learn."""

import copy
import io
import warnings

import pytest
import torch
import torch.nn.functional as F
from sparse_models import batch, gradient, sgd, train
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint_sequential

import elision
from elision import methods
from elision.operands import Chain, LearnedStep, Project, TopK
from elision.topology import Blended, UnattachedWarning

QUANTISED = {
    "bcgd": methods.Bcgd(1, 4, rho=0.01),
    "bcgd-ternary": methods.Bcgd(2, 2, rho=0.01, gradient="exact", alpha="data"),
    "bcgd-float-weights": methods.Bcgd(32, 4, gradient="pact"),
    "binary-connect": methods.BinaryConnect(clip=0.1, scale="mean"),
    "dorefa": methods.DoReFa(2, 2, 4, dense=()),
    "pact": methods.PACT(2, 2, dense=()),
    "lsq": methods.LSQ(2, 2),
}


def net(seed: int = 0) -> nn.Sequential:
    """Two convolutions and a linear layer, each behind a normalisation and a ReLU."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 4),
    )


def attached(name: str, optimizer=sgd):
    model = elision.elide(net(), QUANTISED[name], engine="torch")
    made = optimizer(model)
    return model, made, elision.topology.attach(model, made)


def one_weight(values: list[float], rho: float, rate: float = 0.1, **how):
    """A linear layer of one output, binary, under plain descent without bias."""
    layer = nn.Linear(len(values), 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([values], dtype=torch.float64))
    recipe = methods.Bcgd(1, 32, rho=rho, rho_cap=1.0)
    elision.elide(layer, recipe, engine="torch")
    optimizer = torch.optim.SGD(layer.parameters(), lr=rate, **how)
    return layer, optimizer, elision.topology.attach(layer, optimizer)


def test_one_step_in_closed_form():
    layer, optimizer, _ = one_weight([0.3, -0.8], rho=0.1)
    y = layer(torch.ones(1, 2, dtype=torch.float64))
    assert y.item() == 0  # the products read 0.55 and −0.55
    y.sum().backward()
    optimizer.step()
    assert layer.weight.tolist()[0] == pytest.approx([0.225, -0.875], abs=1e-15)


def test_blending_without_gradient_shrinks_the_distance_and_keeps_the_projection():
    # Binary fractions: every sum is exact.
    layer, optimizer, _ = one_weight([0.25, -0.75, 0.5, -0.5], rho=0.5)
    projected = Project(1)
    first = projected(layer.weight.detach(), [], False)
    for step in range(1, 20):
        before = layer.weight.detach() - first
        layer(torch.zeros(3, 4, dtype=torch.float64)).sum().backward()
        optimizer.step()
        assert torch.equal(projected(layer.weight.detach(), [], False), first)
        assert torch.equal(layer.weight.detach() - first, 0.5 * before), step


def test_rho_of_one_is_projected_descent():
    layer, optimizer, _ = one_weight([0.3, -0.8, 0.1], rho=1.0)
    x = torch.tensor([[0.2, 0.1, -0.4]], dtype=torch.float64)
    w = layer.weight.detach().clone()
    for _ in range(5):
        optimizer.zero_grad()
        layer(x).sum().backward()
        optimizer.step()
        w = Project(1)(w, [], False) - 0.1 * x
        assert torch.allclose(layer.weight.detach(), w, atol=1e-15)


@pytest.mark.parametrize("decay", [0.0, 1e-2])
def test_rho_of_zero_is_binary_connect_bit_for_bit(decay):
    def trained(method) -> dict[str, Tensor]:
        model = elision.elide(net(), method, engine="torch")
        optimizer = sgd(model, weight_decay=decay)
        elision.topology.attach(model, optimizer)
        train(model, optimizer, range(6))
        return dict(model.named_parameters())

    ours = trained(methods.Bcgd(1, 32, rho=0.0))
    theirs = trained(methods.BinaryConnect(clip=None, scale="mean"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_weights_are_clipped_after_a_step():
    model, optimizer, _ = attached("binary-connect", lambda m: sgd(m, lr=1.0))
    train(model, optimizer, range(3))
    layers = [m for m in model if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert max(m.weight.abs().max().item() for m in layers) == pytest.approx(0.1)


def test_rho_grows_to_its_cap_and_one_above_it_stays():
    rule = Blended(1e-3, rate=2.0, every=10, cap=3e-3)
    assert [rule.rho_in(s) for s in (1, 10, 11, 21, 1000)] == [
        *(1e-3, 1e-3, 2e-3, 3e-3, 3e-3),
    ]
    assert Blended(0.1, rate=2.0, every=10).rho_in(50) == 0.1


def test_steps_learn_by_the_gradient_of_the_backward_pass():
    model, optimizer, topology = attached("bcgd", lambda m: sgd(m, lr=0.1, momentum=0))
    names = {"3/input step", "8/input step"}
    assert set(topology.trained) == names
    before = {n: float(p.detach()) for n, p in topology.trained.items()}
    gradient(model, optimizer, 0)
    grads = {n: p.grad.item() for n, p in topology.trained.items()}  # pyright: ignore[reportOptionalMemberAccess]
    assert all(abs(g) <= 1 for g in grads.values())
    assert any(grads.values())
    optimizer.step()
    for name, parameter in topology.trained.items():
        decayed = grads[name] + 1e-3 * before[name]
        expected = before[name] - 0.1 * decayed
        assert float(parameter.detach()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", QUANTISED)
def test_a_run_goes_on_to_the_last_bit(name):
    whole, ours, _ = attached(name)
    train(whole, ours, range(3))
    file = io.BytesIO()
    torch.save([whole.state_dict(), ours.state_dict()], file)
    file.seek(0)
    state, optimiser_state = torch.load(file, weights_only=True)
    other, theirs, _ = attached(name)
    other.load_state_dict(state)
    theirs.load_state_dict(optimiser_state)
    train(whole, ours, range(3, 7))
    train(other, theirs, range(3, 7))
    found, expected = other.state_dict(), whole.state_dict()
    assert [k for k in expected if not torch.equal(found[k], expected[k])] == []


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", ["bcgd", "bcgd-ternary", "lsq", "dorefa"])
def test_a_checkpointed_step_is_the_step_without(name, reentrant):
    def run(checkpointed: bool) -> dict[str, Tensor]:
        model, optimizer, _ = attached(name)
        for module in model:
            if isinstance(module, nn.BatchNorm2d):
                module.track_running_stats = False  # which two passes update twice
        for step in range(4):
            images, labels = batch(step)
            images.requires_grad_()
            optimizer.zero_grad()
            y = (
                checkpoint_sequential(model, 2, images, use_reentrant=reentrant)
                if checkpointed
                else model(images)
            )
            F.cross_entropy(y, labels).backward()
            optimizer.step()
        return {n: v for n, v in model.state_dict().items() if "running" not in n}

    found, expected = run(True), run(False)
    assert [k for k in expected if "num_batches" not in k] == [
        k
        for k in found
        if "num_batches" not in k and torch.equal(found[k], expected[k])
    ]


@pytest.mark.parametrize("policy", ["exact", "bits(8)"])
@pytest.mark.parametrize("name", ["bcgd", "lsq", "dorefa"])
def test_saved_tensors_may_be_packed(name, policy):
    model, optimizer, _ = attached(name)
    plain, theirs, _ = attached(name)
    with elision.memory.saver(model, policy=policy):
        train(model, optimizer, range(3))
    train(plain, theirs, range(3))
    found, expected = model.state_dict(), plain.state_dict()
    if policy == "exact":
        assert all(torch.equal(found[k], expected[k]) for k in expected)
    else:
        assert all(torch.isfinite(v).all() for v in found.values())
        assert any(not torch.equal(found[k], expected[k]) for k in expected)


@pytest.mark.parametrize("name", QUANTISED)
def test_training_lowers_the_loss(name):
    model, optimizer, _ = attached(name, lambda m: sgd(m, lr=0.05))
    losses = []
    for _ in range(25):
        losses.append(gradient(model, optimizer, 0).item())
        optimizer.step()
    assert min(losses[-5:]) < 0.7 * losses[0]


def test_a_model_that_nobody_attached_is_told_once_by_name():
    model = elision.elide(net(), methods.Bcgd(), engine="torch")
    images = batch(0)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(images)
    with pytest.warns(UnattachedWarning, match="bcgd: its weights are not blended"):
        model(images)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(images)


@pytest.mark.parametrize("method", [methods.BWN(), methods.TWN(), methods.DoReFa()])
def test_a_method_without_a_rule_needs_no_controller(method):
    model = elision.elide(net(), method, engine="torch")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(model, sgd(model), range(3))


def test_a_step_at_its_bound_is_said_once_and_stays_there():
    model, optimizer, topology = attached("bcgd", lambda m: sgd(m, momentum=0))
    step = topology.trained["3/input step"]
    gradient(model, optimizer, 0)
    step.grad = torch.full_like(step, 100.0)
    with pytest.warns(UserWarning, match=r"step 1: 3/input step \(0.001\) has reached"):
        optimizer.step()
    assert float(step.detach()) == pytest.approx(1e-3)
    gradient(model, optimizer, 1)
    step.grad = torch.full_like(step, 100.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step()
    assert float(step.detach()) == pytest.approx(1e-3)


def test_weights_that_are_all_zero_are_refused_by_name():
    model = net()
    with torch.no_grad():
        model[3].weight.zero_()  # pyright: ignore[reportCallIssue]
    with pytest.raises(ValueError, match=r"layer 3: all 1152 weights are zero"):
        elision.elide(model, methods.Bcgd())
    assert type(model[3]) is nn.Conv2d


def test_the_first_layer_reads_the_data_as_they_are():
    model = elision.elide(net(), methods.Bcgd(1, 2), engine="torch")
    seen = {}

    def observe(observation) -> None:
        product = observation.product
        seen[product.name, product.kind.value] = product.operands

    images = batch(0)[0]
    with elision.layers.watch(model, observe):
        model(images).sum().backward()
    assert torch.equal(seen["0", "forward"]["input"], images)
    inner = seen["3", "forward"]["input"]
    assert len(inner.unique()) <= 4
    assert torch.equal(inner, seen["3", "weight_grad"]["input"])
    assert len(seen["3", "input_grad"]["weight"].unique()) == 2


def test_copies_have_steps_of_their_own():
    model, optimizer, _ = attached("bcgd")
    train(model, optimizer, range(2))
    other = copy.deepcopy(model)
    before = other.state_dict()["3.elision_input_for_forward_step"].clone()
    train(model, optimizer, range(2, 4))
    assert torch.equal(other.state_dict()["3.elision_input_for_forward_step"], before)


def test_a_chain_of_sparsity_and_steps_trains():
    from elision.layers.recipe import Recipe, Table
    from elision.products import Product

    weight = Chain((TopK(0.5), Project(1)))
    x = Chain((LearnedStep(4), TopK(0.5)))
    rows = {
        Product.FORWARD: {"weight": weight, "input": x},
        Product.INPUT_GRAD: {"weight": weight},
        Product.WEIGHT_GRAD: {"input": x},
    }
    recipe = Recipe("chained", Table(rows), dense=(":first",))
    model = elision.elide(net(), recipe, engine="torch")
    losses = []
    optimizer = sgd(model, lr=0.05)
    for _ in range(15):
        losses.append(gradient(model, optimizer, 0).item())
        optimizer.step()
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("sparse", [methods.RigL(0.5, every=2), methods.Static(0.5)])
def test_masks_and_quantised_weights_are_one_recipe(sparse):
    model = elision.elide(net(), sparse + methods.TWN(), engine="torch")
    optimizer = sgd(model, lr=0.05)
    topology = elision.topology.attach(model, optimizer)
    losses = []
    for _ in range(15):
        losses.append(gradient(model, optimizer, 0).item())
        optimizer.step()
    assert losses[-1] < losses[0]
    assert topology.sparsity == pytest.approx(0.5, abs=0.02)
    seen: list[Tensor] = []
    with elision.layers.watch(
        model, lambda o: seen.append(o.product.operands["weight"])
    ):
        model.eval()(batch(0)[0])
    masks = topology.masks()
    for name, read in zip(("0", "3", "8"), seen, strict=True):
        assert len(read.unique()) <= 3
        if name in masks:
            assert not read[~masks[name]].any()


def test_two_recipes_that_read_an_input_differently_are_refused_in_one_sentence():
    with pytest.raises(
        ValueError, match="so both products read it, and weight_grad reads"
    ):
        elision.elide(net(), methods.Swat(0.5) + methods.Bcgd())
