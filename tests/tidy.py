#!/usr/bin/env python3
"""The rules of this code base that a machine can check.

    python tests/tidy.py

Prints "ok NAME" or "FAIL NAME" for each rule, under a FAIL each violation as "path:line: what".
Exit 0 when every rule holds. A rule is a function that yields violations; its name is the
check's name, its docstring the rule.
"""

import argparse
import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 600
LINE_COLUMNS_MAX = 100

CODE = {".c", ".h", ".py"}
TEXT = CODE | {".md", ".txt", ".toml", ".json", ".yaml", ".yml", ".cmake", ".service", ".sh", ""}
NOT_OURS = {".git", ".venv", ".cache", "build", "dist"}

# Which folders a file of this folder may include from. Nothing includes tests/ or bench/.
MAY_INCLUDE = {
    "decode": {"decode"},
    "ipc": {"ipc"},
    "loader": {"loader", "decode", "ipc"},
    "clients": {"clients", "ipc"},
    "tests": {"decode", "ipc", "loader", "clients", "tests"},
    "bench": {"decode", "ipc", "loader", "clients", "bench"},
    "examples": {"clients"},
}

# Headers of the C library, Linux and the compiler: anyone may include these.
SYSTEM_HEADERS = set(
    """assert ctype cpuid dirent dlfcn endian errno fcntl fnmatch float ftw getopt glob immintrin
    inttypes limits link locale math mntent netdb poll pthread pwd sched semaphore setjmp signal
    spawn stdalign stdarg stdatomic stdbool stddef stdint stdio stdlib stdnoreturn string strings
    syslog time unistd arm_acle arm_neon""".split()
)
SYSTEM_FOLDERS = {"sys", "linux", "arpa", "net", "netinet", "asm", "sanitizer"}

# Third-party headers and the files, or folders ending in "/", that may include them.
HOMES = {
    "jpegint.h": ["decode/jpeg_entropy.c", "decode/jpeg_blocks.c"],
    "jpeglib.h": ["decode/jpeg", "bench/bench_stages.c"],
    "jerror.h": ["decode/jpeg.c"],
    "zlib.h": ["decode/png_rows.c"],
    "webp/": ["decode/webp.c"],
    "liburing.h": ["loader/source_uring.c"],
    "microhttpd.h": ["loader/http.c"],
    "cyaml/": ["loader/config.c"],
    "xxhash.h": ["loader/index_hash.c", "decode/coefficient_format.c"],
    "zstd.h": ["decode/coefficient_streams.c"],
    "curl/": ["loader/remote/transfer.c", "loader/remote/fetch.c"],
    "expat.h": ["loader/remote/s3_xml.c"],
    "openssl/": ["loader/remote/checksum.c"],
    "jansson.h": ["ipc/", "loader/", "clients/c/"],
    "cmocka.h": ["tests/unit/"],
    "Python.h": ["clients/python/"],
}

# decode/ takes bytes and gives pixels.
NEVER_IN_DECODE = re.compile(
    r"pthread\.h|time\.h|unistd\.h|fcntl\.h|dirent\.h|syslog\.h|sys/|linux/"
)
NEVER_IN_IPC = re.compile(r"pthread\.h|syslog\.h")

INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]')
# The brackets let this file pass its own checks.
MARKERS = re.compile(r"\b(?:TO[D]O|FIX[M]E|XX[X]|HA[C]K)\b")
PRIVATE_PATHS = re.compile(r"/hom[e]/\w|/roo[t]/|/User[s]/\w|/wor[k]/|/op[t]/(?:wheels|pypi)")

ROOT = Path(__file__).resolve().parent.parent


@cache
def files() -> list[Path]:
    """Every file of ours, relative to the root: what git tracks or would, else what is there."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "-co", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, check=True, text=True).stdout
        found = [Path(name) for name in listed.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        found = [path.relative_to(ROOT) for path in ROOT.rglob("*")]
    return sorted(
        path
        for path in set(found)
        if not NOT_OURS & set(path.parts)
        and "__pycache__" not in path.parts
        and (ROOT / path).is_file()
    )


@cache
def lines(path: Path) -> list[str]:
    return (ROOT / path).read_text(encoding="utf-8", errors="replace").splitlines()


def c_files() -> list[Path]:
    return [path for path in files() if path.suffix in {".c", ".h"}]


def python_files() -> list[Path]:
    return [path for path in files() if path.suffix == ".py"]


def text_files() -> list[Path]:
    return [path for path in files() if path.suffix in TEXT]


def includes(path: Path) -> Iterator[tuple[int, bool, str]]:
    """(line number, is quoted, name) of each include of a C file."""
    for number, line in enumerate(lines(path), 1):
        if found := INCLUDE.match(line):
            yield number, found[1] == '"', found[2]


def includes_point_down() -> Iterator[str]:
    """clients -> ipc <- loader -> decode; paths start at the root."""
    for path in c_files():
        allowed = MAY_INCLUDE.get(path.parts[0], set())
        for number, quoted, name in includes(path):
            if not quoted:
                continue
            folder = name.split("/")[0]
            if folder not in allowed:
                yield f"{path}:{number}: {path.parts[0]}/ may not include {name}"
            elif not (ROOT / name).is_file():
                yield f"{path}:{number}: no file {name}; include paths start at the root"


def is_system_header(name: str) -> bool:
    folder, _, rest = name.partition("/")
    return folder in SYSTEM_FOLDERS if rest else name.removesuffix(".h") in SYSTEM_HEADERS


def home_of(name: str) -> list[str] | None:
    for header, homes in HOMES.items():
        if name == header or (header.endswith("/") and name.startswith(header)):
            return homes
    return None


def libraries_have_one_home() -> Iterator[str]:
    """A third-party header is included where the table says, and nowhere else."""
    for path in c_files():
        if path.parts[0] in {"tests", "bench"} and path.parts[1] != "unit":
            continue
        for number, quoted, name in includes(path):
            if quoted or is_system_header(name):
                continue
            homes = home_of(name)
            if homes is None:
                yield f"{path}:{number}: {name} is not in the table of tests/tidy.py"
            elif not any(str(path) == home or str(path).startswith(home) for home in homes):
                yield f"{path}:{number}: {name} belongs to {', '.join(homes)}"


def leaves_stay_pure() -> Iterator[str]:
    """decode/ has no threads, clock or I/O; ipc/ has no threads or log."""
    for path in c_files():
        never = {"decode": NEVER_IN_DECODE, "ipc": NEVER_IN_IPC}.get(path.parts[0])
        for number, quoted, name in includes(path):
            if never and not quoted and never.match(name):
                yield f"{path}:{number}: {path.parts[0]}/ may not include <{name}>"


def asserts_are_declared() -> Iterator[str]:
    """assert and static_assert come from <assert.h>, which other headers may bring or may not."""
    for path in c_files():
        used = re.search(r"\b(static_)?assert\(", path.read_text())
        if used and "assert.h" not in {name for _, _, name in includes(path)}:
            yield f"{path}: uses {used[0]}) without <assert.h>"


def c_functions(path: Path) -> Iterator[tuple[int, int]]:
    """(first line, count of lines). The formatter puts a function's braces in column one."""
    text = lines(path)
    start = None
    for at, line in enumerate(text):
        if line == "{":
            start = at
            while start > 0 and text[start - 1] and text[start - 1][0] not in "/#}":
                start -= 1
        elif line == "}" and start is not None:
            yield start + 1, at - start + 1
            start = None


def functions_fit_a_screen() -> Iterator[str]:
    """At most 70 lines, signature included."""
    for path in c_files():
        for start, count in c_functions(path):
            if count > FUNCTION_LINES_MAX:
                yield f"{path}:{start}: function of {count} lines"
    for path in python_files():
        for node in ast.walk(ast.parse("\n".join(lines(path)))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                count = (node.end_lineno or node.lineno) - node.lineno + 1
                if count > FUNCTION_LINES_MAX:
                    yield f"{path}:{node.lineno}: function of {count} lines"


def files_stay_short() -> Iterator[str]:
    """At most 600 lines."""
    for path in files():
        if path.suffix in CODE and len(lines(path)) > FILE_LINES_MAX:
            yield f"{path}:1: {len(lines(path))} lines"


def lines_stay_short() -> Iterator[str]:
    """At most 100 columns of code."""
    for path in files():
        if path.suffix not in CODE:
            continue
        for number, line in enumerate(lines(path), 1):
            if len(line) > LINE_COLUMNS_MAX:
                yield f"{path}:{number}: {len(line)} columns"


def no_markers_are_left() -> Iterator[str]:
    """What is not done is in an issue, not in a comment."""
    for path in text_files():
        for number, line in enumerate(lines(path), 1):
            if found := MARKERS.search(line):
                yield f"{path}:{number}: {found[0]}"


def names_are_unique() -> Iterator[str]:
    """A C file can be named without its folder, so its name occurs once."""
    seen: dict[str, Path] = {}
    for path in c_files():
        if path.name in seen:
            yield f"{path}:1: also {seen[path.name]}"
        seen[path.name] = path


def no_private_paths() -> Iterator[str]:
    """No path of anybody's own machine."""
    for path in text_files():
        for number, line in enumerate(lines(path), 1):
            if found := PRIVATE_PATHS.search(line):
                yield f"{path}:{number}: {found[0]}"


def headers_stand_alone() -> Iterator[str]:
    """A header compiles without any other before it."""
    for path in c_files():
        if path.suffix != ".h":
            continue
        command = ["cc", "-std=gnu17", "-fsyntax-only", "-D_GNU_SOURCE", f"-I{ROOT}"]
        command += ["-Wall", "-Wextra", "-Werror", "-x", "c", "-"]
        ran = subprocess.run(
            command, input=f'#include "{path}"\n', capture_output=True, text=True, check=False
        )
        if ran.returncode != 0:
            yield f"{path}:1: {ran.stderr.strip().splitlines()[0]}"


def tool_complaints(command: list[str], paths: list[Path]) -> Iterator[str]:
    """What a tool prints about the paths, if it does not exit with 0."""
    if not paths:
        return
    names = [str(path) for path in paths]
    try:
        ran = subprocess.run(command + names, cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError as error:
        yield f"{command[0]}: {error.strerror}; tools/test installs it"
        return
    if ran.returncode != 0:
        yield from (line for line in (ran.stdout + ran.stderr).splitlines() if line.strip())


def c_is_formatted() -> Iterator[str]:
    """As clang-format-16 -i formats it."""
    command = ["clang-format-16", "--dry-run", "--Werror", "--ferror-limit=1"]
    for complaint in tool_complaints(command, c_files()):
        if ": error:" in complaint or complaint.startswith(command[0]):
            yield complaint


def python_is_formatted() -> Iterator[str]:
    """As ruff format formats it."""
    ruff = [
        sys.executable,
        "-m",
        "ruff",
        "format",
        "--no-cache",
        "--check",
        "--output-format=concise",
    ]
    for complaint in tool_complaints(ruff, python_files()):
        if not complaint.endswith("already formatted"):
            yield complaint


def python_passes_ruff() -> Iterator[str]:
    """ruff check, with the rules of .ruff.toml."""
    ruff = [sys.executable, "-m", "ruff", "check", "--no-cache", "--quiet"]
    yield from tool_complaints(ruff + ["--output-format=concise"], python_files())


CHECKS = [
    includes_point_down,
    libraries_have_one_home,
    leaves_stay_pure,
    asserts_are_declared,
    functions_fit_a_screen,
    files_stay_short,
    lines_stay_short,
    no_markers_are_left,
    names_are_unique,
    no_private_paths,
    headers_stand_alone,
    c_is_formatted,
    python_is_formatted,
    python_passes_ruff,
]


def main() -> int:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    failed = 0
    for check in CHECKS:
        violations = list(check())
        print("FAIL" if violations else "ok", check.__name__)
        for violation in violations:
            print("   ", violation)
        failed += bool(violations)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
