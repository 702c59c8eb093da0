"""Layers of a network in the blocked layout: plain modules with another forward.

Each is made from a module by :func:`as_blocked` and shares its parameters and buffers.
"""

import copy
import itertools
import weakref
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from elision.engines.native import library
from elision.engines.native.blocked import layer_lists, ops

__all__ = [
    "BlockedConv2d",
    "BlockedLinear",
    "BlockedMaxPool",
    "BlockedNorm",
    "Level",
    "Sparsity",
    "as_blocked",
    "autocast_dtype",
    "pair",
]

Kind = TypeVar("Kind", bound=nn.Module)


@dataclass(frozen=True)
class Level:
    """A threshold that is kept in a module's buffers between refreshes.

    Attributes:
        threshold: name of the buffer that holds it.
        step: name of the buffer that counts the passes in training.
        refresh: passes between two refreshes.
    """

    threshold: str
    step: str
    refresh: int


@dataclass(frozen=True)
class Sparsity:
    """What one layer leaves out.

    Attributes:
        weight_keep: fraction of the weights that forward and input gradient read, the
            largest; ignored under a mask.
        input_keep: fraction of the input that the weight gradient reads, the largest.
        samples: values that thresholds are estimated from; None for exact thresholds.
        mask: name of the module's attribute that holds a mask of the weight's shape:
            weights where it is zero are out of forward and input gradient, and out of
            the weight gradient unless ``gradient`` says otherwise. None: no mask.
        gradient: name of the attribute with the share of the weight gradient that is
            asked for; 1 means all of it, mask or not. None: the mask's.
        weight_level: where the weight's threshold is kept; None: found anew each time.
        input_level: the same for the input.

    Raises:
        ValueError: a fraction is not in (0, 1], or ``samples`` is not positive.
    """

    weight_keep: float = 1.0
    input_keep: float = 1.0
    samples: int | None = None
    mask: str | None = None
    gradient: str | None = None
    weight_level: Level | None = None
    input_level: Level | None = None

    def __post_init__(self) -> None:
        for name in ("weight_keep", "input_keep"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(
                    f"Sparsity({name}={getattr(self, name)!r}): must be in (0, 1]"
                )
        if self.samples is not None and self.samples < 1:
            raise ValueError(f"Sparsity(samples={self.samples!r}): must be >= 1")


def pair(value: int | tuple[int, ...]) -> list[int]:
    """One number for both axes, or one for each."""
    return [value, value] if isinstance(value, int) else list(value)


def as_blocked(module: nn.Module, kind: type[Kind]) -> Kind:
    """The same module, parameters and buffers shared, with the forward of ``kind``."""
    made = copy.copy(module)
    made.__class__ = kind  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(made, _Sparse):
        made.number = layer_lists.new_layer()
        weakref.finalize(made, layer_lists.forget_layer, made.number)
    return made  # pyright: ignore[reportReturnType]


def autocast_dtype() -> torch.dtype | None:
    """The dtype that autocast asks for on the CPU; None without it."""
    asked = torch.is_autocast_enabled("cpu")
    return torch.get_autocast_dtype("cpu") if asked else None


class _Sparse(nn.Module):
    """What sparse layers share: their thresholds, and the operator."""

    sparsity: Sparsity
    number: int
    weight: Tensor

    def product(
        self,
        x: Tensor,
        weight: Tensor,
        images: int,
        window: list[int],
        source: tuple[Tensor | None, Tensor | None, bool] = (None, None, False),
        plain: bool = False,
    ) -> Tensor:
        """The layer's product, without bias.

        ``source`` is what the input was made of, and ``plain`` whether it is not
        blocked, as :func:`ops.conv2d` takes them.
        """
        s = self.sparsity
        mask = None if s.mask is None else getattr(self, s.mask).view(weight.shape)
        level = None
        if mask is None:
            level = self._level(s.weight_level, weight, s.weight_keep, None)
        asked = autocast_dtype()
        y = ops.conv2d(
            *(x, weight, mask),
            None if s.gradient is None else getattr(self, s.gradient),
            level,
            self._level(s.input_level, x, s.input_keep, 0 if plain else images),
            *source,
            asked == torch.float16 and library.multiplies_halves(),
            plain,
            images,
            window,
            self.number,
        )
        return y.to(asked) if plain and asked is not None else y

    def _level(
        self, kept: Level | None, x: Tensor, keep: float, images: int | None
    ) -> Tensor | None:
        """Magnitude that a value must reach to be read; None: not zero."""
        if keep >= 1:
            return None
        samples = self.sparsity.samples or 0
        if kept is None:
            return ops.level(x.detach(), keep, samples, images or 0)
        threshold, step = getattr(self, kept.threshold), getattr(self, kept.step)
        if not (self.training and torch.is_grad_enabled()):
            return ops.level(x.detach(), keep, samples, images or 0)
        if step.item() % kept.refresh == 0:
            threshold.copy_(ops.level(x.detach(), keep, samples, images or 0))
        step.add_(1)
        return threshold.clone()  # the buffer may move before the backward pass


class BlockedConv2d(_Sparse, nn.Conv2d):
    """A convolution of blocked tensors; ``images`` is the batch size.

    Behind a normalisation it is told what that read, ``source``, and its line and ReLU.
    Then the source, which the normalisation keeps anyway, is all that both keep. If it
    is ``alone``, its input and output are plain.
    """

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        input: Tensor,
        images: int,
        add_bias: bool = True,
        source: Tensor | None = None,
        line: Tensor | None = None,
        relu: bool = False,
        alone: bool = False,
    ) -> Tensor:
        """Blocked to blocked; without the bias if a normalisation behind takes it."""
        window = [*self.stride, *pair(self.padding), *self.dilation]  # pyright: ignore[reportArgumentType]
        made_of = (source, line, relu)
        y = self.product(input, self.weight, images, window, made_of, alone)
        if self.bias is None or not add_bias:
            return y
        bias = self.bias.to(y.dtype)
        return y + bias.view(1, -1, *(1,) * (y.dim() - 2))


class BlockedLinear(_Sparse, nn.Linear):
    """A linear layer of plain tensors that computes in the blocked layout.

    It is a convolution of 1x1 images, with rows for images.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Plain to plain, of any number of leading axes."""
        rows = input.reshape(-1, input.shape[-1], 1, 1)
        weight = self.weight[..., None, None]
        window = [1, 1, 0, 0, 1, 1]
        y = self.product(rows, weight, rows.shape[0], window, plain=True)
        y = y.view(*input.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias.to(y.dtype)


class BlockedNorm(nn.BatchNorm2d):
    """Batch normalisation, residual sum and ReLU of blocked tensors.

    ``ahead`` is the bias of the convolution before, not added yet: it moves the running
    mean, and nothing else while the statistics are those of the batch.
    """

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        input: Tensor,
        images: int,
        residual: Tensor | None = None,
        relu: bool = False,
        ahead: Tensor | None = None,
        with_line: bool = False,
    ) -> Any:
        """Blocked to blocked; the residual is added behind the normalisation.

        ``with_line``: the output together with its line (see :func:`ops.norm`).
        """
        track = self.training and self.track_running_stats
        train = self.training or self.running_mean is None
        mean, variance = self.running_mean, self.running_var
        if mean is None or variance is None:
            mean = variance = input.new_empty(input.shape[1])
        shift = self.bias
        if ahead is not None:
            # Times zero: the bias has a gradient, which is zero, and not none at all.
            slope = 0.0 if train else torch.rsqrt(variance + self.eps)
            moved = ahead * slope * (1.0 if self.weight is None else self.weight)
            shift = moved if shift is None else shift + moved
        y, mean, variance, line = ops.norm(
            *(input, residual, self.weight, shift, mean, variance),
            images,
            self.eps,
            relu,
            train,
        )
        if track:
            mean = mean if ahead is None else mean + ahead
            self._track(mean, variance, images * input.shape[2] * input.shape[3])
        return (y, line) if with_line else y

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        self.num_batches_tracked.add_(1)
        share = self.momentum
        if share is None:  # cumulative average
            share = 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * (count / max(1, count - 1)), share)


class BlockedMaxPool(nn.MaxPool2d):
    """Max pooling of blocked tensors."""

    def forward(self, input: Tensor, images: int) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Blocked to blocked, whatever the batch size."""
        del images
        pairs = map(pair, (self.kernel_size, self.stride, self.padding))
        window = [*itertools.chain.from_iterable(pairs), int(self.ceil_mode)]
        return ops.max_pool(input, window)
