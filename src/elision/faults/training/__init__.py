"""Faults while a network is trained, and what becomes of the loss."""

from elision.faults.training.recovery import Recovery as Recovery
from elision.faults.training.recovery import recovery as recovery
from elision.faults.training.striking import Striking as Striking
from elision.faults.training.striking import striking as striking
