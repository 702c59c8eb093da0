"""What each of two processes does in the tests of other people's loops across ranks.

python loops_ranks.py PORT RANK LIBRARY
"""

import os
import sys
import warnings

import pytest
import torch
import torch.nn.functional as F
from sparse_models import MOVING, batch, sgd, small_net
from torch import Tensor, distributed, nn

import elision
from elision.methods import Swat
from elision.training.loops.saving import Saving
from elision.training.parallel import compress_hook

STEPS = 7
DDP = nn.parallel.DistributedDataParallel


def half(step: int, rank: int) -> tuple[Tensor, Tensor]:
    """This rank's four of the step's eight images."""
    images, labels = batch(step)
    return images[4 * rank : 4 * rank + 4], labels[4 * rank : 4 * rank + 4]


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def plain(recipe, spec: str | None, rank: int, every: int = 1) -> tuple[Tensor, str]:
    """The loop as one would write it under DistributedDataParallel."""
    model = elision.elide(small_net(), recipe, engine="torch").eval()
    wrapped, optimizer = DDP(model), sgd(model)
    topology = elision.topology.attach(model, optimizer)
    if spec is not None:
        compress_hook(wrapped, spec)
    for step in range(STEPS):
        sends = (step + 1) % every == 0
        wrapped.require_backward_grad_sync = sends
        images, labels = half(step, rank)
        (F.cross_entropy(wrapped(images), labels) / every).backward()
        if sends:
            optimizer.step()
            optimizer.zero_grad()
    return weights(model), topology.digest()


def assert_saved(saving: Saving) -> None:
    """Every forward pass had a saver, which names the modules as the model does."""
    assert saving.passes == STEPS
    assert saving.saved is not None
    ledger = saving.saved.ledger
    assert ledger.stored_bytes < ledger.logical_bytes
    named = {row.slot.module.partition(".")[0] for row in ledger.rows}
    assert "module" not in named
    assert "0" in named


def accelerated(rank: int) -> None:
    """Accelerate's loop: recipes, masks, compressors and accumulation, to the last bit."""
    import accelerate

    from elision.training.loops.accelerate import attach_prepared, saver

    for recipe, spec, every in (
        (Swat(0.5), None, 1),
        (Swat(0.5), "top-k:share=0.1", 1),
        (MOVING["rigl"], "mask", 1),
        (MOVING["rigl"], "powersgd:rank=2", 1),
        (Swat(0.5), "top-k:share=0.1", 2),
    ):
        accelerator = accelerate.Accelerator(
            cpu=True, gradient_accumulation_steps=every
        )
        assert accelerator.num_processes == 2
        model = elision.elide(small_net(), recipe, engine="torch").eval()
        prepared, optimizer = accelerator.prepare(model, sgd(model))
        topology = attach_prepared(accelerator, prepared, optimizer)
        if spec is not None:
            compress_hook(prepared, spec)
        saving = saver(prepared, "exact")
        for step in range(STEPS):
            images, labels = half(step, rank)
            with accelerator.accumulate(prepared):
                accelerator.backward(F.cross_entropy(prepared(images), labels))
                optimizer.step()
                optimizer.zero_grad()
        expected, digest = plain(recipe, spec, rank, every)
        assert torch.equal(weights(model), expected), (recipe, spec)
        assert topology.digest() == digest
        assert_saved(saving)
        accelerator.free_memory()


def sped(rank: int) -> None:
    """DeepSpeed's loop at every stage that keeps weights whole."""
    import deepspeed

    from elision.training.loops.deepspeed import attach_engine, saver

    # Gloo carries everything; what DeepSpeed would compile for the CPU is not tested here.
    compiled = deepspeed.ops.__compatible_ops__
    compiled.update(dict.fromkeys(compiled, False))

    def engine_of(model: nn.Module, stage: int):
        settings = {
            "train_micro_batch_size_per_gpu": 4,
            "zero_optimization": {"stage": stage},
            "zero_allow_untested_optimizer": True,
        }
        engine, *_ = deepspeed.initialize(
            model=model, optimizer=sgd(model), config=settings
        )
        return engine

    def train(engine) -> None:
        for step in range(STEPS):
            images, labels = half(step, rank)
            engine.backward(F.cross_entropy(engine(images), labels))
            engine.step()

    for stage in (0, 1, 2):
        model = elision.elide(small_net(), Swat(0.5), engine="torch").eval()
        engine = engine_of(model, stage)
        saving = saver(engine, "exact")
        train(engine)
        expected, _ = plain(Swat(0.5), None, rank)
        assert torch.equal(weights(model), expected), stage
        assert_saved(saving)
        with pytest.raises(ValueError, match="compress_hook: DeepSpeedEngine reduces"):
            compress_hook(engine, "top-k")
        model = elision.elide(small_net(), MOVING["rigl"], engine="torch").eval()
        engine = engine_of(model, stage)
        if stage:
            with pytest.raises(ValueError, match=f"ZeRO stage {stage}"):
                attach_engine(engine)
            continue
        topology = attach_engine(engine)
        train(engine)
        expected, digest = plain(MOVING["rigl"], None, rank)
        assert torch.equal(weights(model), expected)
        assert topology.digest() == digest


def main(rank: str, port: str, library: str) -> None:
    os.environ |= {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {"DS_ACCELERATOR": "cpu", "ACCELERATE_USE_CPU": "true"}
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # what the libraries say of themselves
    distributed.init_process_group("gloo")
    {"accelerate": accelerated, "deepspeed": sped}[library](int(rank))
    distributed.barrier()
    distributed.destroy_process_group()
    sys.stdout.flush()
    # Gloo's threads sometimes abort while the interpreter shuts down; the work is done.
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
