"""An elided model computes the same whichever engine its layers use."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import elision
from elision.engines import AutoEngine, NativeEngine
from elision.engines import auto as choice
from elision.engines import decision as decided
from elision.engines.native import library
from elision.layers import compiled_product, elided_layers
from elision.layers import step as layer_step
from elision.methods import Dense, MeProp, ReSprop, RigL, Swat
from elision.operands.split_reuse import shared_part
from elision.products import ConvolutionParameters, Product

needs_native = pytest.mark.skipif(
    library.unavailable() is not None, reason=str(library.unavailable())
)


def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(12, 20, 3, 2, 1, bias=False),
        nn.ReLU(),
        nn.Conv2d(20, 20, 3, padding=1, groups=4),
        nn.Flatten(),
        nn.Linear(20 * 16, 30),
        nn.ReLU(),
        nn.Linear(30, 5),
    )


@pytest.fixture
def eager_auto(tmp_path, monkeypatch):
    """auto with decisions of this test, for layers of any size."""
    monkeypatch.setenv("ELISION_CACHE", str(tmp_path))
    monkeypatch.setattr(choice, "LEAST_MACS", 0)
    monkeypatch.setattr(decided, "_OPEN", {})


def layered(elided):
    """Compute product by product, as layers do that have no blocked form."""
    for _, layer in elision.layers.elided_layers(elided):
        layer._elision_forms = None
    return elided


@needs_native
@pytest.mark.parametrize("engine", ["native", "auto"])
@pytest.mark.parametrize(
    "recipe", [Swat(sparsity=0.7), ReSprop(reuse=0.8), MeProp(keep=0.2)]
)
def test_steps_are_the_same(eager_auto, engine, recipe):
    x, target = torch.randn(9, 3, 8, 8), torch.randint(0, 5, (9,))
    losses, gradients = {}, {}
    for name in ("torch", engine):
        elided = layered(elision.elide(model(), recipe, engine=name))
        optimizer = torch.optim.SGD(elided.parameters(), 0.05)
        losses[name] = []
        torch.manual_seed(1)
        for _ in range(4):
            optimizer.zero_grad()
            loss = F.cross_entropy(elided(x), target)
            loss.backward()
            optimizer.step()
            losses[name].append(loss.item())
            gradients.setdefault(name, [p.grad.clone() for p in elided.parameters()])
    assert losses[engine] == pytest.approx(losses["torch"], rel=1e-4)
    for found, expected in zip(gradients[engine], gradients["torch"], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


@needs_native
def test_engines_belong_to_layers_and_go_with_restore():
    elided = elision.elide(model(), Swat(sparsity=0.5), engine="native")
    twin = copy.deepcopy(elided)
    engines = [layer._elision_engine for _, layer in elided_layers(elided)]
    assert len({id(e) for e in engines}) == len(engines) == 5
    assert {e.name for e in engines} == {"native"}
    assert torch.allclose(twin(torch.ones(1, 3, 8, 8)), elided(torch.ones(1, 3, 8, 8)))
    plain = elision.restore(elided)
    assert not any(hasattr(m, "_elision_engine") for m in plain.modules())


def test_an_engine_that_cannot_be_had_changes_nothing(monkeypatch):
    untouched = model()
    with pytest.raises(ValueError, match="unknown engine 'cuda'"):
        elision.elide(untouched, Swat(), engine="cuda")
    monkeypatch.setattr(library, "unavailable", lambda: "no compiler")
    with pytest.raises(RuntimeError, match="no compiler"):
        elision.elide(untouched, Swat(), engine="native")
    assert list(elided_layers(untouched)) == []


class Gradients:
    """Runs steps of a model and keeps everything that comes out, to the last bit."""

    def __init__(self, elided):
        self.model = elided
        self.optimizer = torch.optim.SGD(elided.parameters(), 0.05, momentum=0.9)

    def steps(self, numbers):
        seen = []
        for number in numbers:
            generator = torch.Generator().manual_seed(number)
            x = torch.randn(9, 3, 8, 8, generator=generator)
            target = torch.randint(0, 5, (9,), generator=generator)
            self.optimizer.zero_grad()
            F.cross_entropy(self.model(x), target).backward()
            seen += [p.grad.clone() for p in self.model.parameters()]
            self.optimizer.step()
        return [*seen, *(p.detach().clone() for p in self.model.parameters())]


def equal(found, expected):
    return all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@needs_native
@pytest.mark.parametrize(
    ("engine", "recipe"),
    [("auto", Dense()), ("auto", Swat(sparsity=0.0)), ("native", Dense())],
)
def test_what_is_kept_whole_is_plain_autograd_to_the_last_bit(
    eager_auto, engine, recipe
):
    plain = Gradients(model()).steps(range(3))
    elided = elision.elide(model(), recipe, engine=engine)
    assert equal(Gradients(elided).steps(range(3)), plain)


@needs_native
@pytest.mark.parametrize("faster", ["native", "torch"])
def test_a_resumed_run_repeats_the_uninterrupted_one(eager_auto, monkeypatch, faster):
    def tried(self, *_):
        return {"native": 1.0, "torch": 2.0 if faster == "native" else 0.5}

    monkeypatch.setattr(AutoEngine, "_try", tried)

    def start():
        elided = elision.elide(model(), Swat(sparsity=0.7), engine="auto")
        return Gradients(layered(elided))

    whole = start()
    expected = [whole.steps(range(3)), whole.steps(range(3, 6))][1]
    first = start()
    first.steps(range(3))
    # A new process: what was decided is read from the file, and no trial disturbs it.
    monkeypatch.setattr(decided, "_OPEN", {})
    monkeypatch.setattr(AutoEngine, "_try", None)
    second = start()
    second.model.load_state_dict(first.model.state_dict())
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    assert equal(second.steps(range(3, 6)), expected)
    used = {d.winner for d in decided.decisions()}
    assert used == {faster}


@needs_native
def test_a_mask_that_stands_asks_for_its_own_gradient_alone(monkeypatch):
    asked = []
    compute = NativeEngine.compute

    def spy(self, product, hint):
        asked.append((product.kind, hint.wanted is not None))
        return compute(self, product, hint)

    monkeypatch.setattr(NativeEngine, "compute", spy)
    recipe = RigL(sparsity=0.8, every=2, until=9)
    elided = layered(elision.elide(model(), recipe, engine="native"))
    optimizer = torch.optim.SGD(elided.parameters(), 0.05)
    elision.topology.attach(elided, optimizer)
    masked = []
    for _ in range(4):
        asked.clear()
        optimizer.zero_grad()
        elided(torch.randn(9, 3, 8, 8)).square().mean().backward()
        optimizer.step()
        masked.append((Product.WEIGHT_GRAD, True) in asked)
    # Steps count from 1: before every second step RigL looks at the whole gradient.
    assert masked == [True, False, True, False]


@needs_native
@pytest.mark.parametrize("pairing", ["random", "batch_mean", "same_index"])
def test_a_reused_gradient_is_split_off(monkeypatch, pairing):
    shared = []

    def spy(product, *rest):
        shared.append(product)
        return shared_part(product, *rest)

    monkeypatch.setattr(layer_step, "shared_part", spy)
    found = []
    for engine in ("torch", "native"):
        recipe = ReSprop(reuse=0.6, pairing=pairing, restart=3)
        elided = elision.elide(model(), recipe, engine=engine)
        torch.manual_seed(1)
        x = torch.randn(9, 3, 8, 8)
        for _ in range(8):
            elided.zero_grad()
            elided(x + 0.1 * torch.randn_like(x)).square().mean().backward()
        found.append([p.grad for p in elided.parameters()])
    for native, expected in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(native, expected, rtol=1e-3, atol=1e-5)
    # Two convolutions (one has groups), three restarts in eight steps.
    parts = 0 if pairing == "same_index" else 2 * (8 - 3)
    assert shared.count(Product.INPUT_GRAD) == parts // 2
    assert shared.count(Product.WEIGHT_GRAD) == parts


IN_GRAPH = {
    "swat": (Swat(sparsity=0.7), {"forward", "input_grad", "weight_grad"}),
    "rigl": (RigL(sparsity=0.8), {"forward", "input_grad", "weight_grad"}),
    "meprop": (MeProp(keep=0.2), {"input_grad", "weight_grad"}),
    "resprop": (ReSprop(reuse=0.8), set()),  # split eagerly only, so torch's
}


@needs_native
@pytest.mark.parametrize("name", IN_GRAPH)
def test_a_compiled_model_runs_the_native_kernels(monkeypatch, name):
    recipe, expected = IN_GRAPH[name]
    ran = []
    product = NativeEngine._product

    def spy(self, kind, *args):
        result = product(self, kind, *args)
        ran.append(kind.value if result is not None else None)
        return result

    monkeypatch.setattr(NativeEngine, "_product", spy)
    found = {}
    for compiled in (False, True):
        torch._dynamo.reset()
        elided = elision.elide(model(), recipe, engine="native")
        optimizer = torch.optim.SGD(elided.parameters(), 0.05, momentum=0.9)
        if name == "rigl":
            elision.topology.attach(elided, optimizer)
        run = layered(elided)
        if compiled:
            run = torch.compile(elided, fullgraph=True, backend="aot_eager")
        ran.clear()
        torch.manual_seed(2)
        for _ in range(3):
            optimizer.zero_grad()
            run(torch.randn(9, 3, 8, 8)).square().mean().backward()
            optimizer.step()
        assert set(ran) == (expected if compiled or expected else set(ran))
        found[compiled] = [p.grad.clone() for p in elided.parameters()]
    for eager, graph in zip(found[False], found[True], strict=True):
        torch.testing.assert_close(graph, eager, rtol=1e-3, atol=1e-6)


@needs_native
@pytest.mark.parametrize("faster", ["native", "torch"])
def test_auto_decides_when_the_graph_runs(eager_auto, monkeypatch, faster):
    tried = []

    def fastest(candidates, trials):
        tried.append(list(candidates))
        return {n: 1.0 if n == faster else 2.0 for n in candidates}

    monkeypatch.setattr(choice, "fastest", fastest)
    torch._dynamo.reset()
    elided = elision.elide(model(), Swat(sparsity=0.7), engine="auto")
    graph = torch.compile(elided, fullgraph=True, backend="aot_eager")
    assert not tried
    for _ in range(2):
        graph(torch.ones(9, 3, 8, 8)).sum().backward()
    decisions = [d for d in decided.decisions()]
    assert len(tried) == len(decisions) > 0
    assert {d.winner for d in decisions} == {faster}


def test_the_operator_passes_torch_s_own_checks():
    weight, state = torch.randn(6, 4, 3, 2), []
    convolution = ConvolutionParameters((2, 1), (1, 2), (1, 2)).numbers
    x, g = torch.randn(5, 4, 7, 8), torch.randn(5, 6, 4, 10)
    shapes = (list(x.shape), list(weight.shape), convolution, "native")
    rows = ([5, 4], [3, 4], [], "native")
    up = ConvolutionParameters((2,), (1,), (1,), 2, True, (1,)).numbers
    line = ([5, 4, 6], [4, 3, 3], up, "native")
    for first, second, kind, sparse, how in (
        (x, weight, "forward", "weight", shapes),
        (g, weight, "input_grad", "weight", shapes),
        (g, x, "weight_grad", "input", shapes),
        (torch.randn(5, 4), torch.randn(3, 4), "forward", "weight", rows),
        (torch.randn(5, 4, 6), torch.randn(4, 3, 3), "forward", "weight", line),
        (torch.randn(5, 6, 12), torch.randn(5, 4, 6), "weight_grad", "input", line),
    ):
        arguments = (first, second, kind, sparse, None, state, *how)
        torch.library.opcheck(
            compiled_product.product,
            arguments,
            test_utils=("test_schema", "test_faketensor"),
        )


@needs_native
@pytest.mark.parametrize("engine", ["torch", "native", "auto"])
def test_an_input_of_the_wrong_width_is_refused_in_torch_s_words(engine):
    for layer, x, message in (
        (nn.Conv2d(3, 32, 3), torch.randn(2, 4, 8, 8), "expected input.*3 channels"),
        (nn.Linear(8, 4), torch.randn(2, 9), r"cannot be multiplied \(2x9 and 8x4\)"),
    ):
        recipe = Swat(sparsity=0.9, dense=())
        model = elision.elide(nn.Sequential(layer), recipe, engine=engine)
        with pytest.raises(RuntimeError, match=message):
            model(x)
