"""CPU time of processes, from /proc; Linux only."""

from __future__ import annotations

import os

_USER, _CHILDREN_SYSTEM = 11, 15  # places in /proc/PID/stat, counted after the name


def cpu_seconds(pid: int | str, with_children: bool = False) -> float:
    """User and system time of a process; `with_children`: and of those that it has waited for.

    0 when the process is gone.
    """
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0.0
    end = _CHILDREN_SYSTEM if with_children else _CHILDREN_SYSTEM - 2
    return sum(map(int, fields[_USER:end])) / os.sysconf("SC_CLK_TCK")


def tree_cpu_seconds() -> float:
    """Of this process, of its children, and of those that have ended."""
    total = cpu_seconds("self", with_children=True)
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/children") as file:
                total += sum(cpu_seconds(pid, with_children=True) for pid in file.read().split())
        except OSError:
            continue  # a thread that has just ended
    return total
