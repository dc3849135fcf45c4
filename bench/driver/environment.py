"""Virtual environments of the peers: made once, checked, kept in the cache folder."""

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

from driver import catalogue

PIP_SECONDS_MAX = 1800
PROBE_SECONDS_MAX = 120


class Unavailable(Exception):
    """A peer can't be used here; the text says why and what would mend it."""


def say(text):
    print(text, flush=True)


def ensure(cache, name):
    """The python of the environment `name`, made first if need be. Raises Unavailable."""
    recipe = catalogue.ENVIRONMENTS[name]
    folder = cache / name
    stamp = folder / "installed.json"
    python = folder / "venv" / "bin" / "python"
    identity = _identity(recipe)
    if _stamped(stamp, identity) and python.exists():
        return python
    _require_debian(recipe)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    log = folder / "install.log"
    began = time.monotonic()
    _run(log, [sys.executable, "-m", "venv", str(folder / "venv")], "making a venv")
    (folder / "constraints.txt").write_text(catalogue.TORCH + "\n")
    for step in recipe.steps:
        say(f"  {name}: installing {step.what}")
        _install(folder, log, python, step)
    _run(log, [str(python), "-c", recipe.probe], "importing it", PROBE_SECONDS_MAX)
    stamp.write_text(json.dumps({"identity": identity}))
    say(f"  {name}: ready after {time.monotonic() - began:.0f} s")
    return python


def _require_debian(recipe):
    """Say which packages are missing before anything large is downloaded."""
    if not shutil.which("dpkg-query"):
        return
    missing = []
    for package in recipe.debian:
        done = subprocess.run(
            ["dpkg-query", "-W", "-f=${db:Status-Status}", package],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.stdout != "installed":
            missing.append(package)
    if missing:
        raise Unavailable(f"needs: apt-get install --no-install-recommends {' '.join(missing)}")


def _install(folder, log, python, step):
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check"]
    command += ["-c", str(folder / "constraints.txt"), *step.arguments]
    try:
        _run(log, command, f"pip install {step.what}", environment=dict(step.environment))
    except Unavailable:
        if step.otherwise is None:
            raise
        _install(folder, log, python, step.otherwise)


def _identity(recipe):
    text = repr(recipe) + sys.version
    return hashlib.sha256(text.encode()).hexdigest()


def _stamped(stamp, identity):
    try:
        return json.loads(stamp.read_text())["identity"] == identity
    except (OSError, ValueError, KeyError):
        return False


def _run(log, command, what, seconds_max=PIP_SECONDS_MAX, environment=None):
    with open(log, "a", encoding="utf-8") as file:
        file.write("$ " + " ".join(command) + "\n")
        file.flush()
        try:
            code = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                timeout=seconds_max,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            code = f"no end within {seconds_max} s"
    if code != 0:
        raise Unavailable(_story(log, what, code))


def _story(log, what, code):
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    reason = next((line for line in reversed(lines) if "error" in line.lower()), lines[-1])
    return f"{what} failed ({code}): {reason.strip()[:300]}\n    the whole story: {log}"


def penstock_python(root, chosen=None):
    """The python in which Penstock is installed: `chosen`, else the checkout's. Unavailable."""
    python = pathlib.Path(chosen) if chosen else root / ".venv" / "bin" / "python"
    probe = "import penstock; penstock.DataLoader"
    mend = "run tools/demo or tools/test once"
    try:
        done = subprocess.run(
            [str(python), "-c", probe],
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS_MAX,
            check=False,
        )
    except OSError as error:
        raise Unavailable(f"{python}: {error.strerror}; {mend}") from None
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{python}: importing penstock takes too long; {mend}") from None
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise Unavailable(f"{python}: {lines[-1]}; {mend}")
    return python
