"""Hints: outputs of layers through a regressor.

Romero, Ballas, Kahou, Chassang, Gatta, Bengio, "FitNets: Hints for Thin Deep Nets", ICLR
2015 (arXiv 1412.6550).
"""

import warnings
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor, nn

from elision.distill.base import LayerPairs, Outputs, whole

__all__ = ["Hints"]


@dataclass(frozen=True)
class Hints(LayerPairs):
    """Distillation of layers' outputs through a regressor.

    ``L = weight·Σ over pairs of ½‖r(h_s) - h_t‖²``, summed over the values of an example
    and averaged over examples. ``r`` is a 1x1 convolution with bias from the student's
    channels to the teacher's; it is trained with the student and dropped at the end.
    Outputs are maps ``(N, C, H, W)``, tokens ``(N, T, C)`` or vectors ``(N, C)``.

    Deviations: the paper trains the lower half by hints first and then the whole by
    scores, here the terms are added; its regressor is a convolution that fits the sizes,
    here both layers have one height and width.

    Attributes:
        student: name of a layer of the student, or several.
        teacher: of the teacher's, in the same order; none: of the same names.
        weight: factor of the term; 0.001 is our own choice, near the reciprocal of the
            number of values of a small network's layer.

    Example:
        >>> hints, taught = Hints("a"), torch.ones(1, 2)
        >>> regressor = hints.modules()
        >>> regressor.settle([torch.zeros(1, 3)], [taught])
        >>> for p in regressor.parameters():
        ...     _ = nn.init.zeros_(p)
        >>> said = Outputs(torch.zeros(1, 2), 1, {"a": torch.zeros(1, 3)})
        >>> round(hints.term(said, (taught,), regressor).item(), 6)
        0.001
    """

    _: KW_ONLY
    weight: float = 1e-3

    def modules(self) -> "Regressors":
        """A regressor a pair, without weights until the channels are known."""
        return Regressors(len(self.student_layers))

    def lesson(self, teacher: Outputs) -> tuple[Tensor, ...]:
        """The teacher's outputs of its layers."""
        return tuple(teacher.layers[name] for name in self.teacher_layers)

    def term(
        self, student: Outputs, lesson: tuple[Tensor, ...], beside: nn.Module | None
    ) -> Tensor:
        """``weight·Σ ½‖r(h_s) - h_t‖²``, mean over the batch's examples."""
        assert isinstance(beside, Regressors)
        said = [whole(student.layers[name]) for name in self.student_layers]
        beside.settle(said, lesson)
        total = torch.zeros((), device=said[0].device)
        for i, (own, its) in enumerate(zip(said, lesson, strict=True)):
            guess, aim = beside[i](_maps(own)), _maps(whole(its))
            if guess.shape != aim.shape:
                raise ValueError(
                    f"{self.pairs_text(i)} answer with {tuple(own.shape)} and "
                    f"{tuple(its.shape)}; choose two of one height and width"
                )
            total = total + 0.5 * (guess - aim).square().sum() / len(own)
        return self.weight * total


class Regressors(nn.ModuleList):
    """One 1x1 convolution a pair of layers; channels follow from the first outputs.

    An optimiser may hold the parameters before they have their shapes.

    Example:
        >>> regressors = Regressors(1)
        >>> regressors.settle([torch.zeros(2, 3, 4, 4)], [torch.zeros(2, 8, 4, 4)])
        >>> regressors[0].weight.shape
        torch.Size([8, 3, 1, 1])
    """

    def __init__(self, count: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that lazy layers are new
            super().__init__(nn.LazyConv2d(1, 1) for _ in range(count))

    def settle(
        self, student: list[Tensor], teacher: list[Tensor] | tuple[Tensor, ...]
    ) -> None:
        """Give the convolutions that have none their weights, of torch's usual start.

        Torch's global random state stays as it is, so that the student's training draws
        what it would draw alone.
        """
        for regressor, own, its in zip(self, student, teacher, strict=True):
            if isinstance(regressor, nn.LazyConv2d):
                regressor.out_channels = _maps(its).shape[1]
                with torch.no_grad(), torch.random.fork_rng(devices=[]):
                    regressor.to(own.device)(_maps(own[:1]))


def _maps(x: Tensor) -> Tensor:
    """Vectors ``(N, C)`` and tokens ``(N, T, C)`` as maps of width 1."""
    if x.ndim == 2:
        return x[:, :, None, None]
    return x.transpose(1, 2)[..., None] if x.ndim == 3 else x
