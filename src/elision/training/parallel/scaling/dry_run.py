"""Dry run: the buckets that ``DistributedDataParallel`` would send at any rank count."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from elision.training.parallel.scaling.torch_names import one_of_many

__all__ = ["dry_run"]


def dry_run(
    model: nn.Module,
    loss: Callable[[nn.Module], Tensor],
    ranks: int = 256,
    bucket_cap: float | None = None,
) -> list[int]:
    """Bytes of the buckets of one step, in the order in which they are sent.

    Torch's own ``DistributedDataParallel`` runs on a copy of the model in one process,
    over its fake process group. The second step counts: after the first, torch fills
    buckets anew, in the order in which gradients were ready.

    Args:
        model: any module with gradients.
        loss: forward pass and loss of the module that it is given.
        ranks: in the group.
        bucket_cap: bytes at which a bucket closes; default: torch's.

    Raises:
        RuntimeError: a process group is connected already.

    Example:
        >>> net = nn.Linear(4, 2)
        >>> dry_run(net, lambda m: m(torch.ones(1, 4)).sum())
        [40]
    """
    found: list[int] = []

    def note(
        state: None,
        bucket: torch.distributed.GradBucket,  # pyright: ignore[reportPrivateImportUsage]
    ) -> torch.futures.Future[Tensor]:
        del state
        tensor = bucket.buffer()
        found.append(tensor.numel() * tensor.element_size())
        done: torch.futures.Future[Tensor] = torch.futures.Future()
        done.set_result(tensor)
        return done

    with one_of_many(ranks):
        cap = None if bucket_cap is None else bucket_cap / 2**20
        parallel = nn.parallel.DistributedDataParallel(
            copy.deepcopy(model), bucket_cap_mb=cap
        )
        parallel.register_comm_hook(None, note)
        for _ in range(2):
            found.clear()
            parallel.zero_grad()
            loss(parallel).backward()
        del parallel
    return found
