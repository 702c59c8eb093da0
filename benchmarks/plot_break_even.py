"""Plot the speed of sparse over dense against sparsity, from a record of ``products``.

python benchmarks/plot_break_even.py RECORD.json FIGURE.svg
"""

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("record", type=Path)
    parser.add_argument("figure", type=Path)
    args = parser.parse_args()
    record = json.loads(args.record.read_text())
    products = dict.fromkeys(row["product"] for row in record["products"])
    figure, panels = plt.subplots(1, len(products), figsize=(11, 3.6), sharey=True)
    for panel, product in zip(panels, products, strict=True):
        rows = [r for r in record["products"] if r["product"] == product]
        for layer in dict.fromkeys(r["layer"] for r in rows):
            points = [(r["sparsity"], r["ratio"]) for r in rows if r["layer"] == layer]
            panel.plot(*zip(*points, strict=True), marker=".", label=layer)
        panel.axhline(1, color="black", linewidth=0.8)
        panel.set(title=product, xlabel="sparsity", yscale="log")
        panel.set_yticks([0.5, 1, 2, 4, 8], labels=["0.5", "1", "2", "4", "8"])
        panel.minorticks_off()
    panels[0].set_ylabel("dense fp32 time / sparse time")
    panels[-1].legend(fontsize=6)
    figure.tight_layout()
    args.figure.parent.mkdir(parents=True, exist_ok=True)
    temporary = args.figure.with_suffix(f".part{args.figure.suffix}")
    figure.savefig(temporary, metadata={"Date": None})
    temporary.replace(args.figure)


if __name__ == "__main__":
    main()
