"""The frame of every command: options, output, and its end (one clear line, the right exit status)."""

from __future__ import annotations

import argparse
import functools
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from vmr_common.errors import PeerGone, SaidElsewhere, UserError, one_line, quoted, visible
from vmr_common.version import __version__

EXIT_DONE, EXIT_OURS, EXIT_USER, EXIT_INTERRUPTED = 0, 1, 2, 130

Arguments = Callable[[list[str]], Sequence[Any]]
logger = logging.getLogger(__name__)

_AS_IT_IS = "\0"
"""Begins a value that looks like an option, between `Parser` and `free_text`; no argument of a process holds it."""


def free_text(word: str) -> str:
    """The type of options whose values are ids or sentences: `Parser` takes values of these that begin with a dash."""
    return word.removeprefix(_AS_IT_IS)


def option_words(name: str, value: str) -> list[str]:
    """An option and its value as words of a command line, which is read again whatever the value begins with.

    Example:
        >>> option_words("--video", "-0awng2"), option_words("--video", "v_1")
        (['--video=-0awng2'], ['--video', 'v_1'])
    """
    return [f"{name}={value}"] if value.startswith("-") else [name, value]


def word_of(path: str | Path) -> str:
    """A path as a word of a command line that is no option: ``./-runs`` for ``-runs``."""
    return f"./{path}" if str(path).startswith("-") else str(path)


class Parser(argparse.ArgumentParser):
    """Knows ``--version``, reports a wrong option as the other errors of the user, takes none that is abbreviated.

    The values of options of the type `free_text` may begin with a dash, unless they are the name of an option; that
    is given as ``--video=--json``.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"allow_abbrev": False} | settings)
        about = "print the version, which all packages share, and end"
        self.add_argument("--version", action="version", version=f"%(prog)s {__version__}", help=about)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As that of argparse."""
        return super().parse_known_args(self._as_they_are(args), namespace)

    def parse_known_intermixed_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As that of argparse."""
        return super().parse_known_intermixed_args(self._as_they_are(args), namespace)

    def _as_they_are(self, args: Sequence[str] | None) -> list[str]:
        """The arguments, values of free text that look like options marked as none."""
        words = list(sys.argv[1:] if args is None else args)
        left = 0  # values that the option before may still have
        for place, word in enumerate(words):
            if word == "--":
                break
            option = self._option_string_actions.get(word)
            if option is None and word.endswith("--"):
                words[place], left = self._with_dashes(word), 0
            elif option is not None:
                many = option.nargs is not None
                left = 0 if option.type is not free_text else len(words) if many else 1
            elif left and not self._is_option(word):
                words[place] = _AS_IT_IS + word if word.startswith("-") else word
                left -= 1
            else:
                left = 0
        return words

    def _with_dashes(self, word: str) -> str:
        """An option whose value in the same word is ``--``, which argparse would take away; other words as they are."""
        name = word.removesuffix("--").removesuffix("=")
        option = self._option_string_actions.get(name)
        if option is None or option.nargs == 0 or (name.startswith("--") and name == word[:-2]):
            return word
        if option.type is not free_text:
            self.error(f"argument {name}: invalid value '--'")
        return f"{name}{'=' * word.endswith('=--')}{_AS_IT_IS}--"

    def _is_option(self, word: str) -> bool:
        """True for an option with its value in the same word: ``--json=1``, and ``-k5`` if 5 is a value of -k."""
        short = self._option_string_actions.get(word[:2])
        if short is None or word.startswith("--") or not callable(short.type):
            return word.partition("=")[0] in self._option_string_actions
        try:
            short.type(word[2:])
        except (ValueError, TypeError, argparse.ArgumentTypeError):
            return False
        return True

    def error(self, message: str) -> NoReturn:
        """Raises what `command` turns into a line and a status."""
        advice = "; a sentence or a file that begins with a dash stands behind --"
        looks_so = re.match("unrecognized arguments: -[^-]", message) and self._get_positional_actions()
        raise UserError(f"{message}{advice if looks_so else ''} (see {self.prog} --help)")


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
