"""Runs the command line tool for the tests, with folders and daemons of its own."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

SECONDS_MAX = 60


class Tool:
    """Runs ``penstock`` with a cache and a runtime folder of its own."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.runtime = base / "run" / "penstock"
        self.runtime.mkdir(parents=True, mode=0o700)
        os.chmod(base / "run", 0o700)
        self.socket = base / "own.sock"
        self.environment = {
            **os.environ,
            "XDG_RUNTIME_DIR": str(base / "run"),
            "PENSTOCK_CACHE": str(base / "cache"),
        }
        self.environment.pop("PENSTOCK_ADDRESS", None)
        self.daemons: list[subprocess.Popen] = []

    def start(self, *arguments: object, **more: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "penstock", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.base,
            env={**self.environment, **more},
        )

    def __call__(self, *arguments: object, code: int = 0, **more: str) -> str:
        """Standard output of a command that ends with `code`; errors must be one line."""
        process = self.start(*arguments, **more)
        output, errors = process.communicate(timeout=SECONDS_MAX)
        assert process.returncode == code, output + errors
        assert "Traceback" not in errors
        if code:
            assert re.fullmatch(r"penstock: [^\n]+\n", errors), errors
            self.error = errors
        return output

    def json(self, *arguments: object, **more: str) -> dict:
        output = self(*arguments, "--json", **more)
        assert "\x1b" not in output
        return json.loads(output)

    def serve(self, *arguments: object, path: Path | None = None) -> subprocess.Popen:
        """A daemon in the foreground of `path`, ready."""
        path = path or self.socket
        process = self.start("serve", "--socket", path, *arguments)
        self.daemons.append(process)
        deadline = time.monotonic() + SECONDS_MAX
        while not is_answered(path):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return process


def is_answered(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0
