"""Tables and the plot of a session's results."""

import json
import subprocess

from driver import catalogue


def _cell(spread, scale=1.0, digits=0):
    low, mid, high = (spread[key] * scale for key in ("min", "median", "max"))
    if spread["min"] == spread["max"]:
        return f"{mid:.{digits}f}"
    return f"{mid:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


COLUMNS = (
    "images/s",
    "Penstock is",
    "CPU ms/image",
    "peak PSS MiB",
    "grown by MiB",
    "first batch s",
    "... from process start",
)


def _row(name, entry):
    ratio = entry.get("penstock_ratio")
    return (
        catalogue.PEERS[name].title,
        _cell(entry["images_per_second"]),
        _cell(ratio, digits=2) + "x" if ratio else "-",
        _cell(entry["cpu_seconds_per_image"], 1000, 2),
        _cell(entry["pss_peak_bytes"], 2**-20),
        _cell(entry["pss_growth_bytes"], 2**-20),
        _cell(entry["first_batch_seconds"], digits=2),
        _cell(entry["first_batch_seconds_from_start"], digits=2),
    )


def _rows(by_name):
    order = sorted(by_name, key=lambda name: -by_name[name]["images_per_second"]["median"])
    return [_row(name, by_name[name]) for name in order]


def _aligned(header, rows):
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, *rows]
    ]


def as_text(summary):
    lines = []
    for count, by_name in summary.items():
        header = (f"{count} core{'s' if count > 1 else ''}", *COLUMNS)
        lines += [*_aligned(header, _rows(by_name)), ""]
    return "\n".join(lines)


def _setting(document):
    spec, facts = document["settings"], document["machine"]
    return (
        f"{spec['transform']} transform, {spec['dtype']}, batches of {spec['batch_size']}; "
        f"{document['data']['kind']}, {document['data']['bytes_mean'] / 1000:.0f} KB on average, "
        f"warm page cache. {facts['cpu']}, {facts['cores']} cores, {facts['memory_gib']} GiB, "
        f"{facts['system']}, Linux {facts['kernel']}. {spec['rounds']} interleaved rounds of at "
        f"least {spec['seconds']} s; median (least-greatest)."
    )


def as_markdown(document):
    lines = [f"# bench/compare, {document['date']}", "", _setting(document), ""]
    for count, by_name in document["summary"].items():
        lines += [f"## {count} core{'s' if int(count) > 1 else ''}", ""]
        lines.append("| peer | " + " | ".join(COLUMNS) + " |")
        lines.append("|" + "---|" * (len(COLUMNS) + 1))
        lines += ["| " + " | ".join(row) + " |" for row in _rows(by_name)]
        lines.append("")
    lines += ["Versions: " + _versions(document) + ".", ""]
    for name, reason in document["left_out"].items():
        lines.append(f"Left out: {name}: {' '.join(reason.split())}")
    if document["machine_busy_share"] > 0.1:
        lines.append(
            f"Others used {100 * document['machine_busy_share']:.0f}% of the machine "
            "when the session began: only ratios are worth reading."
        )
    return "\n".join(lines).rstrip() + "\n"


def _versions(document):
    found = {}
    for by_name in document["runs"].values():
        for runs in by_name.values():
            for run in runs:
                found.update(run["versions"])
    return ", ".join(f"{name} {version}" for name, version in sorted(found.items()))


def save(document, folder, root, python_tools):
    """results.json, results.md and, when matplotlib is there, results.png."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "results.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    (folder / "results.md").write_text(as_markdown(document))
    if python_tools:
        script = root / "bench" / "driver" / "plot.py"
        subprocess.run(
            [str(python_tools), str(script), str(path), str(folder / "results.png")], check=False
        )
