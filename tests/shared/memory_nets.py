"""Small networks that save every kind of tensor, for the tests of the saver."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint


class Block(nn.Module):
    """A basic residual block, with functional ReLUs."""

    def __init__(self, inside, outside, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.shortcut = (
            nn.Identity()
            if stride == 1 and inside == outside
            else nn.Sequential(
                nn.Conv2d(inside, outside, 1, stride, bias=False),
                nn.BatchNorm2d(outside),
            )
        )

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += self.shortcut(x)
        return F.relu(y)


def resnet(width=8, blocks=2):
    """Stem and two stages of residual blocks, for 16x16 images."""
    layers = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)]
    layers += [nn.ReLU(), *(Block(width, width, 1) for _ in range(blocks))]
    layers += [Block(width, 2 * width, 2), Block(2 * width, 2 * width, 1)]
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 5)
    )


def vgg(width=8, norm=True, inplace=True):
    """Convolutions, batch norm, ReLU, max pooling, dropout, for 16x16 images."""
    layers, inside = [], 3
    for outside in (width, width, 0, 2 * width, 2 * width, 0):
        if not outside:
            layers.append(nn.MaxPool2d(2))
            continue
        layers.append(nn.Conv2d(inside, outside, 3, padding=1))
        if norm:
            layers.append(nn.BatchNorm2d(outside))
        layers.append(nn.ReLU(inplace=inplace))
        inside = outside
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Dropout(0.5), nn.Linear(2 * width * 16, 5)
    )


def oddities():
    """Other activations, pools with padding and dilation, group norm."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, dilation=2, padding=2),
        nn.LeakyReLU(0.1, inplace=True),
        nn.MaxPool2d(3, 2, padding=1),
        nn.Conv2d(8, 8, 3, groups=4, padding=1),
        nn.GroupNorm(2, 8),
        nn.ReLU6(),
        nn.MaxPool2d(2, 1, dilation=2),
        nn.AvgPool2d(2),
        nn.Conv2d(8, 8, 1),
        nn.Threshold(0.1, 0.0),
        nn.Hardtanh(-0.5, 0.7),
        nn.SiLU(),
        nn.Dropout(0.3),
        nn.Flatten(),
        nn.Linear(72, 5),
        nn.Tanh(),
    )


class Transformer(nn.Module):
    """Embedding and two encoder layers; token ids in, 5 classes out."""

    def __init__(self, dropout=0.1, activation="gelu"):
        super().__init__()
        self.embed = nn.Embedding(50, 32)
        layer = nn.TransformerEncoderLayer(
            32, 4, 64, dropout, activation, batch_first=True
        )
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 5)

    def forward(self, tokens):
        return self.head(self.layers(self.embed(tokens)).mean(1))


class Checkpointed(nn.Module):
    """A VGG whose first half is checkpointed."""

    def __init__(self, reentrant=False):
        super().__init__()
        net = vgg()
        self.stem, self.first, self.rest = net[:3], net[3:9], net[9:]
        self.reentrant = reentrant

    def forward(self, x):
        x = checkpoint(self.first, self.stem(x), use_reentrant=self.reentrant)
        return self.rest(x)


def images(batch=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, 3, 16, 16, generator=generator)
    return x, torch.randint(0, 5, (batch,), generator=generator)


def tokens(batch=4, length=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 50, (batch, length), generator=generator)
    return x, torch.randint(0, 5, (batch,), generator=generator)


def gradients(model, batch, context=None, backwards=1, seed=1):
    """Gradients of a step whose forward runs in ``context``; buffers are put back."""
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    torch.manual_seed(seed)
    model.zero_grad()
    x, y = batch
    if context is None:
        loss = F.cross_entropy(model(x), y)
    else:
        with context:
            loss = F.cross_entropy(model(x), y)
    for left in reversed(range(backwards)):
        loss.backward(retain_graph=left > 0)
    for name, b in model.named_buffers():
        b.copy_(buffers[name])
    return {n: p.grad.clone() for n, p in model.named_parameters()}
