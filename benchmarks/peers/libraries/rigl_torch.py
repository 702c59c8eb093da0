"""rigl-torch: RigL's moving masks on dense weights."""

import importlib
from collections.abc import Iterator

import torch

from benchmarks.peers.base import Peer, Work
from benchmarks.peers.moving_masks import Masks, compared


def works(small: bool) -> Iterator[Work]:
    """Training steps of a network with RigL's masks."""
    package = importlib.import_module("rigl_torch.RigL")

    def masked(model, optimizer, *, sparsity: float, every: int, until: int) -> Masks:
        scheduler = package.RigLScheduler(
            model,
            optimizer,
            dense_allocation=1 - sparsity,
            T_end=until,
            delta=every,
            grad_accumulation_n=1,
        )
        names = {id(p): n for n, p in model.named_parameters()}

        def masks() -> dict[str, torch.Tensor]:
            return {
                names[id(w)].removesuffix(".weight"): m
                for w, m in zip(scheduler.W, scheduler.backward_masks, strict=True)
                if m is not None
            }

        def step() -> None:
            if scheduler():
                optimizer.step()

        return Masks(masks, step)

    # The steps over which it gathers the gradient are fewer than those between moves.
    yield from compared("rigl-torch", masked, small, least=2)


PEER = Peer(
    "rigl-torch",
    "moving masks",
    works,
    requirements=("rigl-torch", "torchvision"),
    distribution="rigl-torch",
)
