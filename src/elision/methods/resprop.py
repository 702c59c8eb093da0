"""ReSprop and W-ReSprop: the gradient of the previous batch, reused."""

from dataclasses import KW_ONLY, dataclass

from elision.layers.recipe import Table
from elision.methods.base import Method
from elision.operands import Reuse
from elision.operands.reuse import Pairing
from elision.products import Product

__all__ = ["ReSprop", "WReSprop"]

#: The published warm-up takes 9 epochs; 1,000 steps are these 9 epochs at about 110
#: steps an epoch. Give 9·len(loader) for the published length.
_WARMUP_STEPS = 1000

#: Share of a run that the warm-up takes: 9 of 90 epochs.
_WARMUP_SHARE = 0.1


@dataclass(frozen=True)
class ReSprop(Method):
    """ReSprop: both gradient products read the previous gradient and a sparse difference.

    With ``P`` the full output gradient of one sample of the previous batch and ``S_t``
    keeping the values above an adaptive threshold::

        Y = X · W     HG = P + S_t(G − P)     dX = HG · Wᵀ     dW = HG · X

    ``G, HG: (N, K, P, Q)``, the reference ``(1, K, P, Q)``. The bias gradient is the sum
    of the full ``G``. The part of ``P`` in both products is computed once per batch, about
    ``1/N`` of a dense product. Convolutions, the first included; linear layers dense.

    Reference: Goli and Aamodt, ReSprop: Reuse Sparsified Backpropagation, CVPR 2020.

    Deviations:
        - The reference sample is drawn from the batch; the published code draws its
          index from 1 to the number of layers less one, which is an accident.
        - ``restart`` gives the steps of an epoch; without it only the first
          step of the run uses the full gradient, where the published code does so in
          the first and the last step of every epoch.

    Attributes:
        reuse: fraction of the differences discarded, in [0, 1).
        margin: density aimed at above ``1 − reuse``.
        restart: steps of an epoch; its first and last use the full gradient. 0: only
            the first step of the run does.
        pairing: how the reference is chosen (see :class:`elision.operands.Reuse`).
        seed: of the random choice.
        dense: layers left dense.

    Example:
        >>> from elision.products import Product
        >>> print(ReSprop(0.9).table[Product.WEIGHT_GRAD, "grad_output"])
        reuse 0.9 of the previous
    """

    reuse: float = 0.9
    margin: float = 0.05
    restart: int = 0
    pairing: Pairing = "random"
    seed: int = 0
    _: KW_ONLY
    dense: tuple[str, ...] = (":linear", ":embedding")

    key = "resprop"
    bibtex = """
        @inproceedings{goli2020resprop,
          title     = {{ReSprop}: Reuse Sparsified Backpropagation},
          author    = {Goli, Negar and Aamodt, Tor M.},
          booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
          year      = {2020}
        }
    """

    def build(self) -> Table:
        return self._gradients(warmup_steps=0)

    def _gradients(self, warmup_steps: int) -> Table:
        hybrid = Reuse(
            self.reuse,
            margin=self.margin,
            warmup_steps=warmup_steps,
            restart=self.restart,
            pairing=self.pairing,
            seed=self.seed,
        )
        return Table(
            {
                Product.INPUT_GRAD: {"grad_output": hybrid},
                Product.WEIGHT_GRAD: {"grad_output": hybrid},
            }
        )


@dataclass(frozen=True)
class WReSprop(ReSprop):
    """W-ReSprop: ReSprop whose reuse grows during a warm-up.

    The density of the difference falls from 1 to its final value over ``warmup_steps``,
    in the published proportions (see :class:`elision.operands.Reuse`). The published
    learning-rate schedule that goes with it (4x the base rate in the first 7 epochs)
    belongs to the training loop and is not applied here.

    Attributes:
        warmup_steps: length of the warm-up; 9 epochs of the published runs.

    Example:
        >>> WReSprop(0.9).fitted(steps=500).warmup_steps
        50
    """

    warmup_steps: int = _WARMUP_STEPS

    key = "w-resprop"

    def schedule(self, steps: int) -> dict[str, int]:
        return {"warmup_steps": round(_WARMUP_SHARE * steps)}

    def build(self) -> Table:
        return self._gradients(self.warmup_steps)
