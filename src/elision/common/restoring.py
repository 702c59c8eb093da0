"""Restore a model's state and the random state after trial passes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["Buffers", "kept_random_state", "restored"]


class Buffers:
    """Snapshot of a model's buffers: running statistics, a recipe's state.

    State of an elided layer that is no buffer (its attributes ``elision_*``) is in it.

    Example:
        >>> norm = nn.BatchNorm1d(2)
        >>> before = Buffers(norm)
        >>> _ = norm(torch.ones(4, 2))
        >>> before.put_back()
        >>> norm.running_mean
        tensor([0., 0.])
    """

    def __init__(self, model: nn.Module) -> None:
        self._before = [
            (module, name, buffer, buffer.detach().clone())
            for module in model.modules()
            for name, buffer in _state(module).items()
            if buffer is not None
        ]

    @torch.no_grad()
    def put_back(self) -> None:
        """Restore every buffer's tensor and values from the snapshot.

        An unchanged buffer is not written and keeps its version; a changed one is
        written in place, since an optimiser may hold the same tensor (DST's
        thresholds).
        """
        for module, name, buffer, values in self._before:
            holder = module._buffers if name in module._buffers else vars(module)
            holder[name] = buffer
            if not buffer.is_meta and not torch.equal(buffer, values):
                buffer.copy_(values)


def _state(module: nn.Module) -> dict[str, torch.Tensor | None]:
    own = {n: v for n, v in vars(module).items() if n.startswith("elision_")}
    return own | dict(module._buffers.items())  # a scripted module's are no dict


@contextmanager
def restored(model: nn.Module, *, random_state: bool = False) -> Iterator[None]:
    """Context manager: restore the buffers of ``model`` on exit, after errors as well.

    Args:
        model: any module.
        random_state: restore the CPU's random state, too.

    Example:
        >>> norm = nn.BatchNorm1d(2)
        >>> with restored(norm):
        ...     _ = norm(torch.ones(4, 2))
        >>> norm.num_batches_tracked
        tensor(0)
    """
    before = Buffers(model)
    with torch.random.fork_rng(devices=[], enabled=random_state):
        try:
            yield
        finally:
            before.put_back()


def kept_random_state(device: torch.device) -> Callable[[], None]:
    """A function that puts back the random state as it is now.

    Args:
        device: whose state is kept beside the CPU's; only CUDA devices have one here.

    Example:
        >>> put_back = kept_random_state(torch.device("cpu"))
        >>> first = torch.rand(3)
        >>> put_back()
        >>> bool((torch.rand(3) == first).all())
        True
    """
    on_cpu = torch.get_rng_state()
    on_gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def put_back() -> None:
        torch.set_rng_state(on_cpu)
        if on_gpu is not None:
            torch.cuda.set_rng_state(on_gpu, device)

    return put_back
