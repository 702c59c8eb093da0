"""A small search in a process of its own that is killed, and started again, until done."""

import sys

from killed import killed_and_whole

from elision.study.search.run import TrainedSearch
from elision.study.search.space import Choice, Knob, Space
from elision.study.search.template import Template
from elision.workloads import Workload

SEARCH = TrainedSearch(
    template=Template(
        workload=Workload(
            name="small",
            dataset="digits",
            model="cnn",
            epochs=4,
            train_images=240,
            batch_size=32,
            model_options={"width": 4},
        ),
    ),
    space=Space(
        (
            Choice("recipe", ("dense", "swat:sparsity=0.8", "rigl:sparsity=0.5")),
            Knob("lr", 0.003, 0.3, log=True),
        )
    ),
    method="asha",
    count=6,
    eta=2,
    slots=2,
)

#: The n-th files at which attempts are killed, and the attempts killed at random moments.
AT_WRITES, AT_RANDOM = (1, 2, 4, 3, 7), 4


if __name__ == "__main__":
    killed_and_whole(SEARCH.run, *sys.argv[1:], before=AT_WRITES, at_random=AT_RANDOM)
