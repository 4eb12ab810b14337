"""Whether images that are evaluated on were used before: by the content of their files, wherever they lie now."""

from __future__ import annotations

import re
import shlex
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Literal, get_args

from transmiter_cli.embedding.contents import as_text
from transmiter_cli.embedding.sources import ImageRecord
from transmiter_cli.embedding.workspace import Workspace
from transmiter_cli.errors import TransmiterError
from transmiter_cli.files import write_atomically
from transmiter_cli.layout import LATER, SEEN
from transmiter_cli.run import Run

Use = Literal["fit", "transfer", "self-train", "refine"]
FILES: dict[Use, str] = {use: f"{SEEN}{use}.txt" for use in get_args(Use)}
"""Where a run keeps the fingerprints of the images that a command used, one a line; transfer's beyond fit's."""


def remember(use: Use, used: Iterable[str], run: Run) -> None:
    """Write down the fingerprints of the images that a command used, in place of those of its last time."""
    write_atomically(run.path / FILES[use], listed(used))


def listed(used: Iterable[str]) -> bytes:
    """The fingerprints of images as a run keeps them: each once, sorted, one a line."""
    return "".join(f"{fingerprint}\n" for fingerprint in sorted(set(used))).encode()


def remember_transfer(files: Sequence[ImageRecord], run: Run, workspace: Workspace) -> None:
    """Add images that a transfer is about to learn from to those of earlier ones, as far as fit did not see them.

    It is said where there are such images, or fewer than fit saw.
    """
    seen = remembered("fit", run)
    if seen is None:  # then eval says that nobody knows, whatever transfer used
        return
    used = set(fingerprints(files, workspace))
    more, fewer = used - seen, seen - used
    if more:
        remember("transfer", more | (remembered("transfer", run) or set()), run)
    if more or fewer:
        workspace.reporter.warn(
            f"The images are not those that fit saw: {len(more):,} more, {len(fewer):,} fewer (by their content)."
        )


@contextmanager
def remembering(use: Use, files: Sequence[ImageRecord], run: Run, workspace: Workspace) -> Generator[None]:
    """Write down which images went into an artefact that is written meanwhile.

    They are added before, so that a kill leaves no image unsaid, and stand alone afterwards, unless another strong
    model's artefact of that name stays.
    """
    used = set(fingerprints(files, workspace))
    remember(use, used | (remembered(use, run) or set()), run)
    yield
    if sum(LATER.get(one.row) == use for one in run.made()) == 1:
        remember(use, used, run)


def forget_unused(run: Run) -> None:
    """Forget which images went into what self-train or refine made where nothing of it is left."""
    there = {one.row for one in run.made()}
    for row, use in LATER.items():
        if row not in there:
            (run.path / FILES[use]).unlink(missing_ok=True)


def remembered(use: Use, run: Run) -> set[str] | None:
    """The fingerprints of the images that a command used; None if the run does not say.

    Raises:
        TransmiterError: if the file that says so is damaged.
    """
    path = run.path / FILES[use]
    if not path.is_file():
        return None
    content = path.read_bytes()
    if not re.fullmatch(rb"(?:[0-9a-f]{32}\n)*+", content):
        raise TransmiterError(
            f"{path} is damaged: nobody can tell which images {use} used.",
            f"rm {shlex.quote(str(path))}, then {use} again",
        )
    return set(content.decode().split())


def overlap(files: Sequence[ImageRecord], run: Run, workspace: Workspace) -> dict[Use, list[ImageRecord]] | None:
    """Those of the images that each command of the run used; None if the run does not say which it used."""
    used: dict[Use, set[str]] = {use: known for use in FILES if (known := remembered(use, run)) is not None}
    if "fit" not in used:
        return None
    asked = fingerprint_of_each(files, workspace)
    return {use: [file for file, one in zip(files, asked, strict=True) if one in known] for use, known in used.items()}


def fingerprints(files: Sequence[ImageRecord], workspace: Workspace) -> list[str]:
    """The fingerprints of the images that can be read."""
    return [one for one in fingerprint_of_each(files, workspace) if one is not None]


def fingerprint_of_each(files: Sequence[ImageRecord], workspace: Workspace) -> list[str | None]:
    """SHA-256 of the images' contents, the first 128 bits; None for those that cannot be read."""
    contents, _ = workspace.contents.of(files)
    return [as_text(one) if one else None for one in contents.fingerprints.tolist()]
