"""Schedules: the listing of T2S as data, the array that it describes, and its code."""

from elision.accelerators.spatial.schedule.affine import Affine as Affine
from elision.accelerators.spatial.schedule.design import Design as Design
from elision.accelerators.spatial.schedule.layers import LayerSizes as LayerSizes
from elision.accelerators.spatial.schedule.layers import layer_sizes as layer_sizes
from elision.accelerators.spatial.schedule.listing import LISTINGS as LISTINGS
from elision.accelerators.spatial.schedule.listing import ListingError as ListingError
from elision.accelerators.spatial.schedule.listing import parse as parse
from elision.accelerators.spatial.schedule.listing import read as read
from elision.accelerators.spatial.schedule.listing import sizes_in as sizes_in
from elision.accelerators.spatial.schedule.recurrence import Recurrence as Recurrence
from elision.accelerators.spatial.schedule.schedule import Schedule as Schedule
from elision.accelerators.spatial.schedule.schedule import Step as Step
