"""Tensors that may be sharded over processes."""

from torch import Tensor

__all__ = ["full", "local", "scatter_like"]


def full(x: Tensor) -> Tensor:
    """The whole tensor on every process, where ``x`` is sharded: a collective call."""
    return x.full_tensor() if hasattr(x, "full_tensor") else x  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]


def local(x: Tensor) -> Tensor:
    """This process's part of a sharded tensor, in the same memory; all of another."""
    return x.to_local() if hasattr(x, "to_local") else x  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]


def scatter_like(whole: Tensor, x: Tensor) -> Tensor:
    """``whole``, which every process holds already, sharded as ``x`` is."""
    if not hasattr(x, "full_tensor"):
        return whole
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = x.device_mesh, x.placements  # pyright: ignore[reportAttributeAccessIssue]
    return distribute_tensor(whole, mesh, placements, src_data_rank=None)
