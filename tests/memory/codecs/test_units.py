"""Inputs of norms whose channels or rows have deviations of very different sizes."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elision.memory import Role, Slot, saver
from elision.memory.codecs import Float8, GroupQuant

SIZES = torch.logspace(-2, 1, 48)[
    torch.randperm(48, generator=torch.Generator().manual_seed(0))
]


class Normed(nn.Module):
    """A layer, channels of many sizes, a norm, and a function that is no sum."""

    def __init__(self, norm: nn.Module, positions: int, last: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.norm = nn.Linear(32, 48, bias=False), norm
        self.positions, self.last = positions, last

    def forward(self, x: Tensor) -> Tensor:
        z = self.layer(x) * SIZES.to(x)
        if self.positions:
            z = z.view(-1, self.positions, 48).transpose(1, 2)[..., None]
            z = z.contiguous(
                memory_format=torch.channels_last
                if self.last
                else torch.contiguous_format
            )
        return self.norm(z).sin().sum()


CASES: dict[str, tuple[Callable[[], nn.Module], int, bool]] = {
    "features": (lambda: nn.BatchNorm1d(48), 0, False),
    "one pixel": (lambda: nn.BatchNorm2d(48), 1, False),
    "seven by seven": (lambda: nn.BatchNorm2d(48), 49, False),
    "channels last": (lambda: nn.BatchNorm2d(48), 64, True),
    "instances": (lambda: nn.InstanceNorm2d(48, affine=True), 16, False),
    "groups of one": (lambda: nn.GroupNorm(48, 48), 16, False),
    "evaluated": (lambda: nn.BatchNorm1d(48).eval(), 0, False),
}


def gradients(model: nn.Module, x: Tensor, policy: str) -> list[Tensor]:
    model.zero_grad()
    with saver(model, policy, seed=0) as saved:
        loss = model(x)
    loss.backward()
    if policy != "none":
        assert any("group" in row.codec for row in saved.ledger.rows)
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize(("policy", "small"), [("bits(4)", 0.4), ("int8", 0.03)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("case", CASES)
def test_small_channels_are_as_exact_as_large_ones(
    case: str, dtype: torch.dtype, policy: str, small: float
) -> None:
    make, positions, last = CASES[case]
    model = Normed(make(), positions, last).to(dtype)
    if case == "evaluated":
        model.norm.train()
        for _ in range(50):  # the statistics of the training
            model(torch.randn(256, 32, dtype=dtype))
        model.norm.eval()
    x = torch.randn(49 * 64, 32).to(dtype)
    if positions:
        x = x[: len(x) // positions * positions]
    exact, rounded = (gradients(model, x, p) for p in ("none", policy))
    for a, b in zip(exact, rounded, strict=True):
        assert (a - b).norm() <= small * a.norm()


@pytest.mark.parametrize("policy", ["jpeg", "derived", "derived(5)"])
def test_other_policies_with_group_quantisation_follow(policy: str) -> None:
    model, x = Normed(nn.BatchNorm1d(48), 0), torch.randn(1024, 32)
    exact, rounded = (gradients(model, x, p) for p in ("none", policy))
    for a, b in zip(exact, rounded, strict=True):
        assert (a - b).norm() <= 0.4 * a.norm()


def test_a_relus_result_that_a_norm_reads_keeps_its_mask() -> None:
    class Reversed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer, self.norm = nn.Linear(32, 48, bias=False), nn.BatchNorm1d(48)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(F.relu(self.layer(x) * SIZES)).sin().sum()

    model, x = Reversed(), torch.randn(1024, 32)
    exact, rounded = (gradients(model, x, p) for p in ("none", "bits(4)"))
    for a, b in zip(exact, rounded, strict=True):
        assert (a - b).norm() <= 0.4 * a.norm()


def test_the_declared_bound_holds_in_units_of_their_own() -> None:
    x = (torch.randn(512, 48) * SIZES + 3).requires_grad_()
    node = nn.BatchNorm1d(48)(x).grad_fn
    slot = Slot("NativeBatchNormBackward0", "input", Role.NORM_INPUT, node=node)
    groups = [GroupQuant(4, rounding=r) for r in ("dithered", "stochastic", "nearest")]
    for codec in (*groups, Float8()):
        packed = codec.pack(x.detach(), slot)
        assert packed is not None
        error, bound = codec.unpack(packed) - x.detach(), codec.bound(packed)
        assert bound is not None
        assert error.abs().max() <= bound
        share = error.std(0) / x.detach().std(0)
        assert share.max() < 2 * share.min()  # every channel is as exact
