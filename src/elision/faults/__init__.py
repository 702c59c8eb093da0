"""Faults: what one flipped bit does to a network, and how it is found."""

from elision.faults.campaign import Campaign as Campaign
from elision.faults.campaign import campaign as campaign
from elision.faults.defence.abft import CheckedProducts as CheckedProducts
from elision.faults.defence.abft import checked_products as checked_products
from elision.faults.defence.ranges import Ranges as Ranges
from elision.faults.defence.ranges import learned_ranges as learned_ranges
from elision.faults.defence.ranges import restricted as restricted
from elision.faults.defence.repeated import repeated as repeated
from elision.faults.defence.replay import Replay as Replay
from elision.faults.defence.replay import replay as replay
from elision.faults.fault import SITES as SITES
from elision.faults.fault import Fault as Fault
from elision.faults.flip import flip as flip
from elision.faults.outcome import OUTCOMES as OUTCOMES
from elision.faults.outcome import Normalised as Normalised
from elision.faults.stored import STORAGES as STORAGES
from elision.faults.stored import Stored as Stored
from elision.faults.stored import stored_as as stored_as
from elision.faults.training import Recovery as Recovery
from elision.faults.training import Striking as Striking
from elision.faults.training import recovery as recovery
from elision.faults.training import striking as striking
