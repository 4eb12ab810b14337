"""One table from exception to a sentence, the command that mends it, and the exit code."""

from __future__ import annotations

import errno
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import NoReturn

from rich.text import Text

from transmiter_cli.cli.console import errors
from transmiter_cli.errors import TransmiterError, is_out_of_memory
from transmiter_cli.names import visible

DEBUG_VARIABLE = "TRANSMITER_DEBUG"
INTERRUPTED = 128 + signal.SIGINT
NOBODY_READS = 128 + 13
"""The exit code where the reader of a pipe has gone, as `head` does: that of programs which SIGPIPE ends."""
PATIENCE = 1.0
ENDINGS = {INTERRUPTED: "Interrupted", 128 + signal.SIGTERM: "Terminated", 128 + 1: "Hung up"}
"""What to say of exit codes after Ctrl-C, SIGTERM, which job schedulers send, and SIGHUP, of a lost connection."""


def explain(error: Exception) -> tuple[str, str | None, int] | None:
    """What happened and why, what mends it, and the exit code; None for an error that is a bug."""
    if isinstance(error, TransmiterError):
        message = str(error)
        if isinstance(error, ValueError):  # the method's own, which begin like any Python error
            message = message[:1].upper() + message[1:]
        return message, error.fix, error.exit_code
    if type(error).__name__ == "OutOfMemoryError":
        return "The device has too little memory.", "add --encode-batch 8 or --device cpu", 1
    if is_out_of_memory(error):
        fix = "add --workers 1, and --decode scaled for large JPEG files; or fit with a smaller --vocabulary-size"
        return "There is too little memory.", fix, 1
    if isinstance(error, OSError):
        what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
        return f"{what}.", os_fix(error), 1
    return None


def os_fix(error: OSError) -> str | None:
    """What mends an error of the operating system, if a few words can say it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        if not error.filename:
            return "free some space where the output goes"
        return "free some space; --run, --out and TRANSMITER_CACHE put results and embeddings on another disk"
    if error.errno == errno.EFBIG:
        return "ulimit -f unlimited"
    if error.errno in (errno.EACCES, errno.EROFS) and error.filename:
        path = Path(os.fsdecode(error.filename))
        return f"ls -ld {shlex.quote(str(path if os.path.lexists(path) else path.parent))}"
    return None


class Ending:
    """What Ctrl-C, SIGTERM and SIGHUP do: end the command, which keeps what it has; once more while that goes on, and
    it stops at once.

    One that follows within PATIENCE seconds is the same one: `timeout` signals a process and its group, for instance.

    Attributes:
        code: the exit code that was asked for; None before.
    """

    def __init__(self) -> None:
        self.code: int | None = None
        self.began = 0.0

    def __call__(self, number: int, _: object) -> None:
        """Raise SystemExit the first time."""
        if self.code is None:
            self.code, self.began = 128 + number, time.monotonic()
            sys.exit(self.code)
        if time.monotonic() > self.began + PATIENCE:
            errors.show_cursor(True)  # which a progress bar hides
            os._exit(128 + number)


def open_closed_streams() -> None:
    """Let a stream that the caller closed, as `>&-` does, lead nowhere: Python has None in its place."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))


def run(app: Callable[[], None]) -> None:
    """Run the app; show an error as a sentence, and exit with its code."""
    open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            encoding = None if stream.isatty() else "utf-8"  # a file is read elsewhere, where nobody knows this locale
            stream.reconfigure(encoding=encoding, errors="backslashreplace")  # file names need not be text
    ending = Ending()
    signal.signal(signal.SIGTERM, ending)  # so that what was encoded is written
    for name, usual in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
        number = getattr(signal, name, None)  # Windows knows no SIGHUP
        if number is not None and signal.getsignal(number) is usual:  # else a shell, or nohup, had reasons to ignore it
            signal.signal(number, ending)
    try:
        app()
    except SystemExit as stop:
        if ending.code is not None:
            end(ending.code)
        if isinstance(stop.__context__, BrokenPipeError):  # typer's code for it, 1, would be that of a failure
            sys.exit(NOBODY_READS)
        raise
    except Exception as error:
        if ending.code is not None:  # C code, as torch's import of NumPy, may drop the exception and leave a ruin
            end(ending.code)
        explained = explain(error)
        if explained is None or os.environ.get(DEBUG_VARIABLE) == "1":
            raise
        message, fix, code = explained
        errors.print(Text.assemble(("Error: ", "bold red"), visible(message)))
        if fix:
            errors.print(Text.assemble(("Try: ", "bold"), visible(fix)))
        sys.exit(code)


def end(code: int) -> NoReturn:
    """Exit after Ctrl-C, SIGTERM or SIGHUP."""
    with suppress(OSError):  # of a terminal that hung up
        errors.print(f"{ENDINGS[code]}. What was encoded is kept: the same command goes on from there.")
    sys.exit(code)
