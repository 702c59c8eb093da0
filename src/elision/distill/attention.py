"""Attention maps of layers.

Zagoruyko, Komodakis, "Paying More Attention to Attention", ICLR 2017 (arXiv 1612.03928),
section 3.1.
"""

from dataclasses import KW_ONLY, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elision.distill.base import LayerPairs, Outputs, whole

__all__ = ["AttentionTransfer"]


@dataclass(frozen=True)
class AttentionTransfer(LayerPairs):
    """Distillation of where layers are active.

    ``L = weight·Σ over pairs of ‖Q_s/‖Q_s‖ - Q_t/‖Q_t‖‖₂`` with ``Q = vec(Σ_c A_c²)``
    of a layer's output ``A``, ``(N, C, H, W)``; mean over examples. The sizes of the
    activations cancel, and so do the numbers of channels; height and width must agree.

    Attributes:
        student: name of a layer of the student, or several.
        teacher: of the teacher's, in the same order; none: of the same names.
        weight: factor of the term (1 is our own choice).

    Example:
        >>> maps = torch.rand(2, 3, 4, 4)
        >>> near = AttentionTransfer("a")
        >>> lesson = near.lesson(Outputs(torch.zeros(2, 2), 2, {"a": 5 * maps}))
        >>> said = Outputs(torch.zeros(2, 2), 2, {"a": maps})
        >>> near.term(said, lesson, None).item() < 1e-6
        True
    """

    _: KW_ONLY
    weight: float = 1.0

    def lesson(self, teacher: Outputs) -> tuple[Tensor, ...]:
        """``Q_t/‖Q_t‖`` of every layer, ``(N, H·W)``."""
        return tuple(
            _attention(name, teacher.layers[name]) for name in self.teacher_layers
        )

    def term(
        self, student: Outputs, lesson: tuple[Tensor, ...], beside: nn.Module | None
    ) -> Tensor:
        """``weight·Σ ‖Q_s/‖Q_s‖ - Q_t/‖Q_t‖‖₂``, mean over the batch's examples."""
        del beside
        found: list[Tensor] = []
        for i, (name, its) in enumerate(zip(self.student_layers, lesson, strict=True)):
            own = _attention(name, student.layers[name])
            if own.shape != its.shape:
                raise ValueError(
                    f"{self.pairs_text(i)} have maps of {own.shape[1]} and "
                    f"{its.shape[1]} places; choose two of one height and width"
                )
            found.append(torch.linalg.vector_norm(own - its, dim=1).mean())
        return self.weight * torch.stack(found).sum()


def _attention(name: str, activations: Tensor) -> Tensor:
    if activations.ndim != 4:
        raise ValueError(
            f"AttentionTransfer: layer {name!r} answers with {tuple(activations.shape)}; "
            "choose one that answers with maps (N, C, H, W)"
        )
    return F.normalize(whole(activations).square().sum(1).flatten(1), dim=1)
