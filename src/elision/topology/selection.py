"""Exact counts: seeded randomness, the best of many, shares as whole numbers."""

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["apportion", "best", "generator"]


def generator(seed: int, layer: str, step: int) -> torch.Generator:
    """Randomness that depends on (seed, layer name, step) alone.

    So every rank of a distributed run draws the same, and so does a resumed one.
    """
    digest = hashlib.sha256(f"{seed}/{layer}/{step}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))


def best(score: Tensor, count: int, random: torch.Generator) -> Tensor:
    """The ``count`` positions of highest score; ties are cut at random.

    Args:
        score: of any shape; ``-inf`` marks what may not be chosen, and NaN counts as
            the lowest score that may.
        count: how many, at most as many as may be chosen.
        random: breaks ties.

    Returns:
        Boolean mask of the shape of ``score`` with exactly ``count`` set.

    Raises:
        ValueError: fewer than ``count`` may be chosen.
    """
    flat = score.flatten()
    size = flat.numel()
    if count <= 0:
        return torch.zeros_like(score, dtype=torch.bool)
    if count > size:
        raise ValueError(f"cannot choose {count} of {size}")
    if flat.is_floating_point():
        flat = flat.nan_to_num(torch.finfo(flat.dtype).min, math.inf, -math.inf)
    level = flat.kthvalue(size - count + 1).values
    if level == -math.inf:
        allowed = int((flat > level).sum())
        raise ValueError(f"cannot choose {count}: only {allowed} may be chosen")
    chosen = flat > level
    ties = (flat == level).nonzero().flatten()
    missing = count - int(chosen.sum())
    picked = torch.randperm(ties.numel(), generator=random, device=random.device)[
        :missing
    ]
    chosen[ties[picked.to(ties.device)]] = True
    return chosen.view_as(score)


def apportion(
    total: int,
    shares: Sequence[float],
    limits: Sequence[int] | None = None,
    *,
    evenly: bool = False,
) -> list[int]:
    """Divide ``total`` by shares into whole numbers whose sum is exact.

    By largest remainder; what a limit cuts off is divided among the rest again.

    Args:
        total: what is divided.
        shares: non-negative weights, one a part. Where all open parts have share 0
            they count as equal.
        limits: the most that each part can take; None for no limit.
        evenly: what a limit cuts off is divided in equal parts, not by shares.

    Raises:
        ValueError: the limits together are less than ``total``.
    """
    room = [total] * len(shares) if limits is None else list(limits)
    if sum(room) < total:
        raise ValueError(f"cannot place {total} where there is room for {sum(room)}")
    parts = [0] * len(shares)
    while (left := total - sum(parts)) > 0:
        open_ = [i for i in range(len(parts)) if parts[i] < room[i]]
        weight = sum(shares[i] for i in open_)
        exact = {
            i: left * (shares[i] / weight if weight > 0 else 1 / len(open_))
            for i in open_
        }
        whole = {i: int(x) for i, x in exact.items()}
        by_remainder = sorted(open_, key=lambda i: (whole[i] - exact[i], i))
        for i in by_remainder[: left - sum(whole.values())]:
            whole[i] += 1
        for i in open_:
            parts[i] += min(whole[i], room[i] - parts[i])
        if evenly:
            shares = [1.0] * len(parts)
    return parts
