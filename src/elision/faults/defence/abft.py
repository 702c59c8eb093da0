"""Checked products: every product of a model beside its checksums, while it runs."""

import functools
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from elision.common.checks import integer
from elision.faults.defence.checksums import check, is_linear_in_sums
from elision.faults.defence.sums import Sums, sums_of
from elision.layers.observation import Computed, Observation
from elision.layers.watch import watch
from elision.products import Product

__all__ = ["CheckedProducts", "Finding", "checked_products"]


@dataclass(frozen=True)
class Finding:
    """One product whose sums are wrong.

    Attributes:
        layer: name of the layer.
        product: which of its three.
        channels: the checksums that are off: output channels of a forward product, input
            channels of an input gradient, (group, tap) numbers of a weight gradient.
        number: products that had been checked before.
    """

    layer: str
    product: Product
    channels: tuple[int, ...]
    number: int

    def __str__(self) -> str:
        where = ", ".join(map(str, self.channels[:4])) + ", ..." * (
            len(self.channels) > 4
        )
        return f"{self.product.value} of layer {self.layer!r}: sums {where} are wrong"


@dataclass
class CheckedProducts:
    """An observer that checks the sums of every product; see :func:`checked_products`.

    Attributes:
        every: one product in so many is checked, in turn.
        findings: what was wrong.
        checked: products that were checked.
        unchecked: products whose sums are not known, by the reason.

    Example:
        >>> import torch
        >>> model = nn.Linear(4, 2)
        >>> with checked_products(model) as products:
        ...     model(torch.ones(3, 4)).sum().backward()
        >>> products.checked, products.findings
        (2, [])
    """

    every: int = 1
    findings: list[Finding] = field(default_factory=list)
    checked: int = 0
    unchecked: Counter[str] = field(default_factory=Counter)
    _seen: int = 0
    _told: int = 0
    _sums: dict[str, tuple[Any, Sums]] = field(default_factory=dict)

    @property
    def raised(self) -> bool:
        """Whether something was found since this was last asked (an alarm)."""
        told, self._told = self._told, len(self.findings)
        return self._told > told

    def __call__(self, observation: Observation) -> None:
        """Nothing: what counts is the result."""

    def computed(self, done: Computed) -> None:
        """Check one product."""
        self._seen += 1
        if self._seen % self.every:
            return
        # Modes that watch functions have no part in a hundred small ones.
        with torch._C.DisableTorchFunction(), torch.no_grad():
            self._check(done)

    def _check(self, done: Computed) -> None:
        why = _unknown(done)
        if why is not None:
            self.unchecked[why] += 1
            return
        sums = check(
            done.kind,
            done.first,
            done.second,
            done.result.detach(),
            None if done.bias is None else done.bias.detach(),
            done.convolution,
            functools.partial(self._read, done.layer),
        )
        if not sums.ok:
            wrong = tuple(sums.wrong.flatten().nonzero().flatten().tolist())
            self.findings.append(Finding(done.layer, done.kind, wrong, self.checked))
        self.checked += 1

    def _read(self, layer: str, x: Tensor, groups: int) -> Sums:
        """The sums of an operand, which two products of a layer often share."""
        mark = (x.data_ptr(), x._version, x.shape, x.stride(), groups)
        for key in (f"{layer} 0", f"{layer} 1"):
            known = self._sums.get(key)
            if known is not None and known[0] == mark:
                return known[1]
        found = sums_of(x, groups)
        self._sums[f"{layer} 1"] = self._sums.pop(f"{layer} 0", (None, found))
        self._sums[f"{layer} 0"] = mark, found
        return found


def _unknown(done: Computed) -> str | None:
    """Why the sums of a product are not known; None: they are."""
    if not is_linear_in_sums(done.convolution):
        return "transposed convolution"
    if not done.whole:
        return "weight gradient of a masked layer"
    if done.convolution is None and done.first.dim() != 2:
        return "batch of matrix products"
    if not done.first.numel() or not done.second.numel():
        return "empty product"
    return None


@contextmanager
def checked_products(model: nn.Module, *, every: int = 1) -> Iterator[CheckedProducts]:
    """Check the three products of every layer by their sums, in the context.

    A finding is recorded, and the result stays as it is; whoever trains decides what to
    do. NaN and infinity in a result are findings.

    Args:
        model: elided or not; not compiled.
        every: check one product in so many.

    Yields:
        What was found so far.

    Raises:
        ValueError: the model has no layers, or is compiled; a number below 1.
    """
    integer("checked_products", "every", every)
    checker = CheckedProducts(every)
    with watch(model, checker):
        yield checker
