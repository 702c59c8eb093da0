"""BCGD: blended coarse gradient descent, weights and activations quantised."""

from dataclasses import KW_ONLY, dataclass
from typing import Literal, get_args

from elision.common.checks import one_of
from elision.layers.recipe import Table
from elision.methods.quantised import FLOAT_BITS, Quantised
from elision.operands import LearnedStep, Project
from elision.operands.learned_step import Quantiser
from elision.topology import Blended

__all__ = ["Bcgd"]

Gradient = Literal["three-valued", "exact", "pact", "fixed"]

#: Epochs of the published run.
_EPOCHS = 200


@dataclass(frozen=True)
class Bcgd(Quantised):
    """Binary to 8-bit weights and stepped activations; the update blends in the quantised.

    With float weights ``w``, their projection ``q`` on the grid of ``weight_bits`` with one
    scale a layer (:class:`elision.operands.Project`), the activation ``s(x, a)`` of
    ``b = activation_bits`` and ``1[·]`` one where it holds::

        Y = s(X, a) · q      dX = (G · qᵀ)·1[0 < X <= (2^b − 1)·a]      dW = G · s(X, a)
        w ← (1 − rho)·w + rho·q − eta·(dW + wd·w)
        s(x, a) = 0 for x <= 0, k·a for (k − 1)·a < x <= k·a, (2^b − 1)·a above
        da = sum(dL/ds · c(X)),  c = 0 for x <= 0, 2^(b−1) within, 2^b − 1 above

    ``X: (N, C, H, W)``, ``W: (K, C/groups, R, S)``, ``G: (N, K, P, Q)``. ``s`` takes the
    place of the ReLU in front of a layer, so it is for networks whose layers read what a
    ReLU gives: what is negative becomes zero. The gradient of ``a`` is coarse, too; it is
    scaled by ``alpha_rate`` and cut off at ±1, and ``a`` stays in [0.001, 5]. Training
    starts from a trained float model (published: SGD, rate 0.1 divided by 10 at epochs 80
    and 140 of 200, momentum 0.95, weight decay 1e-4, batch 128, CIFAR-10).

    Call :func:`elision.topology.attach` with the optimiser, which may be any: without it
    nothing is blended and ``a`` stays. With Adam and its relatives ``alpha_rate`` has no
    effect, as they divide a gradient by its size.

    Reference: Yin, Zhang, Lyu, Osher, Qi and Xin, Blended Coarse Gradient Descent for Full
    Quantization of Deep Neural Networks, Research in the Mathematical Sciences 6, 2019
    (arXiv 1808.05240). Published: ResNet-18 on ImageNet, 1-bit weights in all layers and
    4-bit activations, 64.36 % top-1; 65.46 % with float first and last layers,
    ``dense=(":first", ":last")``.

    Deviations:
        - What is quantised is a layer's input. Between a ReLU and the layer, that is the
          published activation; a shortcut or a pooling layer that reads the same ReLU has
          its float values.
        - The first step ``a`` is the best one for the quantiser and a unit Gaussian. The
          authors' code has 1.2221, 0.6511 and 0.1946 for 1, 2 and 4 bits, which are the best
          of *rounding*, and the ceiling of the paper: ``alpha=0.6511`` is as there.
        - Ternary weights have the mean of the kept magnitudes as scale; the authors' code
          divides their sum by the number of all weights.
        - Biases and normalisation stay float, and are not blended.
        - ``rho`` grows in steps of ``rho_every`` optimiser steps instead of epochs.

    Attributes:
        weight_bits: 1 (binary), 2 (ternary), 3 to 8 (uniform), or 32 (float).
        activation_bits: 1 to 8, or 32 (float).
        rho: weight of the quantised values in an update (published: 1e-5); 0 for none.
        rho_rate: factor on ``rho`` after every ``rho_every`` steps (published: 1).
        rho_every: steps between two of these (391: an epoch of CIFAR-10 in batches of 128).
        rho_cap: what ``rho`` grows to at most.
        gradient: ``c`` above: ``"three-valued"``; ``"exact"``, the code ``k`` within;
            ``"pact"``, 0 within; ``"fixed"``: ``a`` does not learn.
        quantiser: ``"ceil"`` as above, or ``"round"`` to the nearest multiple.
        alpha: the first ``a``: a number; ``"gaussian"`` as above; ``"data"``, that times
            the root mean square of the positive values of the layer's first batch.
        alpha_rate: factor on the gradient of ``a``.
        statistic: of binary weights' scale, ``"mean"`` or ``"median"``.
        threshold: of ternary weights, ``"twn"`` or ``"exact"``.
        dense: layers left float.

    Example:
        >>> from elision.products import Product
        >>> print(Bcgd(1, 2).table[Product.FORWARD, "weight"])
        binary by layer
    """

    weight_bits: int = 1
    activation_bits: int = 4
    rho: float = 1e-5
    _: KW_ONLY
    rho_rate: float = 1.0
    rho_every: int = 391
    rho_cap: float = 0.01
    gradient: Gradient = "three-valued"
    quantiser: Quantiser = "ceil"
    alpha: float | Literal["gaussian", "data"] = "gaussian"
    alpha_rate: float = 0.01
    statistic: Literal["mean", "median"] = "mean"
    threshold: Literal["twn", "exact"] = "twn"
    dense: tuple[str, ...] = (":embedding",)

    key = "bcgd"
    bibtex = """
        @article{yin2019blended,
          title   = {Blended Coarse Gradient Descent for Full Quantization of Deep Neural
                     Networks},
          author  = {Yin, Penghang and Zhang, Shuai and Lyu, Jiancheng and Osher, Stanley and
                     Qi, Yingyong and Xin, Jack},
          journal = {Research in the Mathematical Sciences},
          volume  = {6},
          number  = {1},
          year    = {2019}
        }
    """

    def build(self) -> Table:
        one_of("Bcgd", "gradient", self.gradient, get_args(Gradient))
        return super().build()

    def weights(self) -> Project:
        return Project(
            self.weight_bits, statistic=self.statistic, threshold=self.threshold
        )

    def activations(self) -> LearnedStep | None:
        if self.activation_bits == FLOAT_BITS:
            return None
        return LearnedStep(
            self.activation_bits,
            self.quantiser,
            self.gradient,
            initial=self.alpha,
            rate=self.alpha_rate,
        )

    def rule(self) -> Blended:
        """The rule that blends the weights and by which steps learn."""
        return Blended(self.rho, self.rho_rate, self.rho_every, self.rho_cap)

    def schedule(self, steps: int) -> dict[str, int]:
        return {"rho_every": max(1, steps // _EPOCHS)}
