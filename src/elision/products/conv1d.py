"""Convolutions over a line."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from elision.products.convolution import Conv2dGeometry, Convolution
from elision.products.kinds import Product

__all__ = ["Conv1dGeometry"]


@dataclass(frozen=True)
class Conv1dGeometry(Convolution[tuple[int]]):
    """Shape of a 1-D convolution: that of a 2-D one over images of one row.

    Attributes are those of :class:`~elision.products.Conv2dGeometry`; the image has a
    ``length``. Counts and costs are those of :attr:`on_two_axes`.

    Raises:
        ValueError: as for :class:`~elision.products.Conv2dGeometry`.

    Example:
        >>> layer = Conv1dGeometry(2, 4, 10, 8, kernel=3, padding=1)
        >>> layer.shape_of("grad_output"), layer.on_two_axes.shape_of("weight")
        ((2, 8, 10), (8, 4, 1, 3))
    """

    batch: int
    in_channels: int
    length: int
    out_channels: int
    kernel: tuple[int]
    stride: tuple[int] = (1,)
    padding: tuple[int] = (0,)
    dilation: tuple[int] = (1,)
    groups: int = 1

    layer: ClassVar[str] = "conv1d"
    axes: ClassVar[tuple[str, ...]] = ("length",)

    if TYPE_CHECKING:  # what may be given; what is kept are tuples

        def __init__(
            self,
            batch: int,
            in_channels: int,
            length: int,
            out_channels: int,
            kernel: int | tuple[int],
            stride: int | tuple[int] = 1,
            padding: int | tuple[int] = 0,
            dilation: int | tuple[int] = 1,
            groups: int = 1,
        ) -> None: ...

    @property
    def sizes(self) -> tuple[int]:
        """Pixels of the input."""
        return (self.length,)

    @cached_property
    def on_two_axes(self) -> Conv2dGeometry:
        """The 2-D convolution of height 1 that has the same products."""
        return Conv2dGeometry.of_1d(
            (self.batch, self.in_channels, self.length),
            (self.out_channels, self.in_channels // self.groups, *self.kernel),
            *self.stride,
            *self.padding,
            *self.dilation,
            self.groups,
        )

    @property
    def reshaped_convolution(self) -> Conv2dGeometry:
        """That of height 1."""
        return self.on_two_axes

    def as_convolution(self, kind: Product) -> tuple[Product, Conv2dGeometry]:
        """The same product of height 1."""
        return kind, self.on_two_axes

    def to_convolution(self, operand: str, value: Any) -> Any:
        """An image, a filter or a gradient of one row."""
        del operand
        return value[:, :, None]

    def from_convolution(self, operand: str, value: Any) -> Any:
        """Inverse of :meth:`to_convolution`."""
        del operand
        return value[:, :, 0]
