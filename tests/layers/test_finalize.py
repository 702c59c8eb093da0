"""Coming and going: plain models, sparse files and ONNX."""

import importlib

import pytest
import torch
from sparse_models import MOVING, batch, elided, gradient, sgd, small_net, train

import elision
from elision import methods
from elision.layers import finalize as export
from elision.operands import density

READS_SPARSE = {
    **MOVING,
    "swat": methods.Swat(0.8),
    "swat-erk": methods.SwatErk(0.8),
    "swat-structured": methods.SwatStructured(0.5),
}


# Gradual pruning is not at its end after these steps.
@pytest.mark.filterwarnings("ignore::elision.topology.ScheduleWarning")
@pytest.mark.parametrize("name", READS_SPARSE)
def test_a_finalised_model_is_plain_and_says_the_same(name):
    model, optimizer, topology = elided(READS_SPARSE[name])
    train(model, optimizer, range(12))  # gradual reaches its target in the last
    topology.detach()
    model.eval()
    images, _ = batch(99)
    expected = model(images)
    active = {w.name: w.nnz for w in topology.weights}
    assert export.finalize(model) is model
    assert torch.allclose(model(images), expected, atol=1e-6)
    assert model.state_dict().keys() == small_net().state_dict().keys()
    for layer, nnz in active.items():
        assert int(model.get_submodule(layer).weight.count_nonzero()) <= nnz


def test_a_finalised_dense_recipe_keeps_every_weight():
    model = elision.elide(small_net(), methods.ReSprop(0.9))
    export.finalize(model)
    plain = small_net().state_dict()
    assert all(torch.equal(v, plain[k]) for k, v in model.state_dict().items())


def test_what_a_plain_layer_cannot_do_is_refused():
    from elision.operands import Cast
    from elision.products import Product

    table = elision.Table({Product.FORWARD: {"input": Cast("bf16")}})
    model = elision.elide(small_net(), elision.Recipe("bf16 inputs", table))
    with pytest.raises(ValueError, match=r"layer 0: .* through 'bf16'"):
        export.finalize(model)
    with pytest.raises(ValueError, match="not elided"):
        export.finalize(small_net())


def finalised():
    model, optimizer, topology = elided(methods.RigL(0.8, every=3, until=18))
    train(model, optimizer, range(8))
    topology.detach()
    return export.finalize(model).eval()


def test_csr_matrices_are_the_weights():
    model = finalised()
    matrices = export.to_csr(model)
    assert matrices
    for name, matrix in matrices.items():
        weight = model.get_submodule(name).weight.detach()
        assert torch.equal(matrix.to_dense(), weight.flatten(1))
        assert matrix.values().all()
        assert density(weight) < 0.5


def test_a_sparse_file_brings_the_state_back_and_is_smaller(tmp_path):
    model = finalised()
    file = tmp_path / "model.safetensors"
    export.save_sparse(model, file)
    state = export.load_sparse(file)
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    dense = tmp_path / "dense.safetensors"
    export.save_sparse(model, dense, below=0.0)
    weights = sum(p.numel() * 4 for p in model.parameters())
    assert dense.stat().st_size - file.stat().st_size > 0.2 * weights


def test_a_sparse_file_that_is_none_says_so(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"no")
    with pytest.raises(ValueError, match="not a complete sparse model file"):
        export.load_sparse(file)
    with pytest.raises(ValueError, match=r"call elision\.export\.finalize first"):
        export.save_sparse(elided(MOVING["rigl"])[0], file)


def test_onnx_computes_what_the_model_does(tmp_path):
    onnx = pytest.importorskip("onnx")
    reference = importlib.import_module("onnx.reference")
    model, (images, _) = finalised(), batch(0)
    file = tmp_path / "model.onnx"
    export.save_onnx(model, images, file)
    graph = onnx.load(file)
    onnx.checker.check_model(graph)
    feed = {graph.graph.input[0].name: images.numpy()}
    (found,) = reference.ReferenceEvaluator(graph).run(None, feed)
    assert torch.allclose(torch.from_numpy(found), model(images), atol=1e-5)


def test_a_finalised_model_can_be_elided_and_trained_again():
    model = elision.elide(finalised().train(), MOVING["set"])
    optimizer = sgd(model)
    topology = elision.topology.attach(model, optimizer)
    train(model, optimizer, range(4))
    assert any(move.grown for move in topology.history)


def test_gradients_still_flow_after_restore():
    model = elision.restore(elision.elide(small_net(), methods.Swat(0.5)))
    assert gradient(model, sgd(model), 0) > 0
