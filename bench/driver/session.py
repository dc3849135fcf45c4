"""Runs of the peers, interleaved: every peer once a round, each round in another order."""

import json
import os
import signal
import statistics
import subprocess
import tempfile

from driver import machine
from driver.environment import say

RUN_SECONDS_EXTRA = 240  # for start, compilation and warm-up, on top of the timed part


class Failed(Exception):
    """A run gave no result; the text says why."""


def run_once(root, python, runner, spec, cpus, log):
    """One run in a process tree of its own, pinned to `cpus`. The runner's result, or Failed."""
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as scratch:
        spec = {**spec, "scratch": scratch}
        command = [str(python), str(root / "bench" / "peers" / runner), json.dumps(spec)]
        with open(log, "a", encoding="utf-8") as errors:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=root,
                text=True,
                start_new_session=True,
                env=_environment(len(cpus)),
                preexec_fn=lambda: os.sched_setaffinity(0, cpus),
            )
            try:
                output, _ = process.communicate(timeout=spec["seconds"] + RUN_SECONDS_EXTRA)
            except subprocess.TimeoutExpired:
                raise Failed(f"no result in time; see {log}") from None
            finally:
                _end(process)
    lines = output.strip().splitlines()
    if process.returncode != 0 or not lines:
        raise Failed(f"{_last_line(log)} (exit {process.returncode}; see {log})")
    return json.loads(lines[-1])


def _environment(core_count):
    """The caller's environment, with math libraries told how many cores there are."""
    return {**os.environ, "OMP_NUM_THREADS": str(core_count), "PYTHONUNBUFFERED": "1"}


def _end(process):
    """Whatever of the run's process group is still there."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def _last_line(log):
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "no message"


def _rotated(names, by):
    """Another order every round: rotated, and every second one reversed."""
    by %= len(names)
    order = names[by:] + names[:by]
    return order[::-1] if by % 2 else order


def run_all(root, runs, core_counts, rounds, logs):
    """`runs`: name -> (python, runner, make_spec(core_count)). All results, by cores and name."""
    results = {count: {name: [] for name in runs} for count in core_counts}
    failures = _rehearse(root, runs, core_counts[-1], logs)
    names = list(runs)
    for number in range(rounds):
        for count in core_counts:
            cpus = machine.pick_cores(count)
            for name in _rotated(names, number):
                if name in failures:
                    continue
                python, runner, make_spec = runs[name]
                label = f"round {number + 1}/{rounds}, {count} core{'s' * (count > 1)}, {name}:"
                log = logs / f"{name}.log"
                try:
                    result = run_once(root, python, runner, make_spec(count), cpus, log)
                except Failed as error:
                    failures[name] = str(error)
                    say(f"{label} failed: {error}")
                    continue
                result["round"] = number + 1
                results[count][name].append(result)
                say(
                    f"{label} {result['images_per_second']:.0f} images/s, "
                    f"{1000 * result['cpu_seconds_per_image']:.2f} ms CPU an image"
                )
    return results, failures


def _rehearse(root, runs, core_count, logs):
    """One short run of each, not counted. Afterwards all programs and libraries are in the page
    cache, indexes and compiled code are made, and who can't run is known: name -> reason."""
    failures = {}
    for name, (python, runner, make_spec) in runs.items():
        spec = {**make_spec(core_count), "seconds": 0.1, "warmup_batches": 1, "warmup_seconds": 0}
        cpus = machine.pick_cores(core_count)
        try:
            run_once(root, python, runner, spec, cpus, logs / f"{name}.log")
        except Failed as error:
            failures[name] = str(error)
            say(f"{name}: left out: {error}")
    return failures


def _spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


SUMMED_UP = (
    "images_per_second",
    "cpu_seconds_per_image",
    "first_batch_seconds",
    "first_batch_seconds_from_start",
    "pss_peak_bytes",
    "pss_growth_bytes",
)


def summarise(results):
    """Median, least and greatest of every figure, by cores and name."""
    summary = {}
    for count, by_name in results.items():
        summary[count] = {
            name: {key: _spread([run[key] for run in runs]) for key in SUMMED_UP}
            for name, runs in by_name.items()
            if runs
        }
        _add_ratios(by_name, summary[count])
    return summary


def _add_ratios(by_name, summary):
    """Penstock against each peer, round by round: noise of the machine cancels within one."""
    ours = {run["round"]: run["images_per_second"] for run in by_name.get("penstock", [])}
    for name, entry in summary.items():
        ratios = [
            ours[run["round"]] / run["images_per_second"]
            for run in by_name[name]
            if run["round"] in ours
        ]
        if ratios and name != "penstock":
            entry["penstock_ratio"] = _spread(ratios)
