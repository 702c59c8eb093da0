"""What each of two processes does in the tests of compressed gradients."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, nn

import elision
from elision.training.parallel import (
    COMPRESSORS,
    CompressHook,
    NonFiniteGradientWarning,
    compress_hook,
    wire,
)

#: Megabytes of a bucket: each layer of the net has one of its own.
SMALL_BUCKETS = 0.01
DDP = nn.parallel.DistributedDataParallel


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = [nn.Sequential(nn.Linear(48, 48), nn.ReLU()) for _ in range(5)]
    return nn.Sequential(*layers, nn.Linear(48, 4))


def wrapped(module: nn.Module, **how) -> DDP:
    return DDP(module, bucket_cap_mb=SMALL_BUCKETS, **how)


def batch(step: int, rank: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(100 * step + rank)
    x = torch.randn(8, 48, generator=random)
    return x, torch.randint(0, 4, (8,), generator=random)


def loss(model: nn.Module, step: int, rank: int) -> Tensor:
    x, labels = batch(step, rank)
    return nn.functional.cross_entropy(model(x), labels)


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), 0.05)


def train(model: DDP, rank: int, steps: range, optimizer=None) -> None:
    optimizer = optimizer or sgd(model)
    for step in steps:
        optimizer.zero_grad()
        loss(model, step, rank).backward()
        optimizer.step()


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def everyone(value: Tensor) -> list[Tensor]:
    found = [torch.empty_like(value) for _ in range(2)]
    distributed.all_gather(found, value.contiguous())
    return found


def check_equal(model: nn.Module) -> None:
    mine, other = everyone(weights(model))
    assert torch.equal(mine, other)


def memory(hook: CompressHook) -> Tensor:
    kept = []
    for name, state in hook.states.items():
        size = dict(net().named_parameters())[name].numel()
        kept.append(state.tensors.get("memory", torch.zeros(size)).flatten())
    return torch.cat(kept)


def conserves(name: str, rank: int) -> None:
    """What was applied and what is remembered are the gradients; ranks are bit-equal."""
    spec = "dgc:momentum=0" if name == "dgc" else name
    model = wrapped(net())
    feedback = None if name in ("dgc", "mask", "fp32") else True
    if name == "mask":
        with pytest.raises(ValueError, match="no layer of this model has a mask"):
            compress_hook(model, spec)
        return
    hook = compress_hook(model, spec, feedback=feedback)
    optimizer = sgd(model)
    local, applied = torch.zeros(len(memory(hook))), torch.zeros(len(memory(hook)))
    for step in range(4):
        own = torch.autograd.grad(
            loss(model.module, step, rank), list(model.parameters())
        )
        local += torch.cat([g.flatten() for g in own])
        optimizer.zero_grad()
        loss(model, step, rank).backward()
        applied += torch.cat([p.grad.flatten() for p in model.parameters()])
        optimizer.step()
    check_equal(model)
    owed = sum(everyone(local - memory(hook))) / 2
    # The network's own sums are in the dtype of the message.
    rounding = {"bf16": 2**-8, "fp16": 2**-11}.get(name, 1e-6)
    assert torch.allclose(applied, owed, rtol=rounding, atol=rounding), name
    assert hook.traffic.dense == 4 * 32 * len(local)
    # The formula; one value a bucket and round tells of gradients that are not finite.
    shapes = {n: p.shape for n, p in model.module.named_parameters()}
    per_step = sum(hook.compressor.bits(s, hook.states[n]) for n, s in shapes.items())
    assert hook.traffic.messages == 4 * per_step
    assert hook.traffic.messages < hook.traffic.sent < 1.1 * hook.traffic.messages


def power_sgd_in_many_buckets(rank: int) -> None:
    """Torch's own hook hangs here."""
    for _ in range(10):
        model = wrapped(net())
        compress_hook(model, "powersgd:rank=2")
        train(model, rank, range(5))
        check_equal(model)


def float32_is_plain(rank: int) -> None:
    """And so is every compressor whose messages have checksums as without."""
    plain = wrapped(net())
    train(plain, rank, range(3))
    for spec in ("fp32", "bf16", "top-k:share=0.1", "powersgd:rank=2"):
        found, sent = [], []
        for checksum in (False, True):
            model = wrapped(net())
            hook = compress_hook(model, spec, checksum=checksum)
            train(model, rank, range(3))
            check_equal(model)
            found.append(weights(model))
            sent.append(hook.traffic.sent)
        assert torch.equal(*found), spec
        assert sent[0] < sent[1]
        if spec == "fp32":
            assert torch.equal(found[0], weights(plain))


def exact_is_plain(rank: int) -> None:
    """RigL's masks move as without a hook, and only surviving weights travel."""
    found = []
    for compressed in (False, True):
        recipe = elision.methods.RigL(0.8, every=2, until=8)
        model = wrapped(elision.elide(net(), recipe, engine="torch"))
        optimizer = sgd(model)
        topology = elision.topology.attach(model, optimizer)
        hook = compress_hook(model, "mask") if compressed else None
        train(model, rank, range(7), optimizer)
        topology.check_ranks()
        found.append(weights(model))
        if hook is not None:
            assert topology.moves == 3
            assert hook.traffic.messages < 0.75 * hook.traffic.dense
    assert torch.equal(*found)


def accumulates(rank: int) -> None:
    """Two backward passes of which the second sends are one with the summed gradient."""
    model, other = wrapped(net()), wrapped(net())
    for each in (model, other):
        compress_hook(each, "top-k:share=0.1")
    for step in (0, 2):
        with model.no_sync():
            loss(model, step, rank).backward()
        loss(model, step + 1, rank).backward()
        (loss(other, step, rank) + loss(other, step + 1, rank)).backward()
        for mine, one in zip(model.parameters(), other.parameters(), strict=True):
            assert torch.allclose(mine.grad, one.grad, atol=1e-6)
        model.zero_grad()
        other.zero_grad()


def knows_a_static_graph(rank: int) -> None:
    found = []
    for static in (False, True):
        model = wrapped(net(), static_graph=static)
        compress_hook(model, "top-k:share=0.1")
        train(model, rank, range(4))
        check_equal(model)
        found.append(weights(model))
    assert torch.equal(*found)


def shards_optimiser(rank: int) -> None:
    from torch.distributed.optim import ZeroRedundancyOptimizer

    found = []
    for kind in (torch.optim.SGD, ZeroRedundancyOptimizer):
        model = wrapped(net(), gradient_as_bucket_view=True)
        compress_hook(model, "top-k:share=0.1")
        how = {"optimizer_class": torch.optim.SGD} if found else {}
        train(model, rank, range(4), kind(model.parameters(), lr=0.05, **how))
        check_equal(model)
        found.append(weights(model))
    assert torch.equal(*found)


def spares_what_is_not_finite(rank: int) -> None:
    for spec in ("powersgd", "top-k", "bf16", "int8", "fp16 alone"):
        model = wrapped(net())
        alone = spec.endswith(" alone")
        hook = compress_hook(
            model, spec.removesuffix(" alone"), feedback=False if alone else None
        )
        train(model, rank, range(2))
        before = hook.state_dict()
        for odd in (torch.nan, torch.inf):
            model.zero_grad()
            x, _ = batch(2, rank)
            with pytest.warns(
                NonFiniteGradientWarning, match=r"rank 1 in '5.bias' and 5 more"
            ):
                (model(x).sum() * (odd if rank else 1)).backward()
            assert hook.not_finite[1][:2] == ["5.bias", "5.weight"]
            assert all(p.grad.isnan().all() for p in model.parameters())
        after = hook.state_dict()
        assert all(torch.equal(after[name], value) for name, value in before.items())
        train(model, rank, range(3, 5))
        check_equal(model)
        assert weights(model).isfinite().all()


def casts_alike_in_any_buckets(rank: int) -> None:
    """Without a memory a bucket is cast as one: bit for bit the mean of the casts."""
    model = DDP(net(), gradient_as_bucket_view=True)
    hook = compress_hook(model, "bf16", feedback=False)
    for step in range(3):
        own = torch.autograd.grad(
            loss(model.module, step, rank), list(model.module.parameters())
        )
        model.zero_grad()
        loss(model, step, rank).backward()
        for grad, parameter in zip(own, model.parameters(), strict=True):
            mine, other = everyone(grad.bfloat16().float())
            sum_of_both = (mine + other).bfloat16().float()
            assert torch.equal(parameter.grad, sum_of_both / 2)
    assert all(state.step == 3 for state in hook.states.values())


def tells_its_observer(rank: int) -> None:
    """Buckets begin and end one after the other, in DDP's order."""
    model = wrapped(net())
    hook = compress_hook(model, "bf16")
    train(model, rank, range(2))  # DDP fills buckets anew after its first step
    seen: list[tuple[str, tuple[str, ...]]] = []
    hook.observer = lambda what, names: seen.append((what, names))
    train(model, rank, range(2, 3))
    buckets = [names for what, names in seen if what == "sent"]
    assert len(buckets) > 2
    assert seen == [(what, names) for names in buckets for what in ("sent", "done")]
    told = sorted(name for names in buckets for name in names)
    assert told == sorted(name for name, _ in model.module.named_parameters())


def names_one_parameter(rank: int) -> None:
    """One parameter on each rank, once a step; the next step is well again."""
    model = wrapped(net())
    hook = compress_hook(model, "fp32")
    loss(model, 0, rank).backward()  # the buckets are made anew after it
    layers = [model.module[1 + rank][0], model.module[4][0]]
    ill = [
        each.weight.register_hook(lambda grad: grad * torch.inf)
        for each in layers[: 2 - rank]
    ]
    with pytest.warns(NonFiniteGradientWarning) as told:
        loss(model, 1, rank).backward()
    assert [str(each.message) for each in told] == [
        "gradients that are not finite: rank 0 in '4.0.weight'; they are NaN on every "
        "rank now"
    ]
    for each in ill:
        each.remove()
    model.zero_grad()
    ill = layers[0].bias.register_hook(lambda grad: grad * torch.nan if rank else grad)
    with pytest.warns(NonFiniteGradientWarning):
        loss(model, 2, rank).backward()
    assert hook.not_finite == {1: ["2.0.bias"]}
    ill.remove()
    model.zero_grad()
    loss(model, 3, rank).backward()
    assert hook.not_finite == {}


def finds_every_flipped_bit(rank: int) -> None:
    """Every bit of a message of each kind, flipped as it arrives at rank 0."""
    checked = wire.CheckedWire(None)
    whole = torch.randn(5)
    sealed = 8 * (3 * 4 + 4)  # half of six values, and the checksum
    kinds = {
        "all_to_all_single": (checked.all_reduce, sealed),
        "all_gather": (
            lambda data, where: checked.all_gather(
                [torch.empty(20, dtype=torch.uint8) for _ in range(2)],
                data.view(torch.uint8),
                where,
            ),
            8 * (20 + 4),
        ),
    }
    for collective, (call, bits) in kinds.items():
        for bit in range(bits):
            with flipped(collective, rank == 0, bit):
                message = r"bucket 7: what rank 1 sent to rank 0 arrived"
                with pytest.raises(wire.CorruptMessageError, match=message) as error:
                    call(whole.clone(), "bucket 7")
            assert error.value.links == [(1, 0)]
    call = kinds["all_to_all_single"][0]
    assert call(whole.clone(), "bucket 8") > 0


@contextmanager
def flipped(collective: str, here: bool, bit: int) -> Iterator[None]:
    """The first message that this rank is sent by rank 1 arrives with another bit."""
    original, left = getattr(distributed, collective), [here]

    def faulty(came, sent, group=None) -> None:
        original(came, sent, group=group)
        if left.pop() if left else False:
            came[1][bit // 8] ^= 1 << bit % 8

    setattr(distributed, collective, faulty)
    try:
        yield
    finally:
        setattr(distributed, collective, original)


def names_the_corrupt_bucket(rank: int) -> None:
    """Under every kind of message; what the bucket's parameters remember is as before."""
    for spec in ("fp32", "powersgd:rank=2", "top-k:share=0.1", "int8:checksum=true"):
        model = wrapped(net())
        hook = compress_hook(model, spec, checksum="checksum" not in spec)
        train(model, rank, range(2))
        before = hook.state_dict()
        summed = spec in ("fp32", "powersgd:rank=2")
        kind = "all_to_all_single" if summed else "all_gather"
        message = r"bucket 0 \(5\.bias to \S+\): what rank 1 sent to rank 0"
        with flipped(kind, rank == 0, 77), pytest.raises(RuntimeError, match=message):
            loss(model, 2, rank).backward()
        after = hook.state_dict()
        for name in ("5.bias", "5.weight"):
            mine = {k: v for k, v in before.items() if k.startswith(name)}
            assert all(torch.equal(after[k], v) for k, v in mine.items()), spec


def resumes(rank: int) -> None:
    for spec in ("powersgd", "dgc", "qsgd", "random-k", "bf16"):
        whole, first, second = wrapped(net()), wrapped(net()), wrapped(net())
        compress_hook(whole, spec)
        train(whole, rank, range(5))
        saved = compress_hook(first, spec)
        train(first, rank, range(3))
        second.load_state_dict(first.state_dict())
        compress_hook(second, spec).load_state_dict(saved.state_dict())
        train(second, rank, range(3, 5))
        assert torch.equal(weights(second), weights(whole)), spec


def refuses_what_is_sharded(rank: int) -> None:
    from torch.distributed.fsdp import fully_shard

    model = elision.elide(net(), elision.methods.Swat(0.5), engine="torch")
    for layer in model:
        fully_shard(layer)
    with pytest.raises(
        ValueError, match=r"compress_hook: FSDP\w+ is sharded .* scatter"
    ):
        compress_hook(fully_shard(model), "bf16")


def refuses(rank: int) -> None:
    model = wrapped(net())
    spec = "top-k:share=0.1" if rank else "top-k:share=0.2"
    with pytest.raises(RuntimeError, match=r"ranks \[1\] differ .* in the compressor"):
        compress_hook(model, spec)
    compress_hook(model, "bf16")
    with pytest.raises(ValueError, match="has a communication hook already"):
        compress_hook(model, "bf16")
    with pytest.raises(ValueError, match=r"float64; gradients may be float32"):
        compress_hook(wrapped(net().double()), "bf16")
    own = elision.methods.Swat(0.5 if rank else 0.6)
    other = wrapped(elision.elide(net(), own, engine="torch"))
    with pytest.raises(RuntimeError, match=r"ranks \[1\] differ .* in the recipe"):
        compress_hook(other, "bf16")
    ranks = elision.training.Ranks(rank, 2)
    masks_alone = elision.elide(net(), elision.methods.RigL(0.5), engine="torch")
    other = elision.elide(net(), elision.methods.RigL(0.5), engine="torch")
    assert ranks.wrapped(masks_alone) is not None
    if rank:
        weight = elision.topology.attach(other, sgd(other)).weights[1]
        weight.set_state("mask", weight.mask.flip(0))
    with pytest.raises(RuntimeError, match=r"ranks \[1\] differ .* in the masks"):
        ranks.wrapped(other)
    with pytest.raises(RuntimeError, match=r"ranks \[1\] differ .* in the masks"):
        compress_hook(wrapped(other), "bf16")
    model = wrapped(net())
    with pytest.raises(RuntimeError, match=r"ranks \[1\] differ .* in the compressor"):
        compress_hook(model, "bf16", checksum=bool(rank))
    masked = elision.elide(
        net(), elision.methods.Static(0.5, seed=rank), engine="torch"
    )
    with pytest.raises(RuntimeError, match=r"ranks \[1\] differ .* in the"):
        ranks.wrapped(masked)
    with pytest.raises(RuntimeError, match=r"ranks \[1\] differ .* in the model"):
        ranks.wrapped(nn.Linear(3 + rank, 1))


def main(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    for name in COMPRESSORS:
        conserves(name, rank)
    for case in (
        power_sgd_in_many_buckets,
        float32_is_plain,
        exact_is_plain,
        accumulates,
        knows_a_static_graph,
        shards_optimiser,
        spares_what_is_not_finite,
        casts_alike_in_any_buckets,
        tells_its_observer,
        names_one_parameter,
        finds_every_flipped_bit,
        names_the_corrupt_bucket,
        resumes,
        refuses_what_is_sharded,
        refuses,
    ):
        case(rank)
        distributed.barrier()
        Path(folder, f"{case.__name__}-{rank}").touch()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
