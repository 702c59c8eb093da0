"""Work outside the table: totals are torch's flop counter's, explain lists it by name."""

import pytest
import torch
import torch.nn.functional as F
from operand_recipes import assert_close
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import elision
from elision.layers import NoEffectWarning, TiedWeightWarning, WorkMeter
from elision.methods import Swat


class Attention(nn.Module):
    """Attention by einsum and matmul, and a head of bare parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.mix = nn.Parameter(torch.randn(16, 16) / 4)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        scores = torch.einsum("btd,bsd->bts", q, k).softmax(-1)
        return self.out(torch.matmul(scores, v)) @ self.mix


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.middle = nn.Conv2d(8, 8, 3, padding=1)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.skip = nn.Conv2d(7, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.down(x))
        return self.skip(torch.cat([self.up(F.relu(self.middle(h))), x], 1))


class Bare(nn.Module):
    """A product with a parameter that belongs to no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.randn(10, 4))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.mix


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.cells = kind(6, 8, num_layers=2, batch_first=True, bidirectional=True)  # pyright: ignore
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cells(x)[0])


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


NETWORKS = {
    "encoder": (encoder, (2, 5, 16)),
    "attention": (Attention, (2, 5, 16)),
    "u-net": (UNet, (2, 3, 8, 8)),
    "gru": (lambda: Recurrent(nn.GRU), (2, 5, 6)),
    "lstm": (lambda: Recurrent(nn.LSTM), (2, 5, 6)),
    "1-d and 3-d": (
        lambda: nn.Sequential(
            nn.Conv1d(3, 4, 3), nn.Unflatten(2, (2, 2, 2)), nn.Conv3d(4, 5, 2)
        ),
        (2, 3, 10),
    ),
    "up": (
        lambda: nn.Sequential(
            nn.ConvTranspose1d(3, 4, 3, 2, 1, 1, groups=1),
            nn.Unflatten(2, (5, 2, 2)),
            nn.ConvTranspose3d(4, 5, 2, dilation=2),
        ),
        (2, 3, 10),
    ),
    "no layer of the table": (Bare, (2, 3, 10)),
}


def pass_of(model: nn.Module, x: Tensor, backward: bool) -> Tensor:
    y = model(x)
    if backward:
        y.square().sum().backward()
    return y


@pytest.mark.parametrize("recipe", [None, Swat(0.5, dense=())], ids=["plain", "elided"])
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "step"])
@pytest.mark.parametrize("network", NETWORKS)
def test_the_total_is_torchs_flop_counters(
    network: str, backward: bool, recipe: elision.Recipe | None
) -> None:
    torch.manual_seed(0)
    make, shape = NETWORKS[network]
    model, x = make(), torch.randn(shape)
    if network == "lstm":  # in float64 it runs as matrix products, which torch counts
        model, x = model.double(), x.double()
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:  # torch has no formula for the other
        expected = pass_of(model, x, backward)
    if recipe is not None and elision.layers.elidable_layers(model):
        elision.elide(model, recipe, engine="torch")
    with elision.metered(model) as meter:
        found = pass_of(model, x, backward)
    assert 2 * meter.total().dense_macs == counter.get_total_flops()
    # Recurrent nets and encoders run fused where nobody counts, on some CPUs.
    if recipe is None and network not in ("lstm", "gru", "encoder"):
        assert torch.equal(found, expected)
    elif recipe is None:
        torch.testing.assert_close(found, expected)
    assert elision.Product.FORWARD in {k for _, k in meter.by_layer} or meter.outside


def test_the_products_of_an_lstm_are_counted() -> None:
    model, x = Recurrent(nn.LSTM), torch.randn(2, 5, 6)
    with elision.metered(model) as meter:
        model(x)
    assert not meter.kernels
    # 10 tokens, two directions; first layer 6 and 8 to 32, second 16 and 8; head 16x3.
    assert meter.total().dense_macs == 10 * (2 * 32 * (6 + 8 + 16 + 8) + 16 * 3)


class Own(nn.LSTM):
    """A layer whose forward is its own."""

    def forward(self, input: Tensor, hx: object = None) -> object:  # pyright: ignore
        return super().forward(input)


def test_the_kernel_of_a_subclass_is_counted_apart() -> None:
    found = []
    for kind in (nn.LSTM, Own):
        model, x = Recurrent(kind), torch.randn(2, 5, 6)
        with elision.metered(model) as meter:
            model(x)
        found.append(meter.total(kernels=True).dense_macs)
    assert meter.kernels
    assert found[0] == found[1]


def test_attention_on_this_machine_is_counted_apart() -> None:
    q = torch.randn(2, 3, 5, 4, requires_grad=True)
    meter = WorkMeter()
    with elision.metered(nn.Identity(), meter):
        F.scaled_dot_product_attention(q, q, q).sum().backward()
    forward = 2 * 2 * 3 * 5 * 5 * 4
    # The gradient computes the scores again, and four products more.
    assert meter.total(kernels=True).dense_macs == forward + 5 * forward // 2


def test_outside_work_has_names_and_goes_to_a_file_and_back() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(encoder(), Own(16, 16))
    with elision.metered(model) as meter:
        model(torch.randn(2, 5, 16))[0].sum().backward()
    assert {module for module, _ in meter.kernels} == {"1"}
    products = {layer for layer, _ in meter.by_layer}
    assert {"0.layers.0.self_attn.qk", "0.layers.1.self_attn.pv"} <= products
    again = WorkMeter.from_json(meter.to_json())
    assert again.total(kernels=True) == meter.total(kernels=True)
    again.merge(meter)
    assert again.total().dense_macs == 2 * meter.total().dense_macs
    assert "not in the total" in repr(meter)
    assert "<td>1</td>" in meter._repr_html_()


@pytest.mark.parametrize("reentrant", [False, True])
def test_what_is_computed_again_is_counted_once(reentrant: bool) -> None:
    model, x = Attention(), torch.randn(2, 5, 16, requires_grad=True)
    with elision.metered(model) as plain:
        model(x).sum().backward()
    with elision.metered(model) as again:
        checkpoint(model, x, use_reentrant=reentrant).sum().backward()  # pyright: ignore
    assert again.total() == plain.total()


def test_explain_lists_what_the_table_does_not_reach() -> None:
    class Everything(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.emb, self.head = nn.Embedding(9, 16), nn.Linear(16, 9, bias=False)
            self.head.weight = self.emb.weight
            self.enc, self.gru = encoder(), nn.GRU(16, 16, batch_first=True)
            self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(16, 16))
            self.own, self.frozen = Attention(), nn.Linear(16, 16)
            self.frozen.weight.requires_grad_(False)
            self.first = nn.Linear(16, 16)

        def forward(self, x: Tensor) -> Tensor:
            x = self.gru(self.enc(self.first(self.emb(x))))[0]
            x = self.own(self.frozen(self.normed(x)))
            return self.head(torch.einsum("btd,bsd->bts", x, x) @ x)

    torch.manual_seed(0)
    model, x = Everything(), torch.randint(0, 9, (2, 5))
    with pytest.warns(TiedWeightWarning), pytest.warns(NoEffectWarning):
        elision.elide(model, Swat(0.5, dense=("first", ":embedding")), engine="torch")
    state, random = dict(model.state_dict()), torch.get_rng_state()
    found = elision.explain(model, x)
    assert torch.equal(torch.get_rng_state(), random)
    assert_close(dict(model.state_dict()), state)
    why = {part.name: part.why for part in found.unreached}
    for name, words in {
        "emb": "dense by the recipe",
        "head": "read by emb",
        "enc.layers.0.self_attn": "a call's product",
        "normed": "weight is computed",
        "own": "parameters of its own",
        "": "a call's product",
        "frozen": "frozen",
        "first": "dense by the recipe",
    }.items():
        assert words in why[name], name
    assert found.reached == [
        *(
            f"enc.layers.{i}.{layer}"
            for i in (0, 1)
            for layer in (
                "self_attn.out_proj",
                "self_attn.in_proj",
                "linear1",
                "linear2",
            )
        ),
        "gru.ih_l0",
        "gru.hh_l0",
        "own.qkv",
        "own.out",
        "frozen",
    ]
    assert found.macs is not None
    with elision.metered(model) as meter:
        model(x)
    assert found.macs == meter.total(kernels=True).dense_macs
    inside = 10 * (
        2 * 2 * 16 * 32 + 2 * 4 * 16 * 16 + 2 * 16 * 48 + 16 * 48 + 16 * 16 + 16 * 16
    )
    assert found.share == pytest.approx(inside / found.macs)
    assert "(the model itself)" in str(found)
    assert elision.explain(model).share is None
    assert "einsum" in found._repr_html_()


def test_explain_of_a_plain_model_says_what_a_recipe_could_reach() -> None:
    found = elision.explain(UNet(), torch.randn(1, 3, 8, 8))
    assert found.reached == ["down", "middle", "up", "skip"]
    assert found.unreached == []
    assert found.share == 1
    model = nn.ModuleList([Bare(), nn.Bilinear(2, 2, 2), nn.EmbeddingBag(3, 2)])
    model.forward = lambda x: model[0](x)
    found = elision.explain(model, torch.randn(2, 3, 10))
    assert found.reached == ["1"]
    assert [part.name for part in found.unreached] == ["0", "2"]
    assert "in no layer of the table" in found.unreached[0].why
    assert "a bag of lookups" in found.unreached[1].why
    assert found.share == 0
