"""Published figures of faults in compressed networks.

The networks and the measure of LASCAS 2020 are not in its abstract, which alone was
reachable; evidence to the contrary stands beside it.
"""

from elision.study.papers.base import Figure

__all__ = ["CONTRARY", "LASCAS", "MRFI_LENET", "PUBLISHED"]

#: Times as resilient as the dense float32 network, "up to": pruned, quantised, both.
LASCAS = {"pruned": 9.0, "quantised": 27.4, "pruned and quantised": 108.7}

_LASCAS = "abstract, LASCAS 2020, doi 10.1109/LASCAS45839.2020.9069026"

#: LeNet under random bit flips: rate a bit -> accuracy; without faults 0.638. The rates
#: are the four decades that the README names, in order.
MRFI_LENET = {1e-6: 0.637, 1e-5: 0.624, 1e-4: 0.539, 1e-3: 0.247}

PUBLISHED = (
    Figure("pruning, against dense, up to", "9x as resilient", _LASCAS),
    Figure("integer quantisation, against float32, up to", "27.4x", _LASCAS),
    Figure("both, up to", "108.7x", _LASCAS),
    Figure(
        "LeNet at bit error rates 1e-6, 1e-5, 1e-4, 1e-3",
        "0.637, 0.624, 0.539, 0.247 (0.638 without faults)",
        "README of MRFI",
    ),
)

CONTRARY = (
    Figure(
        "pruned, clustered and quantised networks, random single flips",
        "up to 13.56 % of accuracy lost",
        "Chalmers report, 2021, research.chalmers.se/publication/522995",
    ),
    Figure(
        "activation-sparse quantised networks under faults",
        "up to 11.13 % worse",
        "arXiv 2301.00675",
    ),
)
