"""The frame of every command: options, output, and its end (one clear line, the right exit status)."""

from __future__ import annotations

import argparse
import functools
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from vmr_common.errors import PeerGone, SaidElsewhere, UserError, one_line, quoted, visible
from vmr_common.version import __version__

EXIT_DONE, EXIT_OURS, EXIT_USER, EXIT_INTERRUPTED = 0, 1, 2, 130

Main = Callable[[list[str]], None]
Arguments = Callable[[list[str]], Sequence[Any]]
logger = logging.getLogger(__name__)


class Parser(argparse.ArgumentParser):
    """Knows ``--version``, reports a wrong option as the other errors of the user, takes none that is abbreviated."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"allow_abbrev": False} | settings)
        about = "print the version, which all packages share, and end"
        self.add_argument("--version", action="version", version=f"%(prog)s {__version__}", help=about)

    def error(self, message: str) -> NoReturn:
        """Raises what `command` turns into a line and a status."""
        raise UserError(f"{message} (see {self.prog} --help)")


def echo(*lines: str) -> None:
    """Writes what was asked for to stdout, control characters escaped."""
    for line in lines:
        sys.stdout.write(visible(line) + "\n")


class _Visible(logging.Formatter):
    """Lines of the log, control characters escaped."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def _start_logging() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Visible("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def _refuse_bytes(arguments: Sequence[str]) -> None:
    """Raises `UserError` for an argument that is no UTF-8 text: it could be printed nowhere."""
    for argument in arguments:
        if any("\ud800" <= letter <= "\udfff" for letter in argument):
            raise UserError(f"the argument {quoted(argument)} is not UTF-8 text")


def command(
    main: Callable[..., object],
    explained: Callable[[Exception], str | None] = lambda _: None,
    read: Arguments = lambda arguments: [arguments],
) -> Callable[..., int]:
    """Wraps a command's main function so that it returns its exit status.

    0 done; 2 the user's input is wrong (`UserError`, or a file that the system refuses: one line on stderr,
    no traceback); 130 interrupted; 1 a fault of ours (traceback), or another process of the run is gone (one
    line). A reader that closes the pipe early (``| head``) is not an error.

    Args:
        main: Takes what `read` makes of the argument list, and raises on failure.
        explained: Says in one line what the user can do about an exception that would else be a fault of ours, or
            None where it is one.
        read: Makes of the argument list what `main` takes: itself, unless `main` is a function for Python as well.
    """

    @functools.wraps(main)
    def run(argv: Sequence[str] | None = None) -> int:
        _start_logging()
        try:
            arguments = list(sys.argv[1:] if argv is None else argv)
            _refuse_bytes(arguments)
            main(*read(arguments))
            sys.stdout.flush()
        except SaidElsewhere:
            return EXIT_USER
        except (UserError, PeerGone) as error:
            sys.stderr.write(f"error: {one_line(str(error))}\n")
            return EXIT_USER if isinstance(error, UserError) else EXIT_OURS
        except KeyboardInterrupt as stop:
            sys.stderr.write(one_line(": ".join(["interrupted", *map(str, stop.args)])) + "\n")
            return EXIT_INTERRUPTED
        except BrokenPipeError:
            # the interpreter flushes stdout once more at exit; give it somewhere to go
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except OSError as error:
            if error.filename is None:
                return _fault()
            sys.stderr.write(one_line(f"error: {error.filename}: {error.strerror}") + "\n")
            return EXIT_USER
        except Exception as error:
            said = explained(error)
            if said is None:
                return _fault()
            sys.stderr.write(f"error: {one_line(said)}\n")
            return EXIT_USER
        return EXIT_DONE

    return run


def _fault() -> int:
    logger.exception("internal error: this is a fault of the program, please report it")
    return EXIT_OURS
