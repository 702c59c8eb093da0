"""Ways to train in less memory on four networks: the saver beside torch's own.

    python benchmarks/ways.py --out ways.json
    python benchmarks/ways.py --networks lstm --rounds 15

Peak bytes and time of a step under each way of :func:`elision.memory.compare_ways`, the
ways in turns, on random weights and inputs. BERT (4 layers of width 256) and ViT-tiny
need the extras ``transformers`` and ``timm``; nothing is downloaded.
"""

import argparse
import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elision.common.files import write_json
from elision.common.timing import quoted_clock
from elision.memory import compare_ways
from elision.study.folder import environment
from elision.workloads.libraries.torchvision import import_torchvision
from elision.workloads.models import make_model

#: Model, its batch and the loss of its result.
_Case = tuple[nn.Module, Any, Callable[[Any], Tensor]]


def bert() -> _Case:
    """BERT of 4 layers, width 256, batch 16 of 128 tokens, masked language modelling."""
    with suppress(ModuleNotFoundError):
        import_torchvision()  # which transformers imports where it is there
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=1024,
        vocab_size=1000,
    )
    tokens = torch.randint(0, config.vocab_size, (16, 128))
    batch = {"input_ids": tokens, "labels": tokens}
    return BertForMaskedLM(config), batch, lambda result: result.loss


def vit_tiny() -> _Case:
    """ViT-tiny of timm: 12 blocks of width 192, patches of 16, batch 8 at 224x224."""
    model = make_model("timm:vit_tiny_patch16_224", classes=10, image_size=224)
    return _classifier(model, torch.randn(8, 3, 224, 224))


def resnet18() -> _Case:
    """ResNet-18 for 32x32 images, batch 64."""
    return _classifier(
        make_model("resnet18", classes=10, image_size=32), torch.randn(64, 3, 32, 32)
    )


class _Lstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(128, 256, num_layers=2, batch_first=True)
        self.head = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


def lstm() -> _Case:
    """Two layers of an LSTM of width 256, batch 32, 64 steps of 128 features."""
    return _classifier(_Lstm(), torch.randn(32, 64, 128))


def _classifier(model: nn.Module, inputs: Tensor) -> _Case:
    labels = torch.arange(len(inputs)) % 10
    return model, inputs, partial(_cross_entropy, labels)


def _cross_entropy(labels: Tensor, scores: Tensor) -> Tensor:
    return F.cross_entropy(scores, labels)


NETWORKS = {"bert": bert, "vit-tiny": vit_tiny, "lstm": lstm, "resnet18": resnet18}


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    found: dict[str, Any] = {"environment": environment(), "clock": quoted_clock()}
    found["rounds"], found["networks"] = given.rounds, {}
    for name in given.networks:
        torch.manual_seed(0)
        model, batch, loss = NETWORKS[name]()
        compared = compare_ways(model.train(), batch, loss, rounds=given.rounds)
        print(f"{name}\n{compared}\n", flush=True)
        found["networks"][name] = {
            "what": NETWORKS[name].__doc__,
            "parameters": sum(p.numel() for p in model.parameters()),
            "blocks": compared.blocks,
            "load": os.getloadavg()[0],
            "ways": compared.to_dicts(),
        }
        if given.out:
            write_json(given.out, found)


if __name__ == "__main__":
    main()
