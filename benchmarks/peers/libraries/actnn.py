"""ActNN: activations kept in two bits (Chen et al., ICML 2021)."""

from benchmarks.peers.base import Peer

PEER = Peer(
    "ActNN",
    "activations in two bits",
    uncompared="its layers run on CUDA alone, and this is a comparison on CPUs",
    source="git+https://github.com/ucbrise/actnn#subdirectory=actnn",
    builds=("setuptools", "wheel", "ninja"),
    distribution="actnn",
)
