"""Text files that users wrote, in UTF-8 or refused."""

from __future__ import annotations

from pathlib import Path

from transmiter_cli.errors import TransmiterError


def read_utf8(path: Path) -> str:
    """The content of a text file; a byte order mark is left out.

    Raises:
        TransmiterError: if it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise TransmiterError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise TransmiterError(
            f"{path} is not UTF-8: byte 0x{error.object[error.start]:02x} in line {line}.",
            f"iconv -f LATIN1 -t UTF-8 '{path}' > utf8{path.suffix}",
        ) from error
