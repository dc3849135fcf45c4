"""Runs of bench/s3's readers, interleaved, with the origin's own count of their requests."""

import json
import os
import signal
import subprocess
import tempfile
import time

from driver import catalogue, s3_data
from driver.environment import say

RUN_SECONDS_MAX = 300
SMALL_CONNECTIONS = 64
FIGURES = ("rate", "cpu_per_unit", "requests", "first_seconds")


class Failed(Exception):
    """A run gave no result; the text says why."""


def prepare_forms(repository, root, found):
    """Let readers that read a form of their own write it. Those that can't are taken out."""
    for name in list(found):
        reader = catalogue.READERS[name]
        if not reader.prepared:
            continue
        spec = {
            "endpoint": "", "ca_file": "", "bucket": s3_data.BUCKET, "root": str(root),
            "prepared": reader.prepared, "objects": s3_data.objects(root, "shards"),
        }  # fmt: skip
        script = repository / "bench" / "readers" / reader.runner
        say(f"  data: {name} writes its own form")
        done = subprocess.run(
            [str(found[name]), str(script), json.dumps(spec), "--prepare"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            say(f"{name}: left out: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
            del found[name]


class Bench:
    """One origin and the readers that read from it."""

    def __init__(self, repository, cache, root, origin, part_bytes):
        self.repository, self.root, self.origin = repository, root, origin
        self.part_bytes = part_bytes
        self.ca_file = ""
        self.logs = cache / "logs"
        self.logs.mkdir(exist_ok=True)

    def rounds(self, found, kind, count, failures):
        """Results of all rounds; a reader that fails is left out of the rest."""
        objects = s3_data.objects(self.root, "shards" if kind == "shards" else "small")
        for number in range(count):
            names = list(found)[::-1] if number % 2 else list(found)
            for name in names:
                reader = catalogue.READERS[name]
                if name in failures or (kind == "small" and not reader.reads_small):
                    continue
                try:
                    result = self._run(found[name], reader, kind, objects)
                except Failed as error:
                    failures[name] = f"{kind}: {error}"
                    say(f"{name}: failed: {error}")
                    continue
                say(
                    f"round {number + 1}/{count}, {kind}, {name}: {result['rate']:.0f} "
                    f"{'MB/s' if kind == 'shards' else 'objects/s'}, "
                    f"{result['requests']} requests"
                )
                yield {"reader": name, "round": number + 1, **result}

    def _run(self, python, reader, kind, objects):
        connections = SMALL_CONNECTIONS if kind == "small" else reader.connections
        before = len(self.origin.requests())
        with tempfile.TemporaryDirectory(prefix="penstock-s3-", dir="/dev/shm") as scratch:
            spec = {
                "endpoint": self.origin.endpoint, "bucket": s3_data.BUCKET, "kind": kind,
                "objects": objects, "part_bytes": self.part_bytes, "connections": connections,
                "scratch": scratch, "ca_file": self.ca_file, "prepared": reader.prepared,
                "root": str(self.root),
            }  # fmt: skip
            result = self._process(python, reader, spec, scratch)
        time.sleep(0.1)  # nginx logs a request after its last byte
        units = len(objects) if kind == "small" else result["bytes"] / 1e6
        result["requests"] = len(self.origin.requests()) - before
        result["rate"] = units / result["seconds"]
        result["cpu_per_unit"] = result["cpu_seconds"] / (result["bytes"] / 1e9)
        return result

    def _process(self, python, reader, spec, scratch):
        log = self.logs / f"s3-{reader.name}.log"
        path = os.path.join(scratch, "spec.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(spec, file)
        script = self.repository / "bench" / "readers" / reader.runner
        with open(log, "a", encoding="utf-8") as errors:
            process = subprocess.Popen(
                [str(python), str(script), "@" + path],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
                text=True, start_new_session=True, cwd=scratch,
            )  # fmt: skip
            try:
                output, _ = process.communicate(timeout=RUN_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                raise Failed(f"no end within {RUN_SECONDS_MAX} s; see {log}") from None
            finally:
                _end(process)
        lines = output.strip().splitlines()
        if process.returncode != 0 or not lines:
            told = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            reason = told[-1][:300] if told else "no message"
            raise Failed(f"{reason} (exit {process.returncode}; see {log})")
        return json.loads(lines[-1])


def _end(process):
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


# ---- the table ----------------------------------------------------------------------------------

_TITLES = {
    "shards": ("MB/s", "client CPU s/GB", "requests", "first sample s"),
    "small": ("objects/s", "client CPU s/GB", "requests", "first object s"),
}


def _cell(values, digits):
    if values is None:
        return "-"
    mid, low, high = values
    text = f"{mid:.{digits}f}"
    return text if low == high else f"{text} ({low:.{digits}f}-{high:.{digits}f})"


def as_markdown(document):
    facts = document["machine"]
    lines = [
        f"# bench/s3, {document['date']}", "",
        f"nginx origin, link: {document['link']}; parts of "
        f"{document['settings']['part_bytes'] >> 20} MiB; {document['settings']['rounds']} "
        f"interleaved rounds, median (least-greatest). {facts['cpu']}, {facts['cores']} cores "
        "(the origin runs on the same), "
        f"{facts['memory_gib']} GiB, {facts['system']}, Linux {facts['kernel']}.", "",
    ]  # fmt: skip
    tables = {}
    for entry in document["summary"]:
        tables.setdefault((entry["origin"], entry["kind"]), []).append(entry)
    for (origin, kind), entries in tables.items():
        lines += [f"## {kind}, {origin} origin", ""]
        lines.append("| reader | " + " | ".join(_TITLES[kind]) + " |")
        lines.append("|" + "---|" * 5)
        for entry in sorted(entries, key=lambda entry: -entry["rate"][0]):
            cells = [_cell(entry.get(k), d) for k, d in zip(FIGURES, (0, 2, 0, 2), strict=True)]
            title = catalogue.READERS[entry["reader"]].title
            lines.append("| " + " | ".join([title, *cells]) + " |")
        lines.append("")
    for name, reason in document["left_out"].items():
        lines.append(f"Left out: {name}: {' '.join(reason.split())}")
    return "\n".join(lines).rstrip() + "\n"
