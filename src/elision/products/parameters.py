"""What a convolution is called with beside its tensors."""

from typing import NamedTuple

__all__ = ["INPUTS_FIRST", "ConvolutionParameters"]


class ConvolutionParameters(NamedTuple):
    """Parameters of a convolution's call, one number an axis of the image each.

    The names are those of ``torch.ops.aten.convolution``.

    Attributes:
        stride: pixels between neighbouring windows.
        padding: zeros on each side of the image; of a transposed convolution, pixels cut
            off on each side of its output.
        dilation: pixels between the taps of a window.
        groups: independent blocks of channels.
        transposed: whether input and output have changed places.
        output_padding: pixels added to the end of a transposed convolution's output;
            empty where there is none.

    Example:
        >>> up = ConvolutionParameters((2,), (0,), (1,), transposed=True)
        >>> up.output_shape((1, 8, 5), (8, 3, 2))
        (1, 3, 10)
    """

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1
    transposed: bool = False
    output_padding: tuple[int, ...] = ()

    @property
    def extra(self) -> tuple[int, ...]:
        """The output padding with a number for every axis."""
        return self.output_padding or (0,) * len(self.stride)

    def output_shape(
        self, input: tuple[int, ...], weight: tuple[int, ...]
    ) -> tuple[int, ...]:
        """Shape of the output.

        Args:
            input: ``(N, C, *sizes)``.
            weight: ``(K, C/groups, *kernel)``; transposed ``(C, K/groups, *kernel)``.
        """
        reach = [
            d * (taps - 1) for d, taps in zip(self.dilation, weight[2:], strict=True)
        ]
        axes = zip(input[2:], self.stride, self.padding, reach, self.extra, strict=True)
        if self.transposed:
            sizes = ((n - 1) * s - 2 * p + r + e + 1 for n, s, p, r, e in axes)
            return input[0], weight[1] * self.groups, *sizes
        return (
            input[0],
            weight[0],
            *((n + 2 * p - r - 1) // s + 1 for n, s, p, r, _ in axes),
        )

    @classmethod
    def of_numbers(cls, numbers: list[int]) -> "ConvolutionParameters":
        """The parameters that :attr:`numbers` lists."""
        *each, groups, transposed = numbers
        rank = len(each) // 4
        stride, padding, dilation, extra = (
            tuple(each[i * rank : (i + 1) * rank]) for i in range(4)
        )
        return cls(stride, padding, dilation, groups, bool(transposed), extra)

    @property
    def numbers(self) -> list[int]:
        """All of it in one list, as operators of a graph take it."""
        each = (*self.stride, *self.padding, *self.dilation, *self.extra)
        return [*each, self.groups, int(self.transposed)]


#: Of a matrix product whose weight is ``(inner, columns)``: a transposed convolution over
#: no axis.
INPUTS_FIRST = ConvolutionParameters((), (), (), transposed=True)
