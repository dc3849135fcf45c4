#!/usr/bin/env python3
"""Builds, runs every test and counts: the second half of tools/test, run by .venv's Python.

A check is one program run with a log of its own in build/logs; what it printed says how many
tests passed, failed and were skipped. A program that breaks off, or runs past its time, is a
failure. The last line is "N passed, N failed, N skipped".
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
LOGS = BUILD / "logs"
CPUS = len(os.sched_getaffinity(0))

FUZZ_SEED = 1
FUZZ_SECONDS = 6  # per target, without --long
FUZZ_RUNS_LONG = 1_000_000
FUZZ_INPUT_BYTES_MAX = 1 << 16
UNIT_SECONDS_MAX = 300
BUILD_SECONDS_MAX = 1200
PYTEST_SECONDS_MAX = 1200  # one test file; a single test has 300 s unless it says otherwise
LONG_SECONDS_MAX = 6 * 3600


def compiler_is_gcc_13() -> bool:
    """With stack use after return detected, its stack variables of 64 bytes are misaligned."""
    said = subprocess.run(["cc", "-dumpversion"], capture_output=True, text=True, check=False)
    return said.stdout.split(".")[0].strip() == "13"


SANITIZER_OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=1:detect_stack_use_after_return="
    + ("0" if compiler_is_gcc_13() else "1"),
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
}


@dataclass
class Outcome:
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    notes: list[str] = field(default_factory=list)  # what failed or was skipped, and why

    def add(self, other: "Outcome") -> None:
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.notes += other.notes

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


@dataclass(frozen=True)
class Check:
    name: str
    command: list[str]
    count: Callable[[int, Path], Outcome]  # (exit status, log) -> outcome
    seconds_max: int = UNIT_SECONDS_MAX
    environment: dict[str, str] = field(default_factory=dict)
    watched: bool = False  # a sanitizer's finding in a daemon behind the program fails it too

    @property
    def log(self) -> Path:
        return LOGS / f"{self.name}.log"

    @property
    def report(self) -> Path:
        return LOGS / f"{self.name}.xml"

    def findings(self) -> list[Path]:
        return sorted(LOGS.glob(f"{self.name}.sanitizer.*"))

    def full_environment(self) -> dict[str, str]:
        options = dict(SANITIZER_OPTIONS)
        if self.watched:
            place = f":log_path={LOGS / self.name}.sanitizer"
            options = {name: text + place for name, text in options.items()}
        environment = os.environ | options | self.environment
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        return environment


class Processes:
    """The programs that run now, each with its descendants in a process group of its own."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.running: set[subprocess.Popen] = set()
        self.stopping = False

    def run(self, check: Check) -> int | None:
        """The exit status, or None when the time ran out."""
        with open(check.log, "wb") as log:
            with self.lock:
                if self.stopping:
                    raise KeyboardInterrupt
                process = subprocess.Popen(
                    check.command,
                    cwd=ROOT,
                    env=check.full_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                self.running.add(process)
            try:
                return process.wait(check.seconds_max)
            except subprocess.TimeoutExpired:
                return None
            finally:
                stop_group(process)
                with self.lock:
                    self.running.discard(process)

    def stop_all(self) -> None:
        with self.lock:
            self.stopping = True
            for process in self.running:
                stop_group(process)


def stop_group(process: subprocess.Popen) -> None:
    """Ends what is left of the group: asks, waits up to 5 s, insists."""
    for number, patience_s in ((signal.SIGTERM, 5), (signal.SIGKILL, 5)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            continue


def wait_for_daemons(patience_s: float = 30) -> None:
    """Until no daemon of our builds runs: a sanitizer speaks of leaks when its program ends."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        links = (Path(entry) / "exe" for entry in Path("/proc").glob("[0-9]*"))
        if not any(is_our_daemon(link) for link in links):
            return
        time.sleep(0.2)


def is_our_daemon(link: Path) -> bool:
    try:
        path = link.readlink()
    except OSError:  # gone, or another user's
        return False
    return path.name == "penstockd" and path.is_relative_to(BUILD)


def tail(log: Path, count: int = 25) -> str:
    text = log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:]
    return "\n".join(f"    {line}" for line in text)


def count_exit(status: int, log: Path) -> Outcome:
    """One check that is its exit status."""
    return Outcome(passed=1) if status == 0 else Outcome(failed=1, notes=[tail(log)])


def count_tidy(status: int, log: Path) -> Outcome:
    text = log.read_text()
    failed = len(re.findall(r"^FAIL ", text, re.MULTILINE))
    outcome = Outcome(passed=len(re.findall(r"^ok ", text, re.MULTILINE)), failed=failed)
    if status != 0:
        outcome.failed = max(failed, 1)
        outcome.notes = [f"    {line}" for line in text.splitlines() if not line.startswith("ok ")]
    return outcome


def count_junit(status: int, log: Path) -> Outcome:
    """The XML that cmocka and pytest write beside the log. None, or a bad end: one failure."""
    outcome = Outcome()
    report = log.with_suffix(".xml")
    try:
        cases = list(ElementTree.parse(report).iter("testcase"))
    except (OSError, ElementTree.ParseError):
        return Outcome(failed=1, notes=[f"    ended with status {status}:", tail(log)])
    for case in cases:
        name = "::".join(filter(None, (case.get("classname"), case.get("name"))))
        wrong = [part for part in case if part.tag in ("failure", "error")]
        skipped = case.find("skipped")
        if wrong:
            outcome.failed += 1
            text = wrong[0].text or wrong[0].get("message") or ""
            outcome.notes += [f"    {name}"] + [f"      {line}" for line in text.splitlines()[-12:]]
        elif skipped is not None:
            outcome.skipped += 1
            outcome.notes.append(f"    skipped {name}: {skipped.get('message') or ''}"[:200])
        else:
            outcome.passed += 1
    if not cases or (status != 0 and outcome.failed == 0):
        outcome.failed += 1
        outcome.notes += [f"    ended with status {status}:", tail(log)]
    return outcome


def names_in_cmake(function: str) -> list[str]:
    """The first arguments of all function(NAME ...) calls in tests/*.cmake."""
    pattern = re.compile(rf"^\s*{function}\((\w+)", re.MULTILINE)
    files = sorted((ROOT / "tests").glob("*.cmake"))
    return [name for path in files for name in pattern.findall(path.read_text())]


def without_layout_randomisation() -> list[str]:
    """A prefix for TSan, which cannot start under some kernels' address layout."""
    command = ["setarch", os.uname().machine, "-R"]
    ran = subprocess.run([*command, "true"], capture_output=True, check=False)
    return command if ran.returncode == 0 else []


def build(preset: str, targets: list[str]) -> Check:
    configure = f"cmake --preset {preset} -DPENSTOCK_TESTS=ON"
    command = f"{configure} && cmake --build --preset {preset} -j {CPUS}"
    if targets:
        command += " --target " + " ".join(targets)
    return Check(f"build-{preset}", ["sh", "-c", command], count_exit, BUILD_SECONDS_MAX)


def unit_tests(kind: str, preset: str) -> list[Check]:
    prefix = without_layout_randomisation() if kind == "tsan" else []
    return [
        Check(
            f"{kind}-{name}",
            [*prefix, f"build/{preset}/tests/test_{name}"],
            count_junit,
            environment={
                "CMOCKA_MESSAGE_OUTPUT": "xml",
                "CMOCKA_XML_FILE": str(LOGS / f"{kind}-{name}.xml"),
                "PENSTOCK_BUILD": str(BUILD / preset),
            },
        )
        for name in names_in_cmake("unit_test")
    ]


def fuzz_tests(long: bool) -> list[Check]:
    """Each target from its own built-in seeds, which the plain program of the asan build writes."""
    checks = []
    for name in names_in_cmake("fuzz_target"):
        corpus = BUILD / "fuzz-corpus" / name
        findings = BUILD / "fuzz-findings" / name
        end = f"-runs={FUZZ_RUNS_LONG}" if long else f"-max_total_time={FUZZ_SECONDS}"
        command = (
            f"rm -rf {corpus} && mkdir -p {corpus} {findings} && "
            f"build/asan/tests/fuzz_{name} -runs=0 -dump={corpus} && "
            f"exec build/fuzz/tests/fuzz_{name} -seed={FUZZ_SEED} {end} "
            f"-max_len={FUZZ_INPUT_BYTES_MAX} -timeout=20 -rss_limit_mb=4096 -print_final_stats=1 "
            f"-artifact_prefix={findings}/ {corpus}"
        )
        seconds_max = LONG_SECONDS_MAX if long else UNIT_SECONDS_MAX
        checks.append(Check(f"fuzz-{name}", ["sh", "-c", command], count_exit, seconds_max))
    return checks


def python_tests(preset: str, long: bool) -> list[Check]:
    """One check per test file of tests/python and tests/integration; daemon of this preset."""
    checks = []
    prefix = "" if preset == "release" else f"{preset}-"
    for path in sorted((ROOT / "tests").glob("*/test_*.py")):
        name = f"{prefix}{path.parent.name}-{path.stem.removeprefix('test_')}"
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-ra", "-q"]
        command += [
            f"--junitxml={LOGS / name}.xml",
            f"--timeout={LONG_SECONDS_MAX if long else 300}",
        ]
        command += ["-m", "long or not long" if long else "not long", str(path.relative_to(ROOT))]
        environment = {"PENSTOCK_BUILD": str(BUILD / "release")}  # libraries that Python can load
        watched = preset != "release"
        if watched:
            environment["PENSTOCK_DAEMON"] = str(BUILD / preset / "loader" / "penstockd")
        if preset == "tsan":
            command = without_layout_randomisation() + command
        seconds_max = LONG_SECONDS_MAX if long else PYTEST_SECONDS_MAX
        checks.append(Check(name, command, count_junit, seconds_max, environment, watched))
    return checks


def install_check() -> Check:
    command = ["bash", "-ec", ". tools/lib.sh; install_penstock"]
    return Check("install", command, count_exit, BUILD_SECONDS_MAX)


@dataclass
class Stage:
    """Checks that run after `before` has succeeded, `parallel` of them at a time."""

    before: list[Check]
    checks: list[Check]
    parallel: int = 1


def all_stages(long: bool) -> list[Stage]:
    fuzz_programs = [f"fuzz_{name}" for name in names_in_cmake("fuzz_target")]
    tidy = Check("tidy", [sys.executable, "tests/tidy.py"], count_tidy)
    release, asan, tsan = (build(preset, []) for preset in ("release", "asan", "tsan"))
    stages = [
        Stage([], [tidy]),
        Stage([release], unit_tests("unit", "release")),
        Stage([asan], unit_tests("asan", "asan"), CPUS),
        Stage([tsan], unit_tests("tsan", "tsan"), CPUS),
        Stage([asan, build("fuzz", fuzz_programs)], fuzz_tests(long), CPUS),
        Stage([release, install_check()], python_tests("release", long)),
    ]
    if long:
        stages.append(Stage([release, asan, install_check()], python_tests("asan", False)))
        stages.append(Stage([release, tsan, install_check()], python_tests("tsan", False)))
    return stages


class Run:
    """One run of the tests: prints each check as it ends and keeps the counts."""

    def __init__(self, pattern: str) -> None:
        self.pattern = re.compile(pattern)
        self.processes = Processes()
        self.total = Outcome()
        self.failed_names: list[str] = []
        self.done: dict[str, bool] = {}  # checks that several stages need: has it succeeded
        self.started = time.monotonic()
        self.lock = threading.Lock()

    def run_check(self, check: Check) -> bool:
        begun = time.monotonic()
        for old in [check.report, *check.findings()]:
            old.unlink(missing_ok=True)
        status = self.processes.run(check)
        if self.processes.stopping:
            raise KeyboardInterrupt
        if status is None:
            note = f"    did not end within {check.seconds_max} s:"
            outcome = Outcome(failed=1, notes=[note, tail(check.log)])
        else:
            outcome = check.count(status, check.log)
        if check.watched:
            wait_for_daemons()
        for finding in check.findings():
            outcome.add(
                Outcome(failed=1, notes=[f"    {finding.relative_to(ROOT)}:", tail(finding)])
            )
        with self.lock:
            self.report(check, outcome, time.monotonic() - begun)
        return outcome.failed == 0

    def report(self, check: Check, outcome: Outcome, seconds: float) -> None:
        self.total.add(outcome)
        elapsed = time.monotonic() - self.started
        print(f"[{elapsed:5.0f} s] {check.name}: {outcome} ({seconds:.1f} s)", flush=True)
        if outcome.failed:
            self.failed_names.append(check.name)
            print(f"    log: {check.log.relative_to(ROOT)}")
        for note in outcome.notes:
            print(note, flush=True)

    def prepare(self, check: Check) -> bool:
        if check.name not in self.done:
            self.done[check.name] = self.run_check(check)
        return self.done[check.name]

    def run_stage(self, stage: Stage) -> None:
        chosen = [check for check in stage.checks if self.pattern.search(check.name)]
        before = [check for check in stage.before if chosen or self.pattern.search(check.name)]
        for check in before:
            if not self.prepare(check):
                self.total.add(Outcome(failed=len(chosen)))
                names = " ".join(check.name for check in chosen)
                print(f"    failed too, for want of {check.name}: {names}", flush=True)
                return
        with ThreadPoolExecutor(stage.parallel) as pool:
            futures = [pool.submit(self.run_check, check) for check in chosen]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                self.processes.stop_all()
                pool.shutdown(cancel_futures=True)
                raise


def interrupt(number: int, _frame: object) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt(signal.Signals(number).name)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/test")
    parser.add_argument("--long", action="store_true", help="the full campaigns too")
    parser.add_argument(
        "--only", default="", metavar="PATTERN", help="checks by regular expression"
    )
    parser.add_argument("--list", action="store_true", help="print the checks' names, run nothing")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    stages = all_stages(options.long)
    run = Run(options.only)
    if options.list:
        names = (check.name for stage in stages for check in stage.before + stage.checks)
        print(*dict.fromkeys(names), sep="\n")
        return 0
    LOGS.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(BUILD / "fuzz-findings", ignore_errors=True)
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    try:
        for stage in stages:
            run.run_stage(stage)
    except KeyboardInterrupt as stopped:
        run.processes.stop_all()
        print(f"Stopped by {stopped}; so far: {run.total}")
        return 130
    if run.failed_names:
        print("failed:", *run.failed_names)
    print(run.total)
    return 1 if run.total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
