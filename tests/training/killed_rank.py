"""``elision`` on one of several processes, the last of which is killed once.

    torchrun --nproc_per_node=2 --max-restarts=1 killed_rank.py NOTES STEP train ...

It is killed (SIGKILL) in the backward pass of step STEP (from 1; 0: never), when gradients
of the last layers are on their way and that of the first weight has just been computed.
NOTES is a folder in which each process leaves the number of steps that it took.
"""

import atexit
import os
import signal
import sys
from pathlib import Path

from torch import nn

from elision.cli.main import main

DDP = nn.parallel.DistributedDataParallel


def watch(notes: Path, killed_at: int) -> None:
    """Count the steps of this process, and kill it in one of them."""
    rank, attempt = os.environ["RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"]
    last = int(rank) == int(os.environ["WORLD_SIZE"]) - 1
    steps, forward = 0, DDP.forward

    def note() -> None:
        (notes / f"attempt{attempt}-rank{rank}").write_text(str(steps))

    def die(grad: object) -> None:
        note()
        os.kill(os.getpid(), signal.SIGKILL)

    def counted(self: DDP, *args: object, **named: object) -> object:
        nonlocal steps
        steps += self.training
        if last and attempt == "0" and steps == killed_at:
            next(self.module.parameters()).register_hook(die)
        return forward(self, *args, **named)

    DDP.forward = counted  # pyright: ignore[reportAttributeAccessIssue]
    atexit.register(note)


if __name__ == "__main__":
    watch(Path(sys.argv[1]), int(sys.argv[2]))
    sys.exit(main(sys.argv[3:]))
