"""A small study in a process of its own that is killed, and started again, until done."""

import sys

from killed import killed_and_whole

from elision.study import StudyConfig, study
from elision.study.page import page  # noqa: F401 - imported before the forks

CONFIG = StudyConfig(
    workload="digits-cnn",
    epochs=2,
    recipes=("w-resprop:reuse=0.9", "swat:sparsity=0.8,refresh=3"),
    accelerators=("dense", "ant"),
)

#: The n-th files at which attempts are killed: while the claim is written, and later.
AT_CLAIM, AT_WRITES, AT_RANDOM = (1, 2), (3, 5, 4, 8), 5


if __name__ == "__main__":
    killed_and_whole(
        lambda folder: study(CONFIG, folder),
        *sys.argv[1:],
        before=AT_CLAIM,
        at_random=AT_RANDOM,
        after=AT_WRITES,
    )
