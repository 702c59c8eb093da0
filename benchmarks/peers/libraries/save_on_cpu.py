"""PyTorch's own ``save_on_cpu``: saved tensors moved to the host's memory."""

from collections.abc import Iterator

import torch

from benchmarks.peers.base import DENSE, OURS, Agreement, Peer, Work, relative
from elision.memory import Rule, codecs
from elision.memory.measures.measure import SAVE_ON_CPU, loss_under, step_peak
from elision.workloads.models import make_model

NAME = "save_on_cpu"
SHOWN = {
    f"{OURS}, exact": "exact",
    f"{OURS}, bits(4)": "bits(4)",
    f"{OURS}, to files": Rule((codecs.Offload(),)),
    NAME: SAVE_ON_CPU,
    DENSE: None,
}


def works(small: bool) -> Iterator[Work]:
    """A forward and a backward pass, every saved tensor through hooks."""
    network, batch = "resnet8", 4 if small else 64
    torch.manual_seed(0)
    model = make_model(network, image_size=32).train()
    images, labels = torch.randn(batch, 3, 32, 32), torch.arange(batch) % 10

    def step(policy: object) -> torch.Tensor:
        model.zero_grad(set_to_none=True)
        loss_under(policy, model, images, labels).backward()
        return torch.cat(
            [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        )

    plain = step(None)
    agreement = [
        Agreement(f"gradients of {side} beside plain autograd's", error, 0)
        for side, policy in SHOWN.items()
        if side not in (DENSE, f"{OURS}, bits(4)")
        and (error := relative(step(policy), plain)) is not None
    ]
    lossy = relative(step("bits(4)"), plain)
    sides = {side: (lambda policy=p: step(policy)) for side, p in SHOWN.items()}
    sides[OURS] = sides.pop(f"{OURS}, exact")
    figures = {
        (OURS if side == f"{OURS}, exact" else side): {
            "peak MiB": step_peak(model, images, labels, policy) / 2**20
        }
        for side, policy in SHOWN.items()
    }
    yield Work(
        f"{network}, {batch} images of 32x32: forward and backward pass, saved tensors packed",
        sides,
        tuple(agreement),
        "on a CPU save_on_cpu moves nothing: a tensor that is on the host already is kept "
        f"as it is; with bits(4) gradients differ by up to {lossy:.1e} of the largest",
        figures=figures,
    )


PEER = Peer("save_on_cpu", "saved tensors on the host", works)
