"""Draw results.json: plot.py RESULTS.json TARGET.png. Needs matplotlib."""

import json
import pathlib
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import Patch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from driver import catalogue

OURS, OTHERS = ("#c8102e", "#e8909c"), ("#30506e", "#9db4c8")


def main():
    source, target = sys.argv[1:]
    document = json.loads(pathlib.Path(source).read_text())
    summary = document["summary"]
    counts = list(summary)
    last = summary[counts[-1]]
    rates = {name: entry["images_per_second"]["median"] for name, entry in last.items()}
    names = sorted(rates, key=rates.get)
    height = 0.8 / len(counts)
    figure, axes = plt.subplots(figsize=(9, 0.55 * len(names) + 1.6))
    for place, count in enumerate(reversed(counts)):
        _bars(axes, summary[count], names, place * height, height, len(counts) - 1 - place)
    axes.set_yticks(
        [i + 0.4 - height / 2 for i in range(len(names))],
        [catalogue.PEERS[name].title for name in names],
    )
    axes.set_xlabel("images per second (median; whisker: least and greatest)")
    spec = document["settings"]
    axes.set_title(
        f"{spec['transform']} transform to 224 px, {spec['dtype']}, batches of "
        f"{spec['batch_size']}, {document['date']}",
        fontsize=10,
    )
    shades = [Patch(color=OTHERS[i % 2], label=_cores(count)) for i, count in enumerate(counts)]
    axes.legend(handles=shades, loc="lower right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(target, dpi=130)


def _cores(count):
    return f"{count} core" if int(count) == 1 else f"{count} cores"


def _bars(axes, by_name, names, shift, height, shade):
    for row, name in enumerate(names):
        if name not in by_name:
            continue
        rate = by_name[name]["images_per_second"]
        mid = rate["median"]
        color = (OURS if name == "penstock" else OTHERS)[shade % 2]
        whisker = [[mid - rate["min"]], [rate["max"] - mid]]
        axes.barh(
            row + shift,
            mid,
            height * 0.92,
            color=color,
            xerr=whisker,
            error_kw={"elinewidth": 1, "capsize": 2},
        )
        axes.text(rate["max"], row + shift, f"  {mid:.0f}", va="center", fontsize=8)


if __name__ == "__main__":
    main()
