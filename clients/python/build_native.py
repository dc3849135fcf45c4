#!/usr/bin/env python3
"""Write the C source of penstock._native from libpenstock's headers.

    python build_native.py OUTPUT.c clients/c/penstock.h clients/c/penstock_cuda.h

The headers' declarations between "bindings: begin" and "bindings: end" are the binding; nothing
is written twice. The build compiles the output against Python's stable interface.
"""

import argparse
import re
from pathlib import Path

import cffi


def declarations(header: str) -> str:
    """The part of the header between its markers, without comments."""
    marked = re.search(r"/\* bindings: begin.*?\*/(.*)/\* bindings: end \*/", header, re.DOTALL)
    if marked is None:
        raise SystemExit("build_native: the header has no 'bindings: begin' and 'bindings: end'")
    return re.sub(r"/\*.*?\*/", "", marked.group(1), flags=re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("header", type=Path, nargs="+")
    arguments = parser.parse_args()
    builder = cffi.FFI()
    for header in arguments.header:
        builder.cdef(declarations(header.read_text()))
    includes = "\n".join(f'#include "clients/c/{header.name}"' for header in arguments.header)
    builder.set_source("penstock._native", includes)
    builder.emit_c_code(str(arguments.output))


if __name__ == "__main__":
    main()
