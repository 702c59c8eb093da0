"""meProp: only the largest output gradients go backward."""

from dataclasses import KW_ONLY, dataclass

from elision.layers.recipe import Table
from elision.methods.base import Method
from elision.operands import TopKChannels, TopKPerExample
from elision.products import Product

__all__ = ["MeProp"]


@dataclass(frozen=True)
class MeProp(Method):
    """meProp: both gradient products read the largest values of ``G`` alone.

    ::

        Y = X · W        dX = top_k(G) · Wᵀ        dW = top_k(G) · X

    ``G: (N, K)``, or ``(N, K, P, Q)`` for a convolution. Per example, ``top_k`` keeps
    exactly ``k`` values of each example; unified, it keeps the same ``k`` columns
    (channels) for the whole batch, those of largest ``Σ|G|``, so the products become
    smaller dense ones. The bias gradient is the sum of the full ``G``. The last layer
    stays dense.

    Reference: Sun, Ren, Ma and Wang, meProp: Sparsified Back Propagation for Accelerated
    Deep Learning with Reduced Overfitting, ICML 2017.

    Deviations:
        - The paper is about linear layers. For a convolution an example's values are
          its channels and plane together, and the unified columns are its channels.
        - The published unified form chooses ``k`` as a count; a share is accepted too.

    Attributes:
        keep: a count, or a share in (0, 1] rounded up, of what is chosen from.
        unified: one choice of channels for the whole batch instead of one per example.
        dense: layers left dense.

    Example:
        >>> from elision.products import Product
        >>> print(MeProp(8, unified=True).table[Product.INPUT_GRAD, "grad_output"])
        top 8 of the channels
    """

    keep: float | int = 0.1
    unified: bool = False
    _: KW_ONLY
    dense: tuple[str, ...] = (":last", ":embedding")

    key = "meprop"
    bibtex = """
        @inproceedings{sun2017meprop,
          title     = {{meProp}: Sparsified Back Propagation for Accelerated Deep
                       Learning with Reduced Overfitting},
          author    = {Sun, Xu and Ren, Xuancheng and Ma, Shuming and Wang, Houfeng},
          booktitle = {International Conference on Machine Learning},
          year      = {2017}
        }
    """

    def build(self) -> Table:
        largest = TopKChannels(self.keep) if self.unified else TopKPerExample(self.keep)
        return Table(
            {
                Product.INPUT_GRAD: {"grad_output": largest},
                Product.WEIGHT_GRAD: {"grad_output": largest},
            }
        )
