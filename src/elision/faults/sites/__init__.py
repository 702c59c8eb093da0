"""Sites that exist while a network infers: one file per kind."""

from torch import Tensor, nn

from elision.faults.fault import Fault
from elision.faults.sites.activations import Activations
from elision.faults.sites.base import Site as Site
from elision.faults.sites.weights import StoredWeights
from elision.faults.sites.weights import weights_of as weights_of

__all__ = [
    "INFERENCE_SITES",
    "Site",
    "check_inference_site",
    "site_of",
    "weights_of",
]

#: The sites of :data:`elision.faults.fault.SITES` that a network has while it infers.
INFERENCE_SITES = ("weight", "scale", "index", "bitmap", "activation")


def check_inference_site(fault: Fault) -> None:
    """Raise ValueError if the fault's site exists only while a network is trained."""
    if fault.site not in INFERENCE_SITES:
        raise ValueError(
            f"Fault(site={fault.site!r}): exists only while a network is trained; a "
            f"campaign has {', '.join(INFERENCE_SITES)}"
        )


def site_of(model: nn.Module, fault: Fault, example: Tensor) -> Site:
    """The site of a fault in a model.

    Args:
        model: any module.
        fault: of a site that exists while a network infers.
        example: the argument of the model.

    Raises:
        ValueError: the site exists only while a network is trained, or not in this model.

    Example:
        >>> import torch
        >>> model = nn.Linear(2, 2)
        >>> site_of(model, Fault(site="optimizer"), torch.ones(1, 2))
        Traceback (most recent call last):
        ValueError: Fault(site='optimizer'): exists only while a network is trained; a \
campaign has weight, scale, index, bitmap, activation
    """
    check_inference_site(fault)
    if fault.site == "activation":
        return Activations(model, fault, example)
    return StoredWeights(model, fault)
