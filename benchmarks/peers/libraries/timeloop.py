"""Timeloop's Python front end: layers mapped on accelerators (Parashar et al., 2019)."""

from benchmarks.peers.base import Peer

PEER = Peer(
    "Timeloop's Python front end",
    "mappings on accelerators",
    uncompared="it needs Timeloop's own library, which no registry of Python packages has",
    source="git+https://github.com/Accelergy-Project/timeloop-python",
    distribution="pytimeloop",
)
