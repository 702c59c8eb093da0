"""Every dtype and every default dtype, and batches without an example."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from elision.memory import saver
from elision.memory.codecs import Jpeg
from elision.memory.policies.presets import PRESETS

#: The presets that need no other package.
NAMES = sorted(set(PRESETS) - {"sz3", "zfp"})
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def network(dtype: torch.dtype) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()]
    layers += [nn.Conv2d(8, 8, 3), nn.GELU(), nn.MaxPool2d(2), nn.Conv2d(8, 4, 3)]
    layers += [nn.ReLU6(), nn.Flatten(), nn.LayerNorm(100), nn.Linear(100, 5)]
    layers += [nn.Sigmoid(), nn.Linear(5, 2)]
    return nn.Sequential(*layers).to(dtype)


def gradients(
    model: nn.Module, policy: str | None, examples: int = 4
) -> dict[str, torch.Tensor]:
    """Of the second step, for some policies learn in the first."""
    torch.manual_seed(1)
    x = torch.randn(examples, 3, 16, 16, dtype=torch.float32)
    x = x.to(next(model.parameters()).dtype)
    for _ in range(2):
        model.zero_grad()
        if policy is None:
            out = model(x)
        else:
            with saver(model, policy, seed=0):
                out = model(x)
        out.float().square().sum().backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def distance(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    """Relative distance of all gradients together."""
    apart = sum(float((left[n] - right[n]).double().square().sum()) for n in left)
    norm = sum(float(right[n].double().square().sum()) for n in left)
    return (apart / norm) ** 0.5


def named(name: str) -> str:
    return {"budget": "budget(0.01)", "rad": "rad(0.5)"}.get(name, name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_every_policy_packs_every_dtype_as_it_packs_float32(
    name: str, dtype: torch.dtype
) -> None:
    plain = gradients(network(dtype), None)
    mine = gradients(network(dtype), named(name))
    assert all(mine[n].dtype is dtype for n in mine)
    if name in ("none", "exact", "offload"):
        assert all(torch.equal(mine[n], plain[n]) for n in plain)
        return
    exact = gradients(network(torch.float32), None)
    usual = distance(gradients(network(torch.float32), named(name)), exact)
    assert distance(mine, plain) <= 2 * usual + 0.05


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("default", DTYPES[1:], ids=str)
def test_the_default_dtype_changes_no_gradient(name: str, default: torch.dtype) -> None:
    before = gradients(network(torch.float32), named(name))
    model = network(torch.float32)
    with default_dtype(default):
        after = gradients(model, named(name))
    assert all(torch.equal(before[n], after[n]) for n in before)


def test_what_a_codec_caches_does_not_depend_on_the_default_dtype() -> None:
    x = torch.linspace(-1, 1, 1024, dtype=torch.float32).view(1, 4, 16, 16)
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Sigmoid(), nn.Conv2d(4, 4, 3))
    with default_dtype(torch.float64):
        other = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Sigmoid(), nn.Conv2d(4, 4, 3))
        with saver(other, "jpeg"):
            loss = other(x.double()).sum()
        loss.backward()
    with saver(model, "jpeg") as saved:
        loss = model(x).sum()
    loss.backward()
    assert any(row.codec == Jpeg.name for row in saved.ledger.rows)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_without_an_example_passes(name: str) -> None:
    norm = nn.BatchNorm2d(8).eval()
    model = nn.Sequential(nn.Conv2d(3, 8, 3), norm, nn.ReLU(), nn.Conv2d(8, 4, 3))
    x = torch.randn(0, 3, 16, 16)
    for _ in range(2):
        with saver(model, named(name)) as saved:
            loss = model(x).sum()
        loss.backward()
        assert saved.ledger.logical_bytes == saved.ledger.stored_bytes
    assert all(not p.grad.any() for p in model.parameters() if p.grad is not None)


def test_values_beyond_float32_are_kept() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64)).double()
    x = torch.randn(64, 64, dtype=torch.float64) * 1e300
    for policy in ("int8", "sfpr", "fp8", "bits(4)", "rad(0.5)"):
        with saver(model, policy, pack_batch=True) as saved:
            model(x)
        assert {row.codec for row in saved.ledger.rows} == {"kept"}, policy


@pytest.mark.parametrize("name", ["exact", "int8", "jpeg", "fp8", "sfpr", "offload"])
def test_the_default_device_changes_no_gradient(name: str) -> None:
    before: dict[str, torch.Tensor] = {}
    after: dict[str, torch.Tensor] = {}
    model = network(torch.float32)
    x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    for device in (None, "meta"):
        torch.set_default_device(device)
        try:
            model.zero_grad()
            with saver(model, name, seed=0):
                out = model(x)
            out.square().sum().backward()
        finally:
            torch.set_default_device(None)
        after = {
            n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None
        }
        before = before or after
    assert all(torch.equal(before[n], after[n]) for n in before)
