"""Saved tensors: kept between forward and backward pass in fewer bytes.

``saver`` packs them under a policy, on an unmodified model; ``explain`` shows the effect
of a policy beforehand; ``compare_ways`` measures policies beside torch's own ways on the
user's model; ``measure_peak`` measures the memory of a run.
"""

from elision.memory.measures.explain import explain, largest_batch
from elision.memory.measures.noise import NoiseShare, codec_noise
from elision.memory.measures.sensitivity import measure_sensitivities
from elision.memory.measures.ways import Comparison, Way, compare_ways
from elision.memory.peak import Peak, measure_peak, watch_peak
from elision.memory.policies.allocation import AverageBits
from elision.memory.policies.base import Policy, Rule
from elision.memory.policies.presets import policy_for
from elision.memory.saved.checksum import DamagedError
from elision.memory.saved.codec import Codec, Guarantee, Packed
from elision.memory.saved.ledger import Ledger
from elision.memory.saved.roles import Role, Slot
from elision.memory.saver import saver

__all__ = [
    "AverageBits",
    "Codec",
    "Comparison",
    "DamagedError",
    "Guarantee",
    "Ledger",
    "NoiseShare",
    "Packed",
    "Peak",
    "Policy",
    "Role",
    "Rule",
    "Slot",
    "Way",
    "codec_noise",
    "compare_ways",
    "explain",
    "largest_batch",
    "measure_peak",
    "measure_sensitivities",
    "policy_for",
    "saver",
    "watch_peak",
]
