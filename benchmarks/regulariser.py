"""Is low precision a regulariser? Rounding beside noise of its size, over seeds.

    python benchmarks/regulariser.py [--out FILE] [--images N] [--seeds N] [--epochs N]

A small convolutional network on few of scikit-learn's digits (so that it can overfit); the
test images are all that the data set has.
"""

import argparse
import time
from pathlib import Path

import torch

from elision.common.files import without_nan, write_json
from elision.engines.bench import machine
from elision.precision.regulariser import arms, regularised
from elision.report.table import rows_as_text
from elision.workloads import load_dataset, make_model

FORMATS = ("int2", "int3", "int4")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=30)
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = load_dataset("digits").limited(train=given.images)
    recipes = {name: r for format in FORMATS for name, r in arms(format).items()}
    began = time.process_time()
    found = regularised(
        lambda: make_model("cnn", in_channels=1, classes=10, image_size=8, width=8),
        (data.normalise(data.train_images), data.train_labels),
        (data.normalise(data.test_images), data.test_labels),
        recipes,
        range(given.seeds),
        epochs=given.epochs,
        progress=lambda done, of: print(f"\r{done} of {of}", end="", flush=True),
    )
    seconds = time.process_time() - began
    if given.out:
        about = {
            "machine": machine(),
            "data": repr(data),
            "model": "cnn(width=8)",
            "epochs": given.epochs,
            "batch": 50,
            "seconds": round(seconds),
        }
        write_json(given.out, without_nan(about | found.to_dict()))
    print(f"\n{rows_as_text(found.rows())}\n{seconds:.0f} s of one core")


if __name__ == "__main__":
    main()
