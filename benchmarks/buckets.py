"""Useful tokens a second of an LSTM language model under three schemes of batches.

    python benchmarks/buckets.py --out records/2026-11-29-recurrent/buckets.json

The sequences are synthetic: log-normal lengths (skewed: the mean is 25 of at most 100
tokens) of random tokens, so the model learns nothing worth knowing and only its time
counts. Batches are padded, and the LSTM runs over the padding as torch does without
packing. The ranks are simulated in one process: their batches of a step run one after the
other, and the step takes as long as the slowest of them, plus the update of the weights.
The seconds are processor time of one thread, of each batch the best of a few rounds over
the epoch, schemes in turns. What a reduction over a network takes is not in them.

The ratio to expect if time went by padded tokens alone is the quotient of the paid shares
of ``efficiency()``; the times show how far that holds.
"""

import argparse
import os
import platform
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elision.common.files import write_json
from elision.common.timing import elapsed
from elision.workloads import GlobalBuckets, LocalBuckets, RandomBatches

#: Median of 21 tokens, a common choice for sentences; the tail is cut.
LOG_MEAN, LOG_DEVIATION, LONGEST = 3.05, 0.6, 100
VOCABULARY, WIDTH, BATCH = 500, 64, 32
PADDING = 0
SCHEMES = {
    "random": RandomBatches,
    "local": LocalBuckets,
    "local, shared order": partial(LocalBuckets, shared_order=True),
    "global": GlobalBuckets,
}


class LanguageModel(nn.Module):
    """Scores of the next token, from a one-layer LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH, padding_idx=PADDING)
        self.lstm = nn.LSTM(WIDTH, WIDTH, batch_first=True)
        self.scores = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        """Of shape (batch, tokens, vocabulary)."""
        return self.scores(self.lstm(self.embedding(tokens))[0])


def sequences(count: int) -> list[Tensor]:
    """Random tokens, none of them padding."""
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(count, generator=generator)
    lengths = (LOG_MEAN + LOG_DEVIATION * normal).exp().round().clamp(1, LONGEST)
    return [
        torch.randint(1, VOCABULARY, (int(n),), generator=generator) for n in lengths
    ]


def epoch_seconds(data: list[Tensor], plan: list[list[Tensor]]) -> Tensor:
    """Train one epoch: seconds of each batch and update, of shape (steps, ranks + 1)."""
    torch.manual_seed(0)
    model = LanguageModel()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)

    def rank(batch: Tensor, ranks: int) -> None:
        chosen = [data[i] for i in batch.tolist()]
        tokens = nn.utils.rnn.pad_sequence(chosen, batch_first=True)
        # The first token is predicted from padding, so that every token counts.
        scores = model(F.pad(tokens, (1, -1), value=PADDING))
        loss = F.cross_entropy(
            scores.flatten(0, 1), tokens.flatten(), ignore_index=PADDING
        )
        (loss / ranks).backward()

    def update() -> None:
        optimizer.step()
        optimizer.zero_grad()

    return torch.tensor(
        [
            [
                *(elapsed(partial(rank, batch, len(step))).thread for batch in step),
                elapsed(update).thread,
            ]
            for step in plan
        ]
    )


def measure(count: int, ranks: int, rounds: int) -> list[dict[str, Any]]:
    data = sequences(count)
    lengths = [len(tokens) for tokens in data]
    samplers = {
        name: scheme(lengths, BATCH, ranks, drop_last=True)
        for name, scheme in SCHEMES.items()
    }
    epochs: dict[str, list[Tensor]] = {name: [] for name in SCHEMES}
    epoch_seconds(data, samplers["global"].plan()[:4])  # warms up
    names = list(SCHEMES)
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            epochs[name].append(epoch_seconds(data, samplers[name].plan()))
    rows = []
    for name, sampler in samplers.items():
        efficiency = sampler.efficiency()
        best = torch.stack(epochs[name]).amin(0)
        batches, updates = best[:, :-1], best[:, -1]
        waited = batches.amax(1)
        seconds = float((waited + updates).sum())
        rows.append(
            {
                "ranks": ranks,
                "scheme": name,
                "steps": len(sampler),
                "tokens": efficiency.tokens,
                "useful": efficiency.useful,
                "idle": efficiency.idle,
                "paid": efficiency.paid,
                "seconds": seconds,
                "measured_idle": 1 - float(batches.mean(1).sum() / waited.sum()),
                "tokens_per_second": efficiency.tokens / seconds,
            }
        )
    for row in rows:
        row["ratio"] = row["tokens_per_second"] / rows[0]["tokens_per_second"]
        row["ratio_by_tokens"] = row["paid"] / rows[0]["paid"]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--sequences", type=int, default=8192)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    machine = {
        "processor": platform.processor() or platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    print(machine)
    rows: list[dict[str, Any]] = []
    print(
        "ranks scheme               useful  idle   paid measured idle  ratio (by tokens)"
    )
    for ranks in arguments.ranks:
        for row in measure(arguments.sequences, ranks, arguments.rounds):
            rows.append(row)
            print(
                f"{row['ranks']:5} {row['scheme']:20} {row['useful']:6.3f} "
                f"{row['idle']:6.3f} {row['paid']:6.3f} {row['measured_idle']:13.3f} "
                f"{row['ratio']:6.2f} ({row['ratio_by_tokens']:.2f})",
                flush=True,
            )
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        settings = {
            "sequences": arguments.sequences,
            "batch": BATCH,
            "rounds": arguments.rounds,
            "width": WIDTH,
            "vocabulary": VOCABULARY,
            "lengths": f"log-normal({LOG_MEAN}, {LOG_DEVIATION}), 1 to {LONGEST}",
        }
        write_json(
            arguments.out,
            {"machine": machine, "settings": settings, "runs": rows},
        )


if __name__ == "__main__":
    main()
