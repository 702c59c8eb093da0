"""Transforms of one operand: one file each."""

from elision.formats.accumulate import TORCH as TORCH
from elision.formats.accumulate import Accumulate as Accumulate
from elision.operands.base import KEEP as KEEP
from elision.operands.base import Keep as Keep
from elision.operands.base import Transform as Transform
from elision.operands.base import density as density
from elision.operands.cast import Cast as Cast
from elision.operands.chain import Chain as Chain
from elision.operands.chain import links_of as links_of
from elision.operands.learned_step import LearnedStep as LearnedStep
from elision.operands.learned_step import gaussian_step as gaussian_step
from elision.operands.learned_threshold import LearnedThreshold as LearnedThreshold
from elision.operands.mask import Mask as Mask
from elision.operands.noise import Noise as Noise
from elision.operands.noisy_levels import NoisyLevels as NoisyLevels
from elision.operands.quantised_weight import Project as Project
from elision.operands.quantised_weight import QuantisedWeight as QuantisedWeight
from elision.operands.quantised_weight import TanhLevels as TanhLevels
from elision.operands.reuse import Reuse as Reuse
from elision.operands.ternary import Ternary as Ternary
from elision.operands.top_k import TopK as TopK
from elision.operands.top_k_channels import TopKChannels as TopKChannels
from elision.operands.top_k_per_example import TopKPerExample as TopKPerExample
from elision.operands.top_k_share import TopKShare as TopKShare
from elision.operands.top_k_slices import TopKSlices as TopKSlices
from elision.operands.top_n_of_m import TopNofM as TopNofM

#: Transform classes by the names that a recipe's file uses; add your own here.
TRANSFORMS: dict[str, type[Transform]] = {
    kind.__name__: kind
    for kind in (
        Cast,
        Chain,
        Keep,
        LearnedStep,
        LearnedThreshold,
        Mask,
        NoisyLevels,
        Project,
        Noise,
        Reuse,
        TanhLevels,
        Ternary,
        TopK,
        TopKChannels,
        TopKPerExample,
        TopKShare,
        TopKSlices,
        TopNofM,
    )
}
