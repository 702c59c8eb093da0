"""Rounded values beside statistics of the true ones, at logits and inputs of any size."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elision.memory import Role, saver

SCALES = (0.1, 1.0, 3.0, 10.0)


class Softmaxed(nn.Module):
    """Projections to logits of a given standard deviation, and a function of them."""

    def __init__(
        self, function: Callable[[Tensor], Tensor], scale: float, width: int = 64
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.function, self.scale = function, scale
        self.layer = nn.Linear(48, width)
        self.after = nn.Parameter(torch.randn(width, 8))

    def forward(self, x: Tensor) -> Tensor:
        logits = self.layer(x) * (self.scale * 3**0.5)
        found = self.function(logits)
        if found.dim() and found.shape[-1] == len(self.after):
            found = found @ self.after
        return found.sin().sum()


class Attention(nn.Module):
    """Heads whose logits have a given standard deviation, by several kernels."""

    def __init__(self, attend: Callable[..., Tensor], scale: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.attend, self.scale = attend, scale
        self.qkv = nn.Linear(64, 192, bias=False)
        with torch.no_grad():
            self.qkv.weight.mul_(3**0.5)  # results of unit variance

    def forward(self, x: Tensor) -> Tensor:
        heads = self.qkv(x).view(4, 32, 3, 4, 16).permute(2, 0, 3, 1, 4)
        q, k, v = heads.unbind()
        size = self.scale**0.5
        return self.attend(q * size, k * size, v).sin().sum()


def error(
    model: nn.Module, x: Tensor, policy: str, roles: set[Role] | None = None
) -> float:
    """Largest relative error of a weight's gradient, the mean of three draws."""

    def gradients(policy: str, seed: int) -> list[Tensor]:
        model.zero_grad()
        torch.manual_seed(2)
        with saver(model, policy, seed=seed) as saved:
            loss = model(x)
        loss.backward()
        if roles is not None and policy != "none":
            packed = {r.slot.role for r in saved.ledger.rows if r.codec != "kept"}
            assert roles <= packed, packed
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    exact = gradients("none", 0)
    draws = [gradients(policy, 100 * seed) for seed in range(3)]
    return max(
        sum(float((d[i] - g).norm() / g.norm()) for d in draws) / 3
        for i, g in enumerate(exact)
        if g.dim() > 1
    )


def eager(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    mask = torch.ones(32, 32, dtype=torch.bool).tril()
    logits = (q @ k.mT / 4).masked_fill(~mask, -torch.inf)
    return logits.softmax(-1) @ v


def biased(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    bias = torch.linspace(-1, 0, 32).expand(32, 32)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


ATTENTIONS = {
    "flash": F.scaled_dot_product_attention,
    "causal": lambda *qkv: F.scaled_dot_product_attention(*qkv, is_causal=True),
    "biased": biased,
    "dropout": lambda *qkv: F.scaled_dot_product_attention(*qkv, dropout_p=0.1),
    "eager": eager,
}


@pytest.mark.parametrize(("policy", "small"), [("bits(4)", 0.3), ("int8", 0.02)])
@pytest.mark.parametrize("kind", ATTENTIONS)
def test_attention_is_as_exact_at_large_logits_as_at_small_ones(
    kind: str, policy: str, small: float
) -> None:
    x = torch.randn(4, 32, 64)
    for scale in SCALES:
        assert error(Attention(ATTENTIONS[kind], scale), x, policy) < small, scale


@pytest.mark.parametrize(
    "policy", ["fp8", "sfpr", "derived", "bits(2.5)", "budget(0.1)"]
)
def test_other_policies_leave_attention_consistent_too(policy: str) -> None:
    x = torch.randn(4, 32, 64)
    for scale in SCALES:
        model = Attention(F.scaled_dot_product_attention, scale)
        assert error(model, x, policy) < 0.3, scale


def shared_heads(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k[:, :2], v[:, :2], enable_gqa=True)


def expanded(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    k, v = k[:, :1].expand_as(q), v[:, :1].expand_as(q)
    return F.scaled_dot_product_attention(q, k, v, scale=0.25)


def of_one_tensor(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    x = (q + k + v) * 0.4
    return F.scaled_dot_product_attention(x, x, x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("attend", [shared_heads, expanded, of_one_tensor, eager])
def test_attention_of_every_type_and_layout_is_reached(
    attend: Callable[..., Tensor], dtype: torch.dtype
) -> None:
    model = Attention(attend, 0.5).to(dtype)
    x = torch.randn(4, 32, 64, dtype=dtype)
    roles = {Role.PROBABILITY if attend is eager else Role.ATTENTION}
    assert error(model, x, "bits(4)", roles) < 0.3


def test_attention_is_packed_or_kept_as_a_whole() -> None:
    x = torch.randn(4, 32, 64)
    for scale, whole in ((1.0, {"attention 4-bit"}), (6.0, {"kept"})):
        model = Attention(F.scaled_dot_product_attention, scale)
        with saver(model, "bits(4)") as saved:
            model(x).backward()
        operands = saved.ledger.rows_of([Role.ATTENTION])
        assert {row.slot.name for row in operands} == {"query", "key", "value"}
        assert {row.codec for row in operands} == whole
        results = saved.ledger.rows_of([Role.ATTENTION_RESULT])
        kept = {row.codec == "kept" for row in results}
        assert kept == {whole == {"kept"}}


def test_the_gradient_of_a_shift_of_all_keys_stays_zero() -> None:
    """It is zero for any softmax, but not for one with another's normaliser."""

    def shifted(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k + shift, v)

    shift = torch.zeros(16, requires_grad=True)
    model, x = Attention(shifted, 1.0), torch.randn(4, 32, 64)
    with saver(model, "bits(2)") as saved:
        model(x).backward()
    assert saved.ledger.ratio > 3
    assert shift.grad is not None
    assert shift.grad.abs().max() < 1e-4


CLASSES = torch.arange(128) % 64

SOFTMAXES = {
    "softmax": (lambda z: z.softmax(-1), {Role.PROBABILITY}),
    "softmax of columns": (lambda z: z.softmax(0), {Role.PROBABILITY}),
    "masked softmax": (
        lambda z: z.masked_fill(torch.ones_like(z).tril() == 0, -torch.inf).softmax(-1),
        {Role.PROBABILITY},
    ),
    "log softmax": (lambda z: z.log_softmax(-1).exp(), {Role.LOG_PROBABILITY}),
    "logsumexp": (lambda z: z.logsumexp(-1), set()),
    "cross entropy": (
        lambda z: F.cross_entropy(z, CLASSES, reduction="none"),
        {Role.LOG_PROBABILITY, Role.SHAPE},
    ),
    "smoothed cross entropy": (
        lambda z: F.cross_entropy(z, CLASSES, label_smoothing=0.1, reduction="none"),
        {Role.LOG_PROBABILITY, Role.SHAPE},
    ),
    "cross entropy of pixels": (
        lambda z: F.cross_entropy(
            z.view(2, 64, 64).mT.reshape(2, 64, 8, 8), CLASSES.view(2, 8, 8)
        ),
        {Role.LOG_PROBABILITY, Role.SHAPE},
    ),
}


@pytest.mark.parametrize(("policy", "small"), [("bits(4)", 0.35), ("int8", 0.02)])
@pytest.mark.parametrize("kind", SOFTMAXES)
def test_a_softmax_is_as_exact_at_large_logits_as_at_small_ones(
    kind: str, policy: str, small: float
) -> None:
    function, roles = SOFTMAXES[kind]
    x = torch.randn(128, 48)
    for scale in SCALES:
        assert error(Softmaxed(function, scale), x, policy, roles) < small, scale


def rms(z: Tensor) -> Tensor:
    return z * torch.rsqrt(z.pow(2).mean(-1, keepdim=True) + 1e-8)


NORMS = {
    "layer norm": lambda z: F.layer_norm(z, (64,), eps=1e-8),
    "batch norm": lambda z: F.batch_norm(z, None, None, training=True, eps=1e-8),
    "group norm": lambda z: F.group_norm(z, 8, eps=1e-8),
    "rms norm": lambda z: F.rms_norm(z, (64,), eps=1e-8),
    "rms norm by hand": rms,
}


@pytest.mark.parametrize(
    ("policy", "small"), [("bits(4)", 0.2), ("int8", 0.02), ("fp8", 0.1)]
)
@pytest.mark.parametrize("offset", [0.0, 30.0])
@pytest.mark.parametrize("kind", NORMS)
def test_a_norm_is_as_exact_at_large_inputs_as_at_small_ones(
    kind: str, offset: float, policy: str, small: float
) -> None:
    def norm(z: Tensor) -> Tensor:
        return NORMS[kind](z + offset * z.detach().std())

    x = torch.randn(128, 48)
    for scale in SCALES:
        assert error(Softmaxed(norm, scale), x, policy) < small, scale


@pytest.mark.parametrize("axis", [-1, -2, 0, 1])
@pytest.mark.parametrize(
    "shape", [(64, 64), (4, 32, 32), (2, 4, 16, 32), (2,) * 4 + (256,)]
)
@pytest.mark.parametrize("function", [torch.softmax, torch.log_softmax])
def test_the_axis_of_a_softmax_is_found_in_tensors_of_any_shape(
    function: Callable[..., Tensor], shape: tuple[int, ...], axis: int
) -> None:
    x = torch.randn(64, 48)
    kind = Role.PROBABILITY if function is torch.softmax else Role.LOG_PROBABILITY

    def along(z: Tensor) -> Tensor:
        return function(z.view(shape), axis).view(z.shape)

    assert error(Softmaxed(along, 3.0), x, "int8", {kind}) < 0.05


def test_the_weights_of_an_attention_module_may_be_asked_for() -> None:
    model = nn.MultiheadAttention(64, 4, batch_first=True)

    class Called(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = model

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(x, x, x, need_weights=True)[0].sin().sum()

    assert error(Called(), torch.randn(4, 32, 64), "int8", {Role.PROBABILITY}) < 0.05


MASKS = {
    "boolean": torch.ones(32, 32, dtype=torch.bool).tril(),
    "infinite": torch.zeros(32, 32).masked_fill(
        torch.ones(32, 32).triu(1) > 0, -torch.inf
    ),
    "finite": torch.zeros(4, 1, 32, 32).masked_fill(
        torch.rand(4, 1, 32, 32) < 0.3, -1e9
    ),
}


@pytest.mark.parametrize(("policy", "most"), [("exact", 0.0), ("bits(4)", 0.3)])
@pytest.mark.parametrize("scale", [1.0, 10.0])
@pytest.mark.parametrize("mask", MASKS)
def test_the_mask_of_an_attention_is_a_bit_for_each_logit(
    mask: str, scale: float, policy: str, most: float
) -> None:
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=MASKS[mask])

    model, x = Attention(attend, scale), torch.randn(4, 32, 64)
    assert error(model, x, policy) <= most
    with saver(model, policy) as saved:
        model(x)
    (row,) = (r for r in saved.ledger.rows if r.slot.name == "attn_mask")
    assert row.codec == "two-valued"
