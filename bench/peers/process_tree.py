"""CPU time and memory of a process with all its descendants, read from /proc.

Standard library only: this file is imported in the environment of every peer.
"""

import ctypes
import os
import signal
import time

PR_SET_CHILD_SUBREAPER = 36
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def adopt_orphans():
    """Make this process the parent of every descendant that detaches itself.

    A daemon that leaves its session (setsid, double fork) stays in our tree that way, so its CPU
    time and memory are counted and it can be ended.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


def _stat_fields(pid):
    """The fields of /proc/PID/stat from the third (state) on; None if the process is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def members(root_pid):
    """Pids of the tree, the root first."""
    children = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            fields = _stat_fields(name)
            if fields:
                children.setdefault(int(fields[1]), []).append(int(name))
    found, queue = [], [root_pid]
    while queue:
        pid = queue.pop()
        found.append(pid)
        queue.extend(children.get(pid, []))
    return found


def cpu_seconds(root_pid):
    """User and system seconds of the tree so far, with those of children already reaped."""
    ticks = 0
    for pid in members(root_pid):
        fields = _stat_fields(pid)
        if fields:
            ticks += sum(int(value) for value in fields[11:15])  # utime stime cutime cstime
    return ticks / TICKS_PER_SECOND


def pss_bytes(root_pid):
    """Proportional set size of the tree: a page shared by n processes counts 1/n for each."""
    total = 0
    for pid in members(root_pid):
        try:
            with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
                for line in file:
                    if line.startswith("Pss:"):
                        total += int(line.split()[1]) * 1024
                        break
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return total


def seconds_since_start(pid):
    """How long the process has lived (to 10 ms, as the kernel keeps it)."""
    started = int(_stat_fields(pid)[19]) / TICKS_PER_SECOND
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started


def _reap():
    """Take leave of every child that has ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0] != 0:
            pass
    except ChildProcessError:
        pass


def end_descendants(patience_s=5.0):
    """End every descendant of this process: SIGTERM, then SIGKILL when patience_s are over."""
    deadline = time.monotonic() + patience_s
    sent = signal.SIGTERM
    while True:
        _reap()
        alive = members(os.getpid())[1:]
        if not alive:
            return
        if time.monotonic() > deadline:
            sent = signal.SIGKILL
            deadline += patience_s
        for pid in alive:
            try:
                os.kill(pid, sent)
            except ProcessLookupError:
                pass
        time.sleep(0.05)
