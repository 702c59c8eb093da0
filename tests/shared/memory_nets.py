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
        loss = nn.CrossEntropyLoss()(model(x), y)
    else:
        with context:
            loss = nn.CrossEntropyLoss()(model(x), y)
    for left in reversed(range(backwards)):
        loss.backward(retain_graph=left > 0)
    for name, b in model.named_buffers():
        b.copy_(buffers[name])
    return {n: p.grad.clone() for n, p in model.named_parameters()}


class RMSNorm(nn.Module):
    """Root-mean-square norm, written out as in many language models."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
        return self.weight * x


def rotate(x, cos, sin):
    """Rotary position embedding of heads, ``(..., T, D)``."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


class LlamaBlock(nn.Module):
    """RMS norms, causal attention with rotary positions, SwiGLU."""

    def __init__(self, width=64, heads=4, inner=172) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = RMSNorm(width), RMSNorm(width)
        self.q, self.k, self.v, self.out = (
            nn.Linear(width, width, bias=False) for _ in range(4)
        )
        self.gate, self.up = (nn.Linear(width, inner, bias=False) for _ in range(2))
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x, cos, sin):
        batch, length, width = x.shape
        y = self.norm1(x)
        q, k, v = (
            layer(y).view(batch, length, self.heads, -1).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, width))
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Llama(nn.Module):
    """A language model of such blocks; token ids in, logits of the next ones out."""

    def __init__(self, vocabulary=200, width=64, blocks=2) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(LlamaBlock(width) for _ in range(blocks))
        self.norm, self.head = RMSNorm(width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens):
        x = self.embed(tokens)
        rates = 10 ** torch.linspace(0, -4, x.shape[-1] // 8)  # of four heads
        angles = torch.arange(tokens.shape[1])[:, None] * rates
        angles = torch.cat((angles, angles), -1)
        for block in self.blocks:
            x = block(x, angles.cos(), angles.sin())
        return self.head(self.norm(x)).mT


class GPT2(nn.Module):
    """Layer norms, causal attention, the tanh form of GELU written out, dropout."""

    class Block(nn.Module):
        def __init__(self, width, heads, dropout) -> None:
            super().__init__()
            self.heads, self.dropout = heads, nn.Dropout(dropout)
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = (
                nn.Linear(width, 4 * width),
                nn.Linear(4 * width, width),
            )

        def forward(self, x):
            batch, length, width = x.shape
            q, k, v = (
                part.view(batch, length, self.heads, -1).transpose(1, 2)
                for part in self.qkv(self.norm1(x)).split(width, 2)
            )
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            y = self.out(y.transpose(1, 2).reshape(batch, length, width))
            x = x + self.dropout(y)
            y = self.up(self.norm2(x))
            y = 0.5 * y * (1 + torch.tanh(0.8 * (y + 0.044715 * torch.pow(y, 3))))
            return x + self.dropout(self.down(y))

    def __init__(self, vocabulary=200, width=64, blocks=2, dropout=0.1) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.randn(64, width) * 0.02)
        self.blocks = nn.Sequential(
            *(self.Block(width, 4, dropout) for _ in range(blocks)), nn.LayerNorm(width)
        )

    def forward(self, tokens):
        x = self.tokens(tokens) + self.positions[: tokens.shape[1]]
        return F.linear(self.blocks(x), self.tokens.weight).mT


class MobileNetV3(nn.Module):
    """Inverted residuals with hard-swish and squeeze-and-excitation, 5 classes."""

    class Block(nn.Module):
        def __init__(self, inside, inner, outside, stride) -> None:
            super().__init__()
            self.residual = stride == 1 and inside == outside

            def layer(a, b, kernel, stride=1, groups=1):
                padding = kernel // 2
                conv = nn.Conv2d(
                    a, b, kernel, stride, padding, groups=groups, bias=False
                )
                return conv, nn.BatchNorm2d(b)

            self.before = nn.Sequential(
                *layer(inside, inner, 1),
                nn.Hardswish(inplace=True),
                *layer(inner, inner, 5, stride, inner),
                nn.Hardswish(inplace=True),
            )
            self.squeeze = nn.Sequential(
                nn.AdaptiveAvgPool2d(1),
                nn.Conv2d(inner, inner // 4, 1),
                nn.ReLU(inplace=True),
                nn.Conv2d(inner // 4, inner, 1),
                nn.Hardsigmoid(),
            )
            self.after = nn.Sequential(*layer(inner, outside, 1))

        def forward(self, x):
            y = self.before(x)
            y = self.after(y * self.squeeze(y))
            return x + y if self.residual else y

    def __init__(self) -> None:
        super().__init__()
        shape = (16, 32, 16, 1), (16, 48, 24, 2), (24, 64, 24, 1)
        self.layers = nn.Sequential(
            *(
                nn.Conv2d(3, 16, 3, 1, 1, bias=False),
                nn.BatchNorm2d(16),
                nn.Hardswish(),
            ),
            *(self.Block(*sizes) for sizes in shape),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 64)),
            *(nn.Hardswish(), nn.Dropout(0.2), nn.Linear(64, 5)),
        )

    def forward(self, x):
        return self.layers(x)


def text(batch=8, length=32, vocabulary=200, seed=0):
    """Token ids, and those that follow each of them."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, vocabulary, (batch, length + 1), generator=generator)
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
