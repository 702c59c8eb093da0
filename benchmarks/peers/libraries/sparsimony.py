"""sparsimony: moving masks as parametrisations of the weights."""

import importlib
from collections.abc import Iterator

import torch
from torch import nn

from benchmarks.peers.base import Peer, Work
from benchmarks.peers.moving_masks import Masks, compared


def works(small: bool) -> Iterator[Work]:
    """Training steps of a network with RigL's masks."""
    rigl = importlib.import_module("sparsimony.dst.rigl")
    schedulers = importlib.import_module("sparsimony.schedulers.base")
    distributions = importlib.import_module("sparsimony.distributions.base")

    class Each(distributions.BaseDistribution):
        """The same sparsity in every layer that has a mask."""

        def __call__(self, sparsity, groups, *args, **kwargs):
            for group in groups:
                group["sparsity"] = sparsity
            return groups

    def masked(model, optimizer, *, sparsity: float, every: int, until: int) -> Masks:
        sparsifier = rigl.RigL(
            schedulers.CosineDecayScheduler(0.3, until, every),
            Each(),
            optimizer,
            sparsity=sparsity,
            init_method=None,
        )
        names = [
            name
            for name, module in model.named_modules()
            if isinstance(module, nn.Conv2d) and name != "conv1"
        ]
        sparsifier.prepare(model, [{"tensor_fqn": f"{n}.weight"} for n in names])

        def masks() -> dict[str, torch.Tensor]:
            return {
                n: model.get_submodule(n).parametrizations.weight[0].mask.bool()
                for n in names
            }

        def step() -> None:
            if not sparsifier.step():
                optimizer.step()

        return Masks(masks, step)

    yield from compared("sparsimony", masked, small, least=1)


PEER = Peer(
    "sparsimony",
    "moving masks",
    works,
    requirements=("sparsimony",),
    distribution="sparsimony",
)
