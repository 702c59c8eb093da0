"""Kinds of configuration files of the command line, one for each command that is quick."""

from collections.abc import Callable
from pathlib import Path

from campaigns.poison.forms import TEXT
from campaigns.poison.kind import Kind, command

__all__ = ["KINDS"]

#: Small work for each command, as a table of its own.
_TABLES = {
    "simulate": """
model = ["cnn"]
input = 8
batch = 2
sparsity = [0.5]
accelerator = ["dense", "systolic:rows=4,columns=4"]
seed = 3
workers = 1
""",
    "train": """
recipe = "swat:sparsity=0.5"
workload = "digits-mlp"
epochs = 1
batch = 512
lr = 0.1
momentum = 0.9
seed = 1
record = 1
samples = 1
model = "mlp(width=8)"
""",
    "federate": """
recipe = "dense"
workload = "digits-mlp"
clients = "iid:clients=2"
rule = "fedavg:every=1"
rounds = 1
participation = 1.0
dropout = 0.0
seed = 1
""",
    "faults": """
workload = "digits-mlp"
epochs = 1
trials = 4
examples = 8
site = "weight"
format = ["fp32"]
length = 1
seed = 1
""",
    "pipeline": """
model = "cnn"
input = 8
accelerator = "dense"
processors = 3
microbatches = 4
schedule = ["1f1b", "zb1p"]
bandwidth = 1000.0
""",
    "size": """
model = ["cnn"]
input = 8
batch = 2
""",
    "map": """
model = ["cnn"]
input = 8
batch = 2
array = "4x4"
keep = "weight"
""",
    "shapes": """
model = ["cnn"]
input = 8
batch = 2
""",
    "timeline": """
model = "cnn"
input = 8
sparsity = "0.5"
seed = 2
""",
}

#: Commands that write, each in the folder of a trial.
_OUT = {name: "{}/run" for name in ("train", "federate", "faults", "pipeline")}
_OUT["timeline"] = "{}/run.json"


def _table(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        text = f"[{name}]{_TABLES[name]}"
        (folder / "flags.toml").write_text(text, encoding="utf-8")

    return make


def _out(name: str) -> tuple[str, ...]:
    return ("--out", _OUT[name]) if name in _OUT else ()


KINDS = tuple(
    Kind(
        f"configuration of {name}",
        _table(name),
        ("flags.toml",),
        command(name, *_out(name), "--config", "{}/flags.toml"),
        TEXT,
        share=0.2 if name in _OUT else 0.5,
    )
    for name in _TABLES
)
