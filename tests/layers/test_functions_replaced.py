"""Functions replaced in unmodified models: where, by whom, for how long."""

import copy
import importlib.util
import inspect
import io
import pickle
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import elision
from elision import functional
from elision.functional import forget_warnings
from elision.layers import NoEffectWarning, between, replaced_functions
from elision.workloads.libraries.torchvision import import_torchvision

ALL = {
    "tanh": "k-tanh",
    "sigmoid": "k-sigmoid",
    "silu": "k-silu",
    "gelu": "k-gelu",
    "softmax": "taylor-softmax:order=2,check=false",
}

#: A recipe that changes every layer.
SPARSE = elision.methods.Swat(0.5, dense=())


def seventh(x: Tensor, dim: int | None = None) -> Tensor:
    """What nothing else computes."""
    return x / 7


#: Calls by what they compute; each is one call of torch's.
CALLS: dict[str, dict[str, Callable[[Tensor], Tensor]]] = {
    "tanh": {
        "module": nn.Tanh(),
        "function": torch.tanh,
        "method": lambda x: x.tanh(),
        "written over": lambda x: x.clone().tanh_(),
        "function written over": lambda x: torch.tanh_(x.clone()),
        "into another": lambda x: torch.tanh(x, out=torch.empty_like(x)),
        "functional": lambda x: torch.nn.functional.tanh(x),
    },
    "sigmoid": {
        "module": nn.Sigmoid(),
        "function": torch.sigmoid,
        "method": lambda x: x.sigmoid(),
        "expit": torch.special.expit,
        "written over": lambda x: x.clone().sigmoid_(),
    },
    "silu": {
        "module": nn.SiLU(),
        "in place": lambda x: nn.SiLU(inplace=True)(x.clone()),
        "function": F.silu,
    },
    "gelu": {
        "module": nn.GELU(),
        "tanh form": nn.GELU(approximate="tanh"),
        "function": F.gelu,
    },
    "softmax": {
        "module": nn.Softmax(-1),
        "functional": lambda x: F.softmax(x, -1),
        "by name": lambda x: F.softmax(input=x, dim=-1),
        "method": lambda x: x.softmax(-1),
        "function": lambda x: torch.softmax(x, dim=-1),
        "special": lambda x: torch.special.softmax(x, -1),
    },
}
CASES = [(kind, name) for kind, calls in CALLS.items() for name in calls]


class Calls(nn.Module):
    """A model that is one call."""

    def __init__(self, call: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        """The call."""
        return self.call(x)


def elided(model: nn.Module, functions: Any = ALL) -> Any:
    """A model with replaced functions and no recipe to speak of."""
    return elision.elide(model, "dense", functions=functions)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_every_form_of_a_call_is_replaced(kind: str, name: str, x: Tensor) -> None:
    call = CALLS[kind][name]
    model = elided(Calls(call), {kind: seventh})
    assert torch.equal(model(x), x / 7)
    assert [(r.what, r.by, r.calls) for r in replaced_functions(model)] == [
        (kind, "seventh", 1)
    ]
    assert torch.equal(elision.restore(model)(x), call(x))
    assert torch.equal(call(x), CALLS[kind][name](x))  # and never outside of the model


@pytest.mark.parametrize("kind", ["tanh", "sigmoid", "silu"])
def test_writing_over_keeps_the_gradient(kind: str, x: Tensor) -> None:
    names = {"tanh": "written over", "sigmoid": "written over", "silu": "in place"}
    x.requires_grad_()
    found, expected = (
        torch.autograd.grad(
            elided(Calls(CALLS[kind][n]), {kind: ALL[kind]})(x).sum(), x
        )
        for n in (names[kind], "function")
    )
    assert torch.equal(found[0], expected[0])


def test_logarithms_and_types_of_softmax(x: Tensor) -> None:
    functions = {"softmax": "taylor-softmax:order=4,check=false"}
    log = functional.log_taylor_softmax(x, 4, check=False)
    for call in (
        lambda x: F.log_softmax(x, -1),
        lambda x: x.log_softmax(-1),
        nn.LogSoftmax(-1),
    ):
        assert torch.equal(elided(Calls(call), functions)(x), log)
    wide = elided(Calls(lambda x: F.softmax(x, -1, dtype=torch.float64)), functions)(x)
    assert wide.dtype == torch.float64
    again = elided(Calls(lambda x: torch.softmax(x, -1, torch.float64)), functions)(x)
    assert torch.equal(wide, again)
    least = elided(Calls(lambda x: F.softmin(x, dim=-1)), functions)(x)
    assert torch.equal(least, functional.taylor_softmax(-x, 4, check=False))


# --- attention -------------------------------------------------------------------------


def masks(queries: int, keys: int) -> dict[str, dict[str, Any]]:
    allowed = torch.ones(queries, keys, dtype=torch.bool).tril()
    closed = allowed.clone()
    closed[0] = False
    added = torch.zeros(queries, keys).masked_fill(~allowed, -torch.inf)
    return {
        "none": {},
        "causal": {"is_causal": True},
        "bool": {"attn_mask": allowed},
        "added": {"attn_mask": added},
        "a closed row": {"attn_mask": closed},
        "scale": {"scale": 0.3},
    }


@pytest.mark.parametrize("mask", masks(1, 1))
def test_attention_with_torchs_softmax_is_torchs(mask: str) -> None:
    q, k, v = torch.randn(3, 2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    arguments = masks(5, 5)[mask]

    class Attend(nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(q, k, v, **arguments)

    expected = Attend()(q, k, v)
    found = elided(Attend(), {"softmax": torch.softmax})(q, k, v)
    assert torch.allclose(found, expected, atol=1e-6)
    taylor = elided(Attend(), {"softmax": ALL["softmax"]})(q, k, v)
    assert taylor.isfinite().all()
    assert not torch.allclose(taylor, expected, atol=1e-3)


def test_grouped_queries_and_dropout() -> None:
    q, k = torch.randn(1, 4, 3, 8), torch.randn(1, 2, 3, 8)
    call = Calls(lambda q: F.scaled_dot_product_attention(q, k, k, enable_gqa=True))
    expected = call(q)
    assert torch.allclose(
        elided(call, {"softmax": torch.softmax})(q), expected, atol=1e-6
    )
    dropped = Calls(lambda q: F.scaled_dot_product_attention(q, q, q, dropout_p=0.999))
    assert (elided(dropped, {"softmax": torch.softmax})(q) == 0).float().mean() > 0.5


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_multi_head_attention(need_weights: bool, training: bool) -> None:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, batch_first=True).train(training)
    x = torch.randn(3, 5, 8)
    padding = torch.zeros(3, 5, dtype=torch.bool)
    padding[1, 3:] = True

    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = attention

        def forward(self, x: Tensor) -> Any:
            return self.attention(
                x, x, x, key_padding_mask=padding, need_weights=need_weights
            )

    with torch.set_grad_enabled(training):  # without: torch's fast path, were it plain
        expected = Attends()(x)
        found = elided(Attends(), {"softmax": torch.softmax})(x)
        other = elided(Attends(), {"softmax": ALL["softmax"]})(x)
    assert torch.allclose(found[0], expected[0], atol=1e-6)
    assert not torch.allclose(other[0], expected[0], atol=1e-4)
    if need_weights:
        assert torch.allclose(found[1], expected[1], atol=1e-6)
        assert torch.allclose(other[1].sum(-1), torch.ones(3, 5), atol=1e-6)
        assert not other[1][1, :, 3:].any()
    assert elision.restore(attention) is attention


def test_encoder_layers_take_no_fast_path() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, activation="gelu", batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    x = torch.randn(2, 5, 8)
    with torch.no_grad():
        expected = encoder(x)
        elided(encoder, {"softmax": torch.softmax, "gelu": F.gelu})
        assert torch.allclose(encoder(x), expected, atol=1e-5)
        assert [r.calls for r in replaced_functions(encoder)] == [2, 2]
        elided(encoder, {"gelu": seventh})
        assert not torch.allclose(encoder(x), expected, atol=1e-3)
        assert torch.equal(elision.restore(encoder)(x), expected)


# --- life of a replacement -------------------------------------------------------------


class Net(nn.Module):
    """Layers and functions in the forms that programs use."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 3)
        self.act = nn.Tanh()

    def inner(self, x: Tensor) -> Tensor:
        """What a checkpoint computes again."""
        return self.second(torch.sigmoid(self.first(x)))

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        """``(..., 4)`` to ``(..., 3)``."""
        return self.act(self.inner(x)) * scale


FUNCTIONS = {"tanh": "k-tanh", "sigmoid": "k-sigmoid"}


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net()


def by_hand(net: Net, x: Tensor) -> Tensor:
    return functional.k_tanh(net.second(functional.k_sigmoid(net.first(x))))


def test_the_model_stays_what_it_was(net: Net, x: Tensor) -> None:
    keys, plain, signature = (
        list(net.state_dict()),
        net(x),
        inspect.signature(net.forward),
    )
    modules = dict(net.named_modules())
    assert elided(net, FUNCTIONS) is net
    assert torch.allclose(net(x), by_hand(net, x), atol=1e-6)
    assert torch.equal(net(x, scale=2.0), 2 * net(x))
    assert list(net.state_dict()) == keys
    assert dict(net.named_modules()) == modules
    assert isinstance(net, Net)
    assert type(net).__name__ == "Net"
    assert inspect.signature(net.forward) == signature
    elision.restore(net)
    assert type(net) is Net
    assert torch.equal(net(x), plain)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert not any(a for m in net.modules() for a in vars(m) if "elision" in a)


@pytest.mark.parametrize("copied", ["deepcopy", "pickle", "file", "state"])
def test_copies_compute_the_same(net: Net, x: Tensor, copied: str) -> None:
    elided(net, FUNCTIONS)
    expected = net(x)
    if copied == "deepcopy":
        other = copy.deepcopy(net)
    elif copied == "pickle":
        other = pickle.loads(pickle.dumps(net))
    elif copied == "file":
        file = io.BytesIO()
        torch.save(net, file)
        file.seek(0)
        other = torch.load(file, weights_only=False)
    else:
        other = elided(Net(), FUNCTIONS)
        other.load_state_dict(net.state_dict())
    assert torch.equal(other(x), expected)
    elision.restore(other)
    assert type(other) is Net
    assert torch.equal(net(x), expected)  # the original is as it was
    assert not torch.equal(other(x), expected)


def test_other_functions_replace_those_before(net: Net, x: Tensor) -> None:
    plain = net(x)
    elided(net, FUNCTIONS)
    elided(net, {"tanh": "hard-tanh"})
    expected = net.second(torch.sigmoid(net.first(x))).clamp(-1, 1)
    assert torch.allclose(net(x), expected, atol=1e-6)
    elision.elide(net, SPARSE)  # no functions: none
    assert replaced_functions(net) == ()
    assert type(net) is Net
    elision.restore(net)
    assert torch.equal(net(x), plain)


def test_a_refused_change_leaves_the_functions(net: Net, x: Tensor) -> None:
    elided(net, FUNCTIONS)
    before = net(x)
    with pytest.raises(ValueError, match=r"tied='nothing' names no layer"):
        elision.elide(net, "dense", tied=("nothing",), functions={"tanh": "hard-tanh"})
    with pytest.raises(ValueError, match="unknown tanh 'k-than'"):
        elision.elide(net, "dense", functions={"tanh": "k-than"})
    with pytest.raises(ValueError, match="unknown function to replace 'relu'"):
        elision.elide(net, "dense", functions={"relu": "k-tanh"})
    with pytest.raises(TypeError, match="functions must map"):
        elision.elide(net, "dense", functions="k-tanh")  # pyright: ignore[reportArgumentType]
    assert torch.equal(net(x), before)
    assert [r.by for r in replaced_functions(net)] == ["k-tanh", "k-sigmoid"]
    elision.restore(net)
    assert type(net) is Net


def test_a_single_layer_that_recipes_reach_is_a_model_too(x: Tensor) -> None:
    layer = nn.Linear(4, 4)
    with pytest.warns(NoEffectWarning, match=r"computed no tanh \(k-tanh\)"):
        elided(layer, {"tanh": "k-tanh"})(x)
    elision.elide(layer, SPARSE, functions={"tanh": "k-tanh"})
    assert type(elision.restore(layer)) is nn.Linear


def test_recipes_and_functions_go_together(net: Net, x: Tensor) -> None:
    found = elision.elide(copy.deepcopy(net), SPARSE, functions={"tanh": seventh})
    expected = elision.elide(net, SPARSE)
    assert torch.allclose(found(x), net.inner(x) / 7, atol=1e-6)
    with elision.record(found) as trace:
        found(x).sum().backward()
    assert len(list(trace)) > 3
    assert isinstance(expected, Net)


def test_the_mode_is_left_on_every_way_out(net: Net, x: Tensor) -> None:
    elided(net, FUNCTIONS)
    before = torch.overrides._get_current_function_mode_stack()

    def fail(*args: object) -> None:
        raise kind

    for kind in (ValueError, KeyboardInterrupt):
        handle = net.second.register_forward_hook(fail)
        with pytest.raises(kind):
            net(x)
        handle.remove()
        assert torch.overrides._get_current_function_mode_stack() == before
        assert torch.equal(torch.tanh(x), x.tanh())
    assert torch.allclose(net(x), by_hand(net, x), atol=1e-6)


def test_models_inside_models_and_calls_inside_calls(net: Net, x: Tensor) -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = net

        def forward(self, x: Tensor, again: bool = True) -> Tensor:
            y = torch.tanh(self.inner(x))
            return self(x, again=False) + y if again else y

    model = elided(Outer(), {"tanh": seventh, "sigmoid": seventh})
    elided(net, {"sigmoid": "hard-sigmoid"})  # its own go before the outer ones
    expected = net.second(F.hardsigmoid(net.first(x))) / 49
    with pytest.warns(NoEffectWarning, match="no sigmoid"):  # the inner one computes it
        assert torch.allclose(model(x), 2 * expected, atol=1e-6)
    assert torch.allclose(net(x), (49 * expected).tanh(), atol=1e-6)
    elision.restore(model)
    assert replaced_functions(net) == ()


def test_threads_have_replacements_of_their_own(net: Net, x: Tensor) -> None:
    elided(net, FUNCTIONS)
    inside, go, seen = threading.Event(), threading.Event(), []

    def wait(*args: object) -> None:
        inside.set()
        go.wait(10)

    handle = net.act.register_forward_pre_hook(wait)
    thread = threading.Thread(target=lambda: seen.append(net(x)))
    thread.start()
    assert inside.wait(10)
    assert torch.equal(torch.tanh(torch.tensor(9.0)), torch.tensor(9.0).tanh())
    other = torch.tanh(x)
    go.set()
    thread.join()
    handle.remove()
    assert torch.equal(other, torch.tanh(x))
    assert torch.equal(seen[0], net(x))


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints_compute_the_replacements_again(
    net: Net, x: Tensor, reentrant: bool
) -> None:
    class Checkpointed(Net):
        def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
            y = checkpoint(Part(self), x, use_reentrant=reentrant)
            assert isinstance(y, Tensor)
            return self.act(y) * scale

    class Part(nn.Module):
        def __init__(self, net: Net) -> None:
            super().__init__()
            self.part = net.first, net.second, net.gate

        def forward(self, x: Tensor) -> Tensor:
            first, second, gate = self.part
            return second(gate(first(x)))

    functions = {"sigmoid": seventh, "tanh": torch.tanh}
    model = Checkpointed()
    model.gate = nn.Sigmoid()
    net.gate = nn.Sigmoid()
    model.load_state_dict(net.state_dict())
    net.inner = lambda x: net.second(net.gate(net.first(x)))  # type: ignore[method-assign]
    x.requires_grad_()
    expected = torch.autograd.grad(
        elided(net, functions)(x).sum(), [x, *net.parameters()]
    )
    elided(model, functions)(x).sum().backward()
    found = [x.grad, *(p.grad for p in model.parameters())]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours is not None
        assert torch.allclose(ours, theirs, atol=1e-6)
    assert not torch.overrides._get_current_function_mode_stack()


# --- what is said ----------------------------------------------------------------------


def test_what_met_no_call_is_said_once(net: Net, x: Tensor) -> None:
    elided(net, {"tanh": "k-tanh", "gelu": "k-gelu", "softmax": ALL["softmax"]})
    with pytest.warns(NoEffectWarning, match=r"no gelu \(k-gelu\), softmax \(taylor"):
        net(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net(x)


def test_functions_that_hide_a_replaced_one_are_named_once(x: Tensor) -> None:
    model = Calls(lambda x: F.glu(x) + F.mish(x).tanh()[..., :2])
    elided(model, {"sigmoid": "k-sigmoid", "tanh": "k-tanh"})
    with pytest.warns(NoEffectWarning) as caught:
        model(x)
    words = [str(w.message) for w in caught]
    assert "no sigmoid (k-sigmoid)" in words[0]
    assert "glu (its sigmoid), mish (its tanh)" in words[1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(x)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_scripted_modules_are_named() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.script(nn.Sequential(nn.Tanh()))
    model = nn.Sequential(nn.Tanh(), scripted)
    with pytest.warns(NoEffectWarning, match="scripted modules keep .*: 1, 1.0"):
        elided(model, {"tanh": "k-tanh"})


def test_explain_tells_of_them(net: Net, x: Tensor) -> None:
    elided(net, FUNCTIONS)
    assert "; tanh is k-tanh; sigmoid is k-sigmoid" in str(elision.explain(net))
    found = elision.explain(net, x)
    assert "tanh is k-tanh (1 call by tanh); sigmoid is k-sigmoid (1 call by" in str(
        found
    )
    assert [(f.what, f.calls, f.through) for f in found.functions] == [
        ("tanh", 1, ("tanh",)),
        ("sigmoid", 1, ("sigmoid",)),
    ]
    assert elision.explain(elision.restore(net)).functions == ()


def test_a_plain_model_cannot_be_made_of_it(net: Net) -> None:
    elision.elide(net, SPARSE, functions=FUNCTIONS)
    with pytest.raises(
        ValueError, match=r"functions between the layers.*tanh, sigmoid"
    ):
        elision.export.finalize(net)
    elision.elide(net, SPARSE)
    elision.export.finalize(net)


@pytest.mark.filterwarnings("ignore:Dynamo detected")
@pytest.mark.parametrize("again", [False, True])
def test_compiled_models(net: Net, x: Tensor, again: bool) -> None:
    expected = by_hand(net, x)
    elided(net, FUNCTIONS)
    if again:  # run before, plainly
        net(x)
    torch._dynamo.reset()
    graphs = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(net, backend=backend, fullgraph=True)
    for _ in range(3):
        assert torch.allclose(compiled(x), expected, atol=1e-6)
    assert len(graphs) == 1
    torch._dynamo.reset()


# --- models of libraries ---------------------------------------------------------------


def _imported(name: str) -> Any:
    """An optional library; torchvision, which they import, made to load first."""
    if importlib.util.find_spec("torchvision") is not None:
        import_torchvision()
    return pytest.importorskip(name)


def test_a_vision_transformer_of_timm() -> None:
    timm = _imported("timm")
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, depth=2, num_classes=5
    ).eval()
    x = torch.randn(2, 3, 32, 32)
    expected = model(x)
    elided(model, {"gelu": F.gelu, "softmax": torch.softmax})
    assert torch.allclose(model(x), expected, atol=1e-5)
    assert [r.calls for r in replaced_functions(model)] == [2, 2]
    elided(model, {"gelu": "k-gelu", "softmax": ALL["softmax"]})
    model(x).sum().backward()
    assert not torch.allclose(model(x), expected, atol=1e-4)
    assert torch.allclose(elision.restore(model)(x), expected, atol=1e-6)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_language_model_of_transformers(attention: str) -> None:
    transformers = _imported("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        vocab_size=50,
        attn_implementation=attention,
    )
    model = transformers.BertForSequenceClassification(config).eval()
    ids = torch.randint(0, 50, (2, 7))
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[1, 4:] = 0
    expected = model(input_ids=ids, attention_mask=mask).logits
    exact = {"gelu": F.gelu, "softmax": torch.softmax, "tanh": torch.tanh}
    elided(model, exact)
    assert torch.allclose(
        model(input_ids=ids, attention_mask=mask).logits, expected, atol=1e-5
    )
    assert [r.calls for r in replaced_functions(model)] == [2, 2, 1]
    functions = {"gelu": "k-gelu", "softmax": ALL["softmax"], "tanh": "k-tanh"}
    found = elided(model, functions)(input_ids=ids, attention_mask=mask).logits
    assert found.isfinite().all()
    # What is masked changes nothing.
    other = ids.clone()
    other[1, 4:] = 3
    again = model(input_ids=other, attention_mask=mask).logits
    assert torch.allclose(found, again, atol=1e-6)
    assert type(elision.restore(model)) is transformers.BertForSequenceClassification


# --- modules to build with -------------------------------------------------------------


def test_modules_compute_their_functions(x: Tensor) -> None:
    target = torch.randint(0, 4, (2, 3))
    forget_warnings()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pairs = [
            (between.KTanh()(x), functional.k_tanh(x)),
            (between.KSigmoid()(x), functional.k_sigmoid(x)),
            (between.KSiLU()(x), functional.k_silu(x)),
            (between.KGELU()(x), functional.k_gelu(x)),
            (between.TaylorSoftmax(4, 1)(x), functional.taylor_softmax(x, 4, 1)),
            (
                between.SMSoftmax(0.2)(x, target),
                functional.sm_softmax(x, target, 0.2),
            ),
            (
                between.SMTaylorSoftmax(0.2, 4)(x, target),
                functional.sm_taylor_softmax(x, target, 0.2, 4),
            ),
        ]
    for found, expected in pairs:
        assert torch.equal(found, expected)
    forget_warnings()


@pytest.mark.parametrize(
    "make",
    [
        between.TaylorSoftmax,
        between.SMTaylorSoftmax,
        between.TaylorSoftmaxLoss,
        between.SMTaylorSoftmaxLoss,
    ],
)
def test_modules_check_their_parameters(make: Any) -> None:
    with pytest.raises(ValueError, match=rf"{make.__name__}\(order=3\): must be even"):
        make(order=3)
    with pytest.raises(ValueError, match="'finite' or 'infinite'"):
        make(backward="none")
    assert "order=4, backward='infinite'" in repr(make(order=4, backward="infinite"))


@pytest.mark.parametrize("make", [between.SMSoftmax, between.SMSoftmaxLoss])
def test_margins_are_checked(make: Any) -> None:
    with pytest.raises(ValueError, match=rf"{make.__name__}\(margin=-1\)"):
        make(margin=-1)
    assert "margin=0.25" in repr(make(margin=0.25))
