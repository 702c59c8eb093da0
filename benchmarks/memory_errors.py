"""What saved-activation policies do to gradients, layer by layer.

    python benchmarks/memory_errors.py rounding --out rounding.json
    python benchmarks/memory_errors.py sensitivities --out sensitivities.json
    python benchmarks/memory_errors.py bounds --out batch-norm-bounds.json

``rounding``: kinds of rounding and sizes of groups, on a ResNet-18 and on the network of
three convolutions that the goals for gradient errors come from. ``sensitivities``: an
average of bits shared out by formulas and by what was measured on the model. ``bounds``:
random batch norms under AC-GC's budgets, their errors over what is declared. Weights are
random. Nothing here is timed.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from elision.common.files import write_json
from elision.common.restoring import restored
from elision.memory import AverageBits, Role, Rule, measure_sensitivities, saver
from elision.memory.codecs import GroupQuant, SparseGroupQuant
from elision.memory.measures.measure import loss_under
from elision.memory.policies.guaranteed import Guaranteed
from elision.study.folder import environment
from elision.study.papers.memory.paper import photographs
from elision.workloads.models import make_model

ROUNDINGS = {
    f"{bits} bits, {what}": [Rule(codecs)]
    for bits in (4, 8)
    for what, codecs in (
        ("stochastic, groups of 256", (GroupQuant(bits, 256, "stochastic"),)),
        ("stochastic, groups of 64", (GroupQuant(bits, 64, "stochastic"),)),
        ("dithered, groups of 256", (GroupQuant(bits, 256),)),
        ("dithered, groups of 64", (GroupQuant(bits),)),
        (
            "dithered, groups of 64, zeros apart",
            (SparseGroupQuant(bits), GroupQuant(bits)),
        ),
    )
}


def three_convolutions():
    """Convolutions, batch norms and ReLUs, and a linear layer."""
    layers, inside = [], 3
    for outside in (32, 32, 32):
        layers += [nn.Conv2d(inside, outside, 3, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(outside), nn.ReLU()]
        inside = outside
    layers += [nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(32 * 16, 10)]
    return nn.Sequential(*layers)


def networks():
    """Name -> model, images, labels."""
    torch.manual_seed(0)
    labels = torch.arange(16) % 10
    for name in ("resnet18", "vgg16", "transformer"):
        yield name, make_model(name, image_size=32).train(), photographs(16, 32), labels
    images = photographs(8, 56)
    yield "three convolutions", three_convolutions(), images, labels[:8]


def weight_gradients(model, images, labels, policy) -> tuple[dict[str, Any], Any]:
    """Of parameters of two or more axes, and the step's ledger if there is a policy."""
    torch.manual_seed(1)
    model.zero_grad()
    with restored(model):
        if policy is None:
            loss, ledger = loss_under(None, model, images, labels), None
        else:
            with saver(model, policy, seed=0) as saved:
                loss = F.cross_entropy(model(images), labels)
            ledger = saved.ledger
        loss.backward()
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.dim() > 1}
    return found, ledger


def errors(exact, other):
    return {n: float((other[n] - g).norm() / g.norm()) for n, g in exact.items()}


def row(model, images, labels, exact, policy):
    """Errors of a step under a policy, and what the tensors it rounds take."""
    got, ledger = weight_gradients(model, images, labels, policy)
    off = errors(exact, got)
    return {
        "median": statistics.median(off.values()),
        "largest": max(off.values()),
        "ratio": ledger.ratio,
        "ratio_of_rounded_tensors": ledger.covered_ratio("*group*"),
        "errors": off,
    }


def rounding():
    for name, model, images, labels in networks():
        exact, _ = weight_gradients(model, images, labels, None)
        whole = ("int8", "bits(4)", "jpeg", "derived(6)")
        policies = ROUNDINGS | {policy: policy for policy in whole}
        yield (
            name,
            {k: row(model, images, labels, exact, p) for k, p in policies.items()},
        )


def sensitivities():
    for name, model, images, labels in networks():
        exact, _ = weight_gradients(model, images, labels, None)
        batch = images, labels

        def loss(pair, model=model):
            return F.cross_entropy(model(pair[0]), pair[1])

        found = measure_sensitivities(model, loss, batch)
        rows = {}
        for average in (2.5, 3.0, 4.0):
            for measured in (None, found):
                policy = AverageBits(average, measured=measured)
                weight_gradients(model, images, labels, policy)  # takes the ranges
                rows[policy.name] = row(model, images, labels, exact, policy)
        rows["bits(4), all alike"] = row(model, images, labels, exact, "bits(4)")
        yield name, rows | {"measured_tensors": len(found)}


def bounds(cases=60):
    """Largest error over what is declared, on random batch norms."""
    for expected in (False, True):
        for reach in ("input", "all"):
            for error in (0.05, 0.2):
                over, packed = {"input": 0.0, "scale": 0.0}, 0
                for seed in range(cases):
                    policy = Guaranteed(
                        error, expected=expected, margin=1, batch_norm=reach
                    )
                    found = batch_norm_errors(seed, policy)
                    packed += found.pop("packed")
                    over = {k: max(over[k], found[k] / error) for k in over}
                kind = "expected" if expected else "guaranteed"
                yield (
                    f"{kind}({error}, batch_norm={reach})",
                    {"cases": cases, "packed": packed, "largest_over_declared": over},
                )


def batch_norm_errors(seed, policy):
    """Relative errors of a batch norm's own gradients, the one arriving being exact."""
    torch.manual_seed(seed)
    batch, channels, height, width = (int(torch.randint(2, 17, ())) for _ in range(4))
    norm = nn.BatchNorm2d(channels)
    nn.init.normal_(norm.weight)
    x = torch.randn(batch, channels, height, width) * (torch.rand(channels, 1, 1) + 0.5)
    x = (x + torch.randn(channels, 1, 1)).requires_grad_()
    arriving = torch.randn_like(x) ** (3 if seed % 2 else 1)

    def gradients(chosen):
        with saver(norm, chosen, seed=seed, pack_batch=True) as saved:
            out = norm(x)
        return torch.autograd.grad(out, (x, norm.weight), arriving), saved.ledger

    gradients(policy)  # takes the norms; the next step has the very same
    exact, _ = gradients("none")
    got, ledger = gradients(policy)
    off = [float((a - b).norm() / b.norm()) for a, b in zip(got, exact, strict=True)]
    codec = ledger.rows_of([Role.NORM_INPUT])[0].codec
    return {"input": off[0], "scale": off[1], "packed": codec != "kept"}


def main():
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("what", choices=("rounding", "sensitivities", "bounds"))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    made = {"rounding": rounding, "sensitivities": sensitivities, "bounds": bounds}
    found = {"environment": environment()}
    for name, rows in made[given.what]():
        found[name] = rows
        print(name)
        for key, value in rows.items():
            if isinstance(value, dict) and "median" in value:
                print(
                    f"  {key}: error median {100 * value['median']:.2f} % largest "
                    f"{100 * value['largest']:.2f} %, rounded tensors "
                    f"{value['ratio_of_rounded_tensors']:.2f}x"
                )
            else:
                print(f"  {key}: {value}")
    if given.out:
        write_json(given.out, found)


if __name__ == "__main__":
    main()
