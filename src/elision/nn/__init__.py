"""Layers for training that compute what torch's do, by kernels of our own: LSTM and GRU.

Drop-in: subclasses of torch's modules with the same arguments and state-dict keys.
"""

from elision.nn.modules import GRU as GRU
from elision.nn.modules import LSTM as LSTM

__all__ = ["GRU", "LSTM"]
