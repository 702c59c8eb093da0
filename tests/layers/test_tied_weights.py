"""A weight that another module reads, too, stays as it is unless elide is told."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import elision
from elision.layers import DenseReadWarning, NoEffectWarning, TiedWeightWarning
from elision.methods import DST, MeProp, RigL, Static, Swat, SwatErk


class LanguageModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.emb, self.fc = nn.Embedding(20, 16), nn.Linear(16, 16)
        self.head = nn.Linear(16, 20, bias=False)
        self.head.weight = self.emb.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.fc(self.emb(x)))


class SameMemory(LanguageModel):
    """The head has a parameter of its own over the embedding's memory."""

    def __init__(self) -> None:
        super().__init__()
        self.head.weight = nn.Parameter(self.emb.weight.data)


class Bare(LanguageModel):
    """The weight is a bare parameter of the model, which multiplies with it itself."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = None
        self.shared = self.head.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.fc(F.embedding(x, self.shared)))


TIED = [LanguageModel, SameMemory, Bare]
METHODS = [
    RigL(0.8),
    Static(0.8),
    Swat(0.8, dense=(":embedding",)),
    SwatErk(0.8),
    DST(),
]


def weight(model: nn.Module) -> Tensor:
    return model.head.weight  # pyright: ignore[reportReturnType, reportAttributeAccessIssue]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
@pytest.mark.parametrize("make", TIED)
def test_a_tied_layer_stays_dense_and_one_warning_says_so(
    make: Callable[[], nn.Module], method: elision.Recipe
) -> None:
    model = make()
    before = weight(model).detach().clone()
    with pytest.warns(TiedWeightWarning, match=r"head \(with ") as caught:
        elision.elide(model, method, engine="torch")
    assert len(caught) == 1
    assert torch.equal(weight(model), before)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    elision.topology.attach(model, optimizer)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.arange(6)).square().mean().backward()
        optimizer.step()
    assert (weight(model) != 0).all()
    plain = copy.deepcopy(model.head)
    elision.restore(plain)  # pyright: ignore[reportArgumentType]
    x = torch.randn(3, 16)
    assert torch.equal(model.head(x), plain(x))  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize("make", TIED)
def test_a_tied_layer_is_included_by_its_name(make: Callable[[], nn.Module]) -> None:
    model = elision.elide(make(), Static(0.75), engine="torch", tied=("he*",))
    assert 0 < float((weight(model) != 0).float().mean()) < 0.8


def test_a_pattern_of_tied_layers_that_names_none_is_refused() -> None:
    with pytest.raises(ValueError, match="names no layer; layers: emb, fc, head"):
        elision.elide(LanguageModel(), Static(0.8), tied=("heads",))


def test_a_method_that_leaves_weights_alone_reaches_a_tied_layer() -> None:
    model = elision.elide(LanguageModel(), MeProp(0.3, dense=()), engine="torch")
    assert elision.explain(model).reached == ["emb", "fc", "head"]


def test_an_embedding_and_the_head_that_shares_its_table_move_one_mask() -> None:
    model: Any = elision.elide(LanguageModel(), RigL(0.5, dense=()), engine="torch")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    elision.topology.attach(model, optimizer, steps=8)
    masks = [m.elision_weight_for_forward_mask for m in (model.emb, model.head)]
    before = masks[0].clone()
    for _ in range(8):
        optimizer.zero_grad()
        model(torch.arange(20)).square().mean().backward()
        optimizer.step()
    assert torch.equal(*masks)
    assert not torch.equal(masks[0], before)
    assert not weight(model)[~masks[0]].any()


def test_one_memory_under_two_parameters_has_no_mask() -> None:
    with pytest.warns(TiedWeightWarning, match=r"head \(with emb\)"):
        elision.elide(SameMemory(), Static(0.5, dense=()), engine="torch")


def test_layers_of_the_table_may_share_a_weight_among_themselves() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    model[2].weight = model[0].weight
    elision.elide(model, Static(0.75, dense=()), engine="torch")
    assert int(model[0].weight.count_nonzero()) == 16  # pyright: ignore


def test_a_layer_that_is_registered_twice_is_one_layer() -> None:
    layer = nn.Linear(8, 8)
    model = elision.elide(nn.Sequential(layer, layer), Static(0.75, dense=()))
    assert int(model[0].weight.count_nonzero()) == 16  # pyright: ignore


# --- readers of a weight that do not call the layer -----------------------------------


class Head(nn.Module):
    """Multiplies with its layer's weight itself, one way or another."""

    def __init__(self, read: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.fc, self.read = nn.Linear(8, 8), nn.Linear(8, 8), read

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.first(x), self.fc.weight)


READS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "linear": F.linear,
    "matmul": lambda x, w: x @ w.T,
    "einsum": lambda x, w: torch.einsum("bi,oi->bo", x, w),
    "addmm": lambda x, w: torch.addmm(torch.zeros(8), x, w.t()),
}


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("read", READS)
def test_a_product_with_the_weight_outside_of_its_layer_is_named_once(
    read: str, training: bool, grad: bool
) -> None:
    model = Head(READS[read]).train(training)
    elision.elide(model, Swat(0.5, dense=()), engine="torch")
    with torch.set_grad_enabled(grad):
        with pytest.warns(DenseReadWarning, match="layer: fc; call it"):
            model(torch.ones(2, 8))
        model(torch.ones(2, 8))
        model.train(not training)(torch.ones(2, 8))  # named already


def test_reading_a_weight_without_multiplying_is_nobodys_business() -> None:
    def penalised(x: Tensor, w: Tensor) -> Tensor:
        return x * w.square().mean() + w.shape[0] + w.norm()

    model = elision.elide(Head(penalised), Swat(0.5, dense=()), engine="torch")
    model(torch.ones(2, 8)).sum().backward()
    elision.restore(model)
    assert not model._forward_pre_hooks
    assert not model._forward_hooks


def encoder(**options: object) -> nn.Module:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(
        16,
        2,
        32,
        batch_first=True,
        dropout=0.0,
        **options,  # pyright: ignore
    )
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=True)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_torchs_fused_encoder_calls_its_elided_layers(
    activation: str, padded: bool
) -> None:
    model = encoder(activation=activation)
    elision.elide(model, Swat(0.8, dense=()), engine="torch").eval()
    x = torch.randn(3, 5, 16)
    padding = torch.zeros(3, 5, dtype=torch.bool)
    padding[1, 3:] = padded
    mask = padding if padded else None
    slow = model(x, src_key_padding_mask=mask).detach()
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            fast = model(x, src_key_padding_mask=mask)
        torch.testing.assert_close(fast[~padding], slow[~padding])
    other = copy.deepcopy(model)
    with torch.no_grad():
        torch.testing.assert_close(
            other(x, src_key_padding_mask=mask)[~padding], slow[~padding]
        )
    elision.restore(model)
    assert model.use_nested_tensor  # pyright: ignore
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_attention_that_reads_a_registered_projection_is_named() -> None:
    class Shifted(nn.MultiheadAttention):
        """Attention whose output projection is a layer of the table."""

        def __init__(self) -> None:
            super().__init__(16, 2, batch_first=True)
            self.out_proj = nn.Linear(16, 16)  # pyright: ignore

        def forward(self, *args: Tensor) -> object:
            return super().forward(*args)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = Shifted()

        def forward(self, x: Tensor) -> object:
            return self.attention(x, x, x)

    with pytest.warns(NoEffectWarning, match="of their own stay dense: attention"):
        model = elision.elide(Model(), Swat(0.5, dense=()), engine="torch")
    with pytest.warns(DenseReadWarning, match="out_proj"):
        model(torch.randn(2, 5, 16))


def test_attention_by_functions_of_its_projections_is_named() -> None:
    class Windowed(nn.Module):
        """As in torchvision's Swin: layers that are never called."""

        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.proj = nn.Linear(16, 48), nn.Linear(16, 16)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = F.linear(x, self.qkv.weight, self.qkv.bias).chunk(3, -1)
            y = F.scaled_dot_product_attention(q, k, v)
            return F.linear(y, weight=self.proj.weight)

    model = elision.elide(Windowed(), Swat(0.5, dense=()), engine="torch")
    with pytest.warns(DenseReadWarning, match="qkv, proj"):
        model(torch.randn(1, 4, 16))
