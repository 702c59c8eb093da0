"""Faults: what one flipped bit does to a network, and how it is found."""

from elision.faults.flip import flip as flip
from elision.faults.stored import STORAGES as STORAGES
from elision.faults.stored import Stored as Stored
from elision.faults.stored import stored_as as stored_as
