"""Plot the speed of sparse over dense against sparsity, from a record of ``products``.

python benchmarks/plot_break_even.py RECORD.json FIGURE.svg
"""

import argparse
import json
from pathlib import Path

from elision.report.style import INK, drawing, plain_numbers, save, series_mark


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("record", type=Path)
    parser.add_argument("figure", type=Path)
    args = parser.parse_args()
    record = json.loads(args.record.read_text())
    products = dict.fromkeys(row["product"] for row in record["products"])
    layers = list(dict.fromkeys(row["layer"] for row in record["products"]))
    with drawing(11.0, 3.6) as figure:
        panels = figure.subplots(1, len(products), sharey=True, squeeze=False)[0]
        for panel, product in zip(panels, products, strict=True):
            rows = [r for r in record["products"] if r["product"] == product]
            for index, layer in enumerate(layers):
                points = [
                    (100 * r["sparsity"], r["ratio"])
                    for r in rows
                    if r["layer"] == layer
                ]
                mark = series_mark(index)
                panel.plot(
                    *zip(*points, strict=True),
                    color=mark.colour,
                    marker=mark.marker,
                    ms=4,
                    lw=1.2,
                    label=layer,
                )
            panel.axhline(1, color=INK, linewidth=0.8)
            panel.set(title=product, xlabel="zeros, %", yscale="log")
            plain_numbers(panel.yaxis)
            panel.set_yticks([0.5, 1, 2, 4, 8])
            panel.minorticks_off()
        panels[0].set_ylabel("dense float32 time / sparse time")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", fontsize=9)
        args.figure.parent.mkdir(parents=True, exist_ok=True)
        save(figure, args.figure)


if __name__ == "__main__":
    main()
