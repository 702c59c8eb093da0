"""SWAT, ReSprop and meProp: identity where nothing is left out, and their oracles."""

import pytest
import torch
from sparse_models import gradient, sgd, small_net, train
from torch import nn

import elision
from elision import methods
from elision.operands import Reuse, TopKChannels, TopKPerExample
from elision.products import Conv2dGeometry, LayerProduct, MatmulGeometry, Product

NOTHING_LEFT_OUT = {
    "swat": methods.Swat(0.0, dense=()),
    "swat-erk": methods.SwatErk(0.0),
    "swat-structured": methods.SwatStructured(0.0),
    "resprop": methods.ReSprop(0.0, dense=()),
    "w-resprop": methods.WReSprop(0.0, dense=(), warmup_steps=4),
    "meprop": methods.MeProp(1.0, dense=()),
    "meprop-unified": methods.MeProp(1.0, unified=True, dense=()),
}


@pytest.mark.parametrize("name", NOTHING_LEFT_OUT)
def test_where_nothing_is_left_out_training_is_dense(name):
    # Several steps: an error in the bias gradient shows from the second on. ReSprop's
    # P + (G - P) rounds, and a threshold of 1e-7 discards next to nothing.
    model = elision.elide(small_net(), NOTHING_LEFT_OUT[name])
    plain = small_net()
    ours, theirs = sgd(model), sgd(plain)
    train(model, ours, range(5))
    train(plain, theirs, range(5))
    for a, b in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(a, b, atol=2e-6)


def products_of(layer, x):
    """Output gradient used, and the gradients of input, weight and bias."""
    x = x.clone().requires_grad_()
    y = layer(x)
    g = torch.randn(y.shape, generator=torch.Generator().manual_seed(5))
    layer.zero_grad()
    y.backward(g)
    return g, x.grad, layer.weight.grad, layer.bias.grad


@pytest.mark.parametrize("unified", [False, True])
@pytest.mark.parametrize("kind", ["conv", "linear"])
def test_meprop_reads_the_largest_gradients_and_the_full_bias(kind, unified):
    torch.manual_seed(0)
    if kind == "conv":
        layer, x = nn.Conv2d(4, 6, 3, padding=1), torch.randn(5, 4, 7, 7)
        geometry = Conv2dGeometry.of(x.shape, layer.weight.shape, padding=1)
    else:
        layer, x = nn.Linear(8, 6), torch.randn(5, 8)
        geometry = MatmulGeometry(5, 8, 6)
    w = layer.weight.detach().clone()
    elision.elide(layer, methods.MeProp(2, unified=unified, dense=()))
    g, dx, dw, db = products_of(layer, x)
    if unified:
        axes = [a for a in range(g.dim()) if a != 1]
        columns = g.abs().sum(axes).topk(2).indices
        read = torch.zeros_like(g)
        read[:, columns] = g[:, columns]
    else:
        rows = g.flatten(1)
        read = torch.stack([r * (r.abs() >= r.abs().topk(2).values[-1]) for r in rows])
        read = read.view_as(g)
        assert ((read != 0).flatten(1).sum(1) == 2).all()
    expected = LayerProduct(Product.INPUT_GRAD, geometry, read, w).compute()
    assert torch.allclose(dx, expected, atol=1e-5)
    expected = LayerProduct(Product.WEIGHT_GRAD, geometry, read, x).compute()
    assert torch.allclose(dw, expected, atol=1e-5)
    assert torch.allclose(db, g.sum([a for a in range(g.dim()) if a != 1]), atol=1e-5)


@pytest.mark.parametrize("transform", [TopKPerExample(7), TopKChannels(7)])
def test_meprop_refuses_a_count_beyond_the_layer(transform):
    with pytest.raises(ValueError, match="has only 4"):
        transform(torch.randn(3, 4), [], True)


def test_resprop_reads_reference_and_difference():
    torch.manual_seed(0)
    layer, x = nn.Conv2d(4, 6, 3, padding=1), torch.randn(5, 4, 7, 7)
    geometry = Conv2dGeometry.of(x.shape, layer.weight.shape, padding=1)
    w = layer.weight.detach().clone()
    elision.elide(layer, methods.ReSprop(0.5, dense=()))
    use = "elision_grad_output_for_input_grad_"
    first, dx, _, _ = products_of(layer, x)
    full = LayerProduct(Product.INPUT_GRAD, geometry, first, w).compute()
    assert torch.allclose(dx, full, atol=1e-5)  # the first step is dense
    reference = getattr(layer, use + "reference").clone()
    assert any(torch.equal(reference[0], sample) for sample in first)
    layer._buffers[use + "threshold"].fill_(1.0)
    g, dx, dw, db = products_of(layer, x)
    difference = g - reference
    hybrid = reference + torch.where(difference.abs() > 1.0, difference, 0)
    expected = LayerProduct(Product.INPUT_GRAD, geometry, hybrid, w).compute()
    assert torch.allclose(dx, expected, atol=1e-5)
    expected = LayerProduct(Product.WEIGHT_GRAD, geometry, hybrid, x).compute()
    assert torch.allclose(dw, expected, atol=1e-4)
    assert torch.allclose(db, g.sum((0, 2, 3)), atol=1e-4)


def test_the_first_and_last_step_of_an_epoch_read_the_full_gradient():
    reuse = Reuse(0.5, restart=4, initial_threshold=1.0)
    state = reuse.initial_state()
    state |= {"reference": torch.zeros(1, 64), "shared": torch.zeros(1, 64)}
    full = []
    for step in range(9):
        g = torch.randn(8, 64, generator=torch.Generator().manual_seed(step))
        full.append(torch.equal(reuse.apply(g, state, True), g))
    assert full == [s % 4 in (0, 3) for s in range(9)]


def test_the_warm_up_of_w_resprop_follows_the_published_epochs():
    reuse = Reuse(0.9, warmup_steps=900)
    by_epoch = [reuse.target_density(100 * epoch) for epoch in range(12)]
    falling = [1, 1, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2]
    assert by_epoch == pytest.approx([*falling, 0.15, 0.15, 0.15])


@pytest.mark.parametrize("pairing", ["random", "cyclic", "same_index", "batch_mean"])
def test_every_pairing_trains_and_keeps_its_reference(pairing):
    model = elision.elide(small_net(), methods.ReSprop(0.5, pairing=pairing))
    optimizer = sgd(model)
    train(model, optimizer, range(4))
    reference = model[3].elision_grad_output_for_input_grad_reference
    assert reference.shape[0] == (8 if pairing == "same_index" else 1)
    assert torch.isfinite(gradient(model, optimizer, 4))
