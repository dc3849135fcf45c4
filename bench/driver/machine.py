"""What the measurements were made on, and which of its cores are used."""

import os
import pathlib
import platform
import subprocess
import time


def pick_cores(count):
    """`count` cores, each of its own where the processor runs several threads on one.

    None when the process may not use that many.
    """
    allowed = sorted(os.sched_getaffinity(0))
    seen, first, rest = set(), [], []
    for cpu in allowed:
        path = pathlib.Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        siblings = path.read_text().strip() if path.exists() else str(cpu)
        (rest if siblings in seen else first).append(cpu)
        seen.add(siblings)
    return (first + rest)[:count] if count <= len(allowed) else None


def _cpu_model():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _system():
    for line in pathlib.Path("/etc/os-release").read_text().splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip('"')
    return platform.system()


def describe(root):
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    commit = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30, 1),
        "system": _system(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "commit": commit or None,
    }


def short_name(facts):
    """A name for a folder of results: processor, cores."""
    words = "".join(c if c.isalnum() else " " for c in facts["cpu"].lower()).split()
    words = [word for word in words if word not in ("r", "tm", "cpu", "processor", "core")]
    return "-".join(words[:3] + [f"{facts['cores']}core"])


def busy_share(seconds=1.0):
    """The share of the machine's time that others use right now, 0 to 1."""

    def read():
        values = [int(v) for v in pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[1:]]
        return sum(values[:8]), values[3] + values[4]

    total, idle = read()
    time.sleep(seconds)
    total_after, idle_after = read()
    return 1 - (idle_after - idle) / max(1, total_after - total)
