"""Ratios of gradient compression by formula: what indices and gathering leave of them."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from elision.common.columns import column
from elision.training.parallel.scaling import Link
from elision.training.parallel.scaling.collectives import AllGather, Ring
from elision.workloads.models import make_model

__all__ = ["RatioRow", "factorised", "ratios"]

#: Share of the values that DGC sends.
DGC_SHARE = 0.001

#: Ranks of PowerSGD's factors.
_FACTORS = (1, 2, 4)


@dataclass(frozen=True)
class RatioRow:
    """Bytes of a network's gradients over those of their message.

    Attributes:
        method: with its parameter and its coding.
        network: whose gradients.
        values: of the gradients.
        ratio: bytes of float32 over bytes of one rank's message.
        traffic: bytes that a rank sends in a ring all-reduce of float32 over those that
            it sends for the messages: gathered, or added on the way.

    Example:
        >>> RatioRow("bf16", "mlp", 1000, 2.0, 2.0).ratio
        2.0
    """

    method: str = column("method")
    network: str = column("network")
    values: int = column("values", ",")
    ratio: float = column("ratio of messages", ".1f", "x")
    traffic: float = column("of a rank's traffic", ".1f", "x")


def factorised(shapes: Iterable[torch.Size], rank: int) -> int:
    """Values that PowerSGD sends: ``rank (rows + columns)`` of a matrix, vectors whole.

    A kernel of shape (K, C, R, S) is a matrix of K rows; a matrix that its factors would
    not shorten is sent whole.

    Example:
        >>> factorised([torch.Size((10, 20)), torch.Size((10,))], 2)
        70
    """
    sent = 0
    for shape in shapes:
        whole = shape.numel()
        rows = shape[0] if len(shape) > 1 else 1
        sent += min(rank * (rows + whole // rows) if rows > 1 else whole, whole)
    return sent


def ratios(ranks: int) -> list[RatioRow]:
    """DGC's coding on ResNet-50 and PowerSGD's factors on ResNet-18, by formula."""
    rows = []
    large = _on_meta("resnet50-imagenet", 1000, 224)
    n = sum(p.numel() for p in large.parameters())
    for coding, bits in (
        ("64 bits a pair", 64),
        (f"{32 + math.ceil(math.log2(n))} bits a pair", 32 + math.ceil(math.log2(n))),
    ):
        message = DGC_SHARE * n * bits / 8
        gathered = AllGather(Link()).sent_bytes(message, ranks)
        rows.append(
            RatioRow(
                f"DGC, {DGC_SHARE:.1%}, {coding}",
                "ResNet-50",
                n,
                4 * n / message,
                Ring(Link()).sent_bytes(4 * n, ranks) / gathered,
            )
        )
    small = _on_meta("resnet18", 10, 32)
    shapes = [p.shape for p in small.parameters()]
    n = sum(shape.numel() for shape in shapes)
    for rank in _FACTORS:
        ratio = n / factorised(shapes, rank)
        rows.append(RatioRow(f"PowerSGD, rank {rank}", "ResNet-18", n, ratio, ratio))
    return rows


def _on_meta(name: str, classes: int, size: int) -> nn.Module:
    """A network without storage."""
    with torch.device("meta"):
        return make_model(name, in_channels=3, classes=classes, image_size=size)
