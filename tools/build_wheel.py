#!/usr/bin/env python3
"""Builds the self-contained wheel and tries it in empty roots: the second half of tools/wheel."""

import argparse
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "wheel"
DIST = ROOT / "dist"
DEBIAN = "bookworm"
DEBIAN_MIRROR = "http://deb.debian.org/debian"
ROOT_PACKAGES = "python3,python3-venv"
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (17, 27, 28, 34)] + ["manylinux2014_x86_64"]

#: What a program of the wheel may take from the system it runs on: as manylinux has it.
SYSTEM_LIBRARIES = {
    "libc",
    "libm",
    "libz",
    "libexpat",
    "libresolv",
    "libdl",
    "librt",
    "libpthread",
    "ld-linux-x86-64",
}
SYSTEM_LIBRARIES |= {"linux-vdso", "ld-linux-aarch64"}

RUN_NEEDS = {"numpy", "cffi", "pycparser", "pillow"}  # Pillow: to make pictures for the check
TEST_NEEDS = {"iniconfig", "packaging", "pluggy", "pygments", "pytest", "pytest-timeout"}
TORCH_NEEDS = {
    *("filelock", "fsspec", "jinja2", "markupsafe", "mpmath", "networkx", "sympy"),
    "typing_extensions",
}
TORCH = ["torch==2.13.0+cpu", "setuptools>=77.0.3,<82"]
#: They are about this checkout's files, not about the package.
TESTS_LEFT_OUT = ["test_tidy.py", "test_bench_driver.py"]

USER_ID = 1000


def main() -> None:
    parser = argparse.ArgumentParser(prog="tools/wheel", description=__doc__)
    parser.add_argument("--no-check", action="store_true")
    parser.add_argument("--root", type=Path, action="append", default=[])
    parser.add_argument("--tests", action="store_true")
    args = parser.parse_args()
    wheel = repaired(built())
    check_contents(wheel)
    print(f"built {wheel.relative_to(ROOT)}, {wheel.stat().st_size / 1e6:.1f} MB", flush=True)
    if args.no_check:
        return
    for root in [debian_root(), *args.root]:
        check_in(root, wheel, with_tests=args.tests and root.parent == WORK)


def run(*command: object, **options: object) -> None:
    subprocess.run([str(part) for part in command], check=True, **options)


def as_root(*command: object, **options: object) -> None:
    run(*([] if os.getuid() == 0 else ["sudo"]), *command, **options)


# ---- building ---------------------------------------------------------------------------------


def built() -> Path:
    """The wheel as the build makes it, which needs this system's libraries."""
    folder = WORK / "built"
    shutil.rmtree(folder, ignore_errors=True)
    run(
        *(sys.executable, "-m", "pip", "wheel", "-qq", "--no-deps", "--no-build-isolation"),
        *("--config-settings", f"build-dir={WORK / 'cmake'}", "-w", folder, ROOT),
    )
    return next(folder.glob("penstock-*.whl"))


def repaired(wheel: Path) -> Path:
    """The same with the libraries inside, under names of their own, and their licences.

    The programs look for them by an RPATH of theirs, so that the system's copies, which may be of
    another version than the one compiled against, do not come in between.
    """
    folder = WORK / "repaired"
    shutil.rmtree(folder, ignore_errors=True)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    run(
        *(sys.executable, "-m", "auditwheel", "repair", "--strip", "-w", folder, wheel),
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    repaired = next(folder.glob("penstock-*.whl"))
    run(sys.executable, "-m", "wheel", "unpack", "-d", folder, repaired, stdout=subprocess.DEVNULL)
    contents = next(path for path in folder.iterdir() if path.is_dir())
    add_licences(contents)
    DIST.mkdir(exist_ok=True)
    for old in DIST.glob("penstock-*.whl"):
        old.unlink()
    run(sys.executable, "-m", "wheel", "pack", "-d", DIST, contents, stdout=subprocess.DEVNULL)
    return DIST / repaired.name


def add_licences(contents: Path) -> None:
    """Debian's copyright file of each library that is inside."""
    target = next(contents.glob("*.dist-info")) / "licenses"
    for library in sorted((contents / "penstock.libs").iterdir()):
        soname = re.sub(r"-[0-9a-f]{8}\.", ".", library.name, count=1)
        found = subprocess.run(
            ["dpkg-query", "-S", f"*/{soname}"], capture_output=True, text=True, check=False
        )
        if found.returncode != 0:
            raise SystemExit(f"no Debian package has {soname}, so its licence is not known")
        package = found.stdout.split(":")[0]
        shutil.copy(f"/usr/share/doc/{package}/copyright", target / f"{package}.copyright")


def check_contents(wheel: Path) -> None:
    """It holds what it should, executable where it should be, for every Python from 3.11 on."""
    if "-cp311-abi3-manylinux" not in wheel.name:
        raise SystemExit(f"{wheel.name} is not for cp311-abi3 and manylinux")
    with zipfile.ZipFile(wheel) as archive:
        modes = {entry.filename: entry.external_attr >> 16 for entry in archive.infolist()}
    for name in ("penstock/_bin/penstockd", "penstock/_native.abi3.so"):
        if name not in modes:
            raise SystemExit(f"{wheel.name} has no {name}")
    if not modes["penstock/_bin/penstockd"] & 0o100:
        raise SystemExit("penstockd is not executable in the wheel")


# ---- empty roots ------------------------------------------------------------------------------


def debian_root() -> Path:
    """A minimal Debian with Python; made once."""
    root = WORK / DEBIAN
    if not (root / "usr/bin/python3").exists():
        as_root("rm", "-rf", root)
        as_root(
            *("debootstrap", "--variant=minbase", f"--include={ROOT_PACKAGES}"),
            *(DEBIAN, root, DEBIAN_MIRROR),
            stdout=subprocess.DEVNULL,
        )
    return root


def pinned(names: set[str]) -> Iterator[str]:
    """Lines of the requirements files for `names`, in lower case."""
    for file in ("requirements.txt", "requirements-test.txt"):
        for line in (ROOT / "tools" / file).read_text().splitlines():
            if line.split("==")[0].lower() in names:
                yield line


def python_version(root: Path) -> str:
    """ "3.11": of the root's own python3."""
    name = os.path.basename(os.path.realpath(root / "usr/bin/python3"))
    return name.removeprefix("python")


def wheelhouse(version: str, needs: list[str]) -> Path:
    """A folder of wheels for that Python; a root has no index."""
    folder = WORK / f"wheelhouse-{version}"
    platforms = [part for platform in PLATFORMS for part in ("--platform", platform)]
    run(
        *(sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--only-binary=:all:"),
        *("--python-version", version, *platforms, "-d", folder, *needs),
    )
    return folder


def check_in(template: Path, wheel: Path, with_tests: bool) -> None:
    """Install the wheel in a copy of `template`, as a user without an index, and run it."""
    version = python_version(template)
    needs = RUN_NEEDS | (TEST_NEEDS | TORCH_NEEDS if with_tests else set())
    house = wheelhouse(version, [*pinned(needs), *(TORCH if with_tests else [])])
    root = WORK / "root"
    as_root("rm", "-rf", root)
    as_root("cp", "-a", template, root)
    home = root / "check"
    as_root("mkdir", "-p", home / "wheels")
    as_root("cp", *house.iterdir(), wheel, home / "wheels")
    as_root("cp", ROOT / "tools" / "check_wheel.py", home)
    if with_tests:
        as_root("cp", "-r", ROOT / "tests" / "python", home / "tests")
    as_root("chown", "-R", f"{USER_ID}:{USER_ID}", home)
    as_root("mkdir", "-p", root / "dev/shm")
    as_root("chmod", "1777", root / "tmp", root / "var/tmp", root / "dev/shm")
    left_out = [f"--ignore=tests/{name}" for name in TESTS_LEFT_OUT]
    packages = [
        "penstock",
        "pillow",
        *(["torch", "pytest", "pytest-timeout"] if with_tests else []),
    ]
    script = [
        "cd /check",
        "python3 -m venv venv",
        "venv/bin/python -m pip install -qq --no-index --find-links wheels " + " ".join(packages),
        "venv/bin/python check_wheel.py " + ",".join(sorted(SYSTEM_LIBRARIES)),
    ]
    if with_tests:
        script += [f"venv/bin/python -m pytest -q --timeout 120 {' '.join(left_out)} tests"]
    print(f"checking in {template.name}, Python {version}", flush=True)
    as_root(
        *("unshare", "--mount", "--pid", "--fork", f"--root={root}", "--mount-proc"),
        *(f"--setgid={USER_ID}", f"--setuid={USER_ID}"),
        *("env", "-i", "PATH=/usr/bin:/bin", "HOME=/check", "LANG=C.UTF-8"),
        *("sh", "-c", " && ".join(script)),
    )
    as_root("rm", "-rf", root)


if __name__ == "__main__":
    main()
