"""Files that are whole or absent: atomic writes, locks, canonical JSON, digests, and what tells files apart."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import lru_cache
from glob import escape
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

from transmiter_cli.errors import TransmiterError, UsageError

RECORD, LOCK = "run.json", ".lock"
"""Files of a run directory, of which it has one from its beginning."""
TEMPORARY = ".*.tmp"
"""Names of files that are being written."""
ABANDONED = 24 * 3600.0
"""Seconds without a change after which nobody is writing such a file any more."""
SHELLS_OWN = ("/dev/fd/", "/dev/std", "/proc/")
"""How the real paths begin of what a shell passes in place of a file."""


def absolute(path: str | Path) -> Path:
    """A path that means the same from any working directory; links are followed only where `..` leads out of one."""
    whole = expanded(path).absolute()
    after = whole.parts[::-1].index("..") if ".." in whole.parts else len(whole.parts)
    start = len(whole.parts) - after
    return Path(*whole.parts[:start]).resolve().joinpath(*whole.parts[start:]) if start else whole


def expanded(path: str | Path) -> Path:
    """A path whose ~ is a home directory; as it is where nobody knows that one."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 (pathlib raises RuntimeError)


def require_utf8_path(path: Path, fix: str) -> None:
    """Raise UsageError unless a path is UTF-8: safetensors writes files below any other, and cannot open them."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{path} is no UTF-8, and safetensors files below it could not be read.", fix) from error


def is_address(text: str) -> bool:
    """Whether a text begins with a scheme (https://, or s3:/ as pathlib has it), as hardly a path does but for C:/."""
    return re.match(r"[a-z][a-z0-9+]+:/", text, re.IGNORECASE) is not None


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spare spaces: the same value gives the same text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def stored_json(path: Path) -> Any | None:
    """What a JSON file of a cache holds; None where it is missing or damaged, and to be computed anew."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def digest(*parts: str | bytes | memoryview) -> str:
    """SHA-256 of the parts, kept apart from each other, as hex."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "little"))
        total.update(data)
    return total.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, *parts: bytes | Iterable[bytes], before: Callable[[], None] | None = None) -> None:
    """Write to a temporary name beside `path`, flush to the disk, rename: readers see all of it or nothing.

    A link stays one, and what it leads to is written; so is a FIFO or a device, which nothing can take the place of.
    What a killed write of the same file left behind goes first.

    Args:
        path: the file.
        *parts: its content, one after the other; an iterable is asked for its bytes only when it is written.
        before: called when all is on the disk, and not yet under its name.

    Raises:
        OSError: if it cannot be written; the error names `path`, or the folder that cannot be made.
    """
    if path.exists() and not path.is_file():
        if before is not None:
            before()
        with naming(path, path), path.open("wb") as file:
            write_parts(file, parts)
        return
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep(target)
    temporary = target.with_name(f".{target.name}-{secrets.token_hex(4)}.tmp")
    try:
        with naming(path, temporary), temporary.open("xb") as file:
            write_parts(file, parts)
            file.flush()
            os.fsync(file.fileno())
        if before is not None:
            before()
        with naming(path, temporary):
            temporary.replace(target)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)  # where something failed, or the user interrupted it


def write_all(files: Sequence[tuple[Path, bytes]], before: Callable[[], None]) -> None:
    """Write several files, or none: all are on the disk before any takes its name, the first one last.

    Args:
        files: paths, and their contents.
        before: called when all are on the disk, and none has its name yet.

    Raises:
        OSError: as `write_atomically`.
    """
    if not files:
        before()
        return
    (path, content), *others = files
    write_atomically(path, content, before=lambda: write_all(others, before))


def require_writable(folder: Path, fix: str) -> None:
    """Make a folder, and raise TransmiterError with its fix if nothing can be written to it."""
    with writable(folder, fix):
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass


@contextmanager
def writable(folder: Path, fix: str) -> Generator[None]:
    """Raise TransmiterError in place of an error of the system that a folder cannot be written to."""
    try:
        yield
    except OSError as error:
        raise TransmiterError(f"{folder} cannot be written to: {error.strerror}.", fix) from error


def held_lock(path: Path, timeout: float = 0.0) -> AbstractContextManager[object] | None:
    """A lock, held; None where there can be none: in a folder that is read-only, on a file system without locks.

    Args:
        path: the lock's file.
        timeout: how many seconds to wait for another process; for as long as it takes if negative.

    Raises:
        TimeoutError: if another process holds it for longer.
    """
    from filelock import FileLock

    try:
        return FileLock(path).acquire(timeout=timeout)
    except TimeoutError:
        raise
    except (OSError, NotImplementedError):
        return None


def sweep(target: Path) -> None:
    """Remove temporary files of a target that nobody has written to for a day; another process may be writing one."""
    for left in target.parent.glob(f".{escape(target.name)}-{'[0-9a-f]' * 8}.tmp"):
        with suppress(OSError):
            if left.stat().st_mtime < time.time() - ABANDONED:
                left.unlink()


@contextmanager
def naming(path: Path, written: Path) -> Generator[None]:
    """Let an error of the file that is written name what was asked for; that of a full disk names none."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(written)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_parts(file: BinaryIO, parts: Iterable[bytes | Iterable[bytes]]) -> None:
    """Write one part after the other."""
    for part in parts:
        file.writelines([part] if isinstance(part, bytes) else part)


def write_if_possible(path: Path, data: bytes) -> None:
    """Write what could be computed anew; a cache that is read-only or full is no reason to fail."""
    with suppress(OSError):
        write_atomically(path, data)


def file_identity(path: str) -> str:
    """A file's path and `file_state`, so that an edited file is a new one.

    Strings in place of Path objects: this is done for each of maybe a million images, before anything else.

    Raises:
        OSError: if there is no such file, or it is a folder, or a FIFO that might be waited for without end; the
            shell's own, of `<(...)` and /dev/stdin, are taken.
    """
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        real, status = os.path.realpath(path), os.stat(path)  # noqa: PTH116
    else:
        name = path.rpartition(os.sep)[2]
        real = real_folder(path[: len(path) - len(name)]) + name
    if not stat.S_ISREG(status.st_mode) and not real.startswith(SHELLS_OWN):
        what = "Is a directory" if stat.S_ISDIR(status.st_mode) else "Not a regular file"
        raise OSError(errno.EINVAL, what, path)
    return f"{real}|{file_state(status)}"


def file_state(status: os.stat_result) -> str:
    """A file's size, times of change and inode.

    Programs may set the first time; a folder that takes another's place brings files of the same times, which one
    archive held.
    """
    return f"{status.st_size}|{status.st_mtime_ns}|{status.st_ctime_ns}|{status.st_ino}"


@lru_cache(maxsize=1024)
def real_folder(folder: str) -> str:
    """A folder's path without symbolic links, ending in a separator; to find it takes far longer than a file's size."""
    return os.path.join(os.path.realpath(folder), "")  # noqa: PTH118
