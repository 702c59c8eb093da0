"""One change of one mask."""

from dataclasses import dataclass

__all__ = ["Move"]


@dataclass(frozen=True)
class Move:
    """Change of one layer's mask in one step.

    Attributes:
        step: the step, from 1.
        layer: name of the layer.
        dropped: weights that became inactive.
        grown: weights that became active.
        nnz: active weights since.

    Example:
        >>> Move(step=100, layer="conv1", dropped=30, grown=30, nnz=100).grown
        30
    """

    step: int
    layer: str
    dropped: int
    grown: int
    nnz: int
