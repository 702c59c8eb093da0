"""Small models and training loops that the tests of moving masks share."""

import torch
import torch.nn.functional as F
from torch import nn

import elision
from elision import methods

#: Every method with moving masks, quick enough to move several times in a few steps.
MOVING = {
    "static": methods.Static(0.8),
    "set": methods.SET(0.8, every=3),
    "set-signed": methods.SET(0.8, every=3, drop="signed"),
    "rigl": methods.RigL(0.8, every=3, until=18),
    "rigl-added": methods.RigL(0.8, every=3, until=18, replaces_step=False),
    "rigl-gathered": methods.RigL(0.8, every=3, until=18, growth="gathered"),
    "rigl-uniform": methods.RigL(0.8, "uniform", every=3, until=18),
    "snfs": methods.SNFS(0.8, every=3, until=18),
    "snfs-gradient": methods.SNFS(0.8, every=3, until=18, variant="gradient"),
    "dsr": methods.DSR(0.8, every=3, threshold=0.05),
    "gradual": methods.Gradual(0.8, end=12, every=3),
    "top-kast": methods.TopKAST(0.8, backward_sparsity=0.6, every=3),
    "srigl": methods.SRigL(0.8, every=3, until=18),
    "dst": methods.DST(alpha=0.05),
    "swat-m": methods.SwatM(0.8),
    "n-m": methods.NM(),
}

#: Those whose number of active weights is the same at every step.
FIXED_BUDGET = [
    *("static", "set", "set-signed", "rigl", "rigl-added", "rigl-gathered"),
    *("rigl-uniform", "snfs", "snfs-gradient", "dsr", "top-kast"),
]


def small_net(seed=0):
    """Two convolutions, one of stride 2, batch normalisation, two linear layers."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 16),
        nn.ReLU(),
        nn.Linear(16, 4),
    )


def batch(step):
    """Eight images and their classes, a function of the step alone."""
    g = torch.Generator().manual_seed(1000 + step)
    return torch.randn(8, 4, 6, 6, generator=g), torch.randint(0, 4, (8,), generator=g)


def gradient(model, optimizer, step):
    """Forward and backward of one step."""
    images, labels = batch(step)
    optimizer.zero_grad()
    loss = F.cross_entropy(model(images), labels)
    loss.backward()
    return loss


def train(model, optimizer, steps, after=None):
    """Some steps of training; ``after`` is called behind each."""
    for step in steps:
        gradient(model, optimizer, step)
        optimizer.step()
        if after is not None:
            after(step)


def sgd(model, **how):
    defaults = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3}
    return torch.optim.SGD(model.parameters(), **(defaults | how))


OPTIMISERS = {
    "sgd": sgd,
    "plain-sgd": lambda model: sgd(model, momentum=0.0),
    "adam": lambda model: torch.optim.Adam(model.parameters(), 1e-2, weight_decay=1e-3),
    "adamw": lambda model: torch.optim.AdamW(model.parameters(), 1e-2, amsgrad=True),
    "rmsprop": lambda model: torch.optim.RMSprop(
        model.parameters(), 1e-3, momentum=0.9, centered=True
    ),
}


def elided(method, seed=0, optimizer=sgd):
    """A small model under a method, its optimiser, and what moves its masks.

    On torch's engine: one chosen by time need not repeat to the last bit.
    """
    model = elision.elide(small_net(seed), method, engine="torch")
    made = optimizer(model)
    return model, made, elision.topology.attach(model, made)
