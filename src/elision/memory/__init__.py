"""What is kept between the forward and the backward pass, in fewer bytes.

``saver`` keeps it under a policy, on an unmodified model; ``explain`` shows beforehand
what it would do; ``measure_peak`` says what the memory really comes to.
"""

from elision.memory.allocation import AverageBits
from elision.memory.base import Codec, Guarantee, Packed
from elision.memory.explain import explain, largest_batch
from elision.memory.ledger import Ledger
from elision.memory.noise import NoiseShare, codec_noise
from elision.memory.peak import Peak, measure_peak, watch_peak
from elision.memory.policy import Policy, Rule
from elision.memory.presets import policy_for
from elision.memory.roles import Role, Slot
from elision.memory.saver import saver
from elision.memory.sensitivity import measure_sensitivities

__all__ = [
    "AverageBits",
    "Codec",
    "Guarantee",
    "Ledger",
    "NoiseShare",
    "Packed",
    "Peak",
    "Policy",
    "Role",
    "Rule",
    "Slot",
    "codec_noise",
    "explain",
    "largest_batch",
    "measure_peak",
    "measure_sensitivities",
    "policy_for",
    "saver",
    "watch_peak",
]
