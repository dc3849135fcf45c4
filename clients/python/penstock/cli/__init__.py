"""The command line tool ``penstock``: serve, look at, mend and measure.

Exit status 0: done; 1: failed; 2: wrong usage; 130: interrupted. Results go to standard output
(with ``--json`` one JSON object), errors to standard error, one line that ends with what to do.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from .. import __version__
from .._wire import Disconnected
from ..errors import Error, UsageError
from . import bench, cache, daemon, dataset, doctor, status
from ._output import one_line
from ._parser import Parser

EXIT_DONE, EXIT_FAILED, EXIT_USAGE = 0, 1, 2
_SIGPIPE = 13  # Windows has no such signal
_SIGNAL_BASE = 128  # what a shell reports for a process that a signal ended

_EXAMPLES = """\
examples:
  penstock index /data/train                  list a data set once, ahead of training
  penstock status --watch                     what the trainers of this node get
  penstock bench /data/train --against torch  is it worth it?
  penstock doctor                             what is wrong here, and how to mend it

'penstock COMMAND --help' tells more. Exit status: 0 done, 1 failed, 2 usage.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    signal.signal(signal.SIGTERM, _terminated)
    # Names of files may be no UTF-8, and the terminal's encoding may lack characters.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        arguments = _parser().parse_args(argv)
        code = arguments.run(arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return _SIGNAL_BASE + signal.SIGINT
    except BrokenPipeError:
        # Whoever read our output has seen enough. Python flushes once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _SIGNAL_BASE + _SIGPIPE
    except UsageError as error:
        return _complain(error, EXIT_USAGE)
    except Disconnected as error:
        return _complain(f"the daemon went away ({error}); see its log: penstock logs", EXIT_FAILED)
    except (Error, OSError) as error:
        return _complain(error, EXIT_FAILED)


def _complain(error: object, code: int) -> int:
    print(f"penstock: {one_line(str(error))}", file=sys.stderr)
    return code


def _terminated(number: int, frame: FrameType | None) -> None:
    """End as Ctrl-C does, through every ``finally``."""
    raise SystemExit(_SIGNAL_BASE + number)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="penstock",
        description="Penstock: a data loader daemon for training on images.",
        epilog=_EXAMPLES,
    )
    parser.add_argument("--version", action="version", version=f"penstock {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in (daemon, status, dataset, cache, bench, doctor):
        module.add_commands(commands)
    return parser
