"""Text files that users wrote, in UTF-8 or refused."""

from __future__ import annotations

import codecs
import io
import json
import shlex
from pathlib import Path
from typing import Literal

from transmiter_cli.errors import TransmiterError, UsageError, listing

UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_text(path: Path) -> str:
    """The text of a file that a flag names.

    Raises:
        UsageError: if there is no such file.
        TransmiterError: if it cannot be read, or is not UTF-8.
    """
    if not path.exists() or path.is_dir():  # a pipe is no file
        raise UsageError(f"There is no file {str(path)!r}.", listing(path))
    return read_utf8(path)


def read_json(path: Path) -> object:
    """The JSON of a file that a flag names.

    Raises:
        UsageError: if there is no such file, or it is no JSON.
        TransmiterError: if it cannot be read, or is not UTF-8.
    """
    return parse_json(read_text(path), path, UsageError)


def read_list(path: Path) -> object:
    """The JSON of a file that a flag names, or the lines of one with another suffix, empty ones left out.

    Raises:
        UsageError: if there is no such file, or a .json is no JSON.
        TransmiterError: if it cannot be read, or is not UTF-8.
    """
    if path.suffix.lower() == ".json":
        return read_json(path)
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def read_utf8(path: Path, errors: Literal["strict", "surrogateescape"] = "strict") -> str:
    """The content of a text file; a byte order mark is left out.

    Args:
        path: the file.
        errors: "surrogateescape" keeps bytes that are not UTF-8, as Python keeps them in file names.

    Raises:
        TransmiterError: if it cannot be read, or is not UTF-8.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise TransmiterError(
            f"{path} cannot be read: {error.strerror}.", f"ls -ld {shlex.quote(str(path))}"
        ) from error
    if content.startswith(UTF_16):
        raise TransmiterError(f"{path} is in UTF-16, not in UTF-8.", converting(path, "UTF-16"))
    try:
        return io.TextIOWrapper(io.BytesIO(content), "utf-8-sig", errors).read()
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise not_utf8(path, error.object[error.start], line) from error


def not_utf8(path: Path, byte: int, line: int) -> TransmiterError:
    """The error for a byte of a text file that is not UTF-8."""
    return TransmiterError(f"{path} is not UTF-8: byte 0x{byte:02x} in line {line}.", converting(path, "LATIN1"))


def converting(path: Path, encoding: str) -> str:
    """The command line that writes a text file anew, in UTF-8 and beside the old one, where its paths mean the same."""
    new = path.with_name(f"{path.stem}-utf8{path.suffix}")
    return f"iconv -f {encoding} -t UTF-8 {shlex.quote(str(path))} > {shlex.quote(str(new))}"


def show_line(path: Path, line: int) -> str:
    """The command line that shows a line of a text file."""
    return f"sed -n {line}p {shlex.quote(str(path))}"


def parse_json(text: str, source: Path, kind: type[TransmiterError] = TransmiterError, line: int = 1) -> object:
    """The JSON of a text.

    Args:
        text: the text.
        source: the file it comes from.
        kind: the error to raise.
        line: the number of its first line in the file.

    Raises:
        TransmiterError: if it is no JSON; of the kind that is asked for.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits are no JSONDecodeError
        why = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        line += error.lineno - 1 if isinstance(error, json.JSONDecodeError) else 0
        raise kind(f"Line {line} of {source} is no valid JSON: {why}.", show_line(source, line)) from error


def escaped_byte(text: str) -> int | None:
    """The first byte of a text that is not UTF-8 and was kept as a surrogate; None if there is none."""
    return next((ord(one) - 0xDC00 for one in text if "\udc80" <= one <= "\udcff"), None)
