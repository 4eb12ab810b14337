"""Whether images that are evaluated on were used before: by the content of their files, wherever they lie now."""

from __future__ import annotations

import re
import shlex
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path

from transmiter_cli.embedding.sources import ImageRecord
from transmiter_cli.embedding.storage.contents import as_text
from transmiter_cli.embedding.workspace import Workspace
from transmiter_cli.errors import TransmiterError
from transmiter_cli.files import write_atomically
from transmiter_cli.layout import LATER, SEEN, Use, artefacts_in, command_of
from transmiter_cli.reporter import Reporter
from transmiter_cli.run import Run
from transmiter_cli.task.finetuned import PROBE


def remember(use: Use, used: Iterable[str], folder: Path) -> None:
    """Write down the fingerprints of the images that a command used, in place of those of its last time.

    Args:
        use: the command.
        used: the fingerprints.
        folder: that of the run for fit, that of the strong model's artefacts for the others.
    """
    write_atomically(folder / SEEN[use], listed(used))


def listed(used: Iterable[str]) -> bytes:
    """The fingerprints of images as a run keeps them: each once, sorted, one a line."""
    return "".join(f"{fingerprint}\n" for fingerprint in sorted(set(used))).encode()


@contextmanager
def remembering(
    use: Use,
    files: Sequence[ImageRecord],
    home: Path,
    run: Run,
    workspace: Workspace,
    artefacts: int = 1,
    others: Sequence[Run] = (),
) -> Generator[None]:
    """Write down which images went into artefacts that are written meanwhile; of transfer, those that fit did not see.

    They are added before, so that a kill leaves no image unsaid, and stand alone afterwards, unless other artefacts of
    that command stay.

    Args:
        use: the command.
        files: the images.
        home: the folder of the strong model's artefacts.
        run: the run.
        workspace: the cache.
        artefacts: how many artefacts of the command are written.
        others: runs whose fine-tuned models were asked, too.
    """
    used = set(fingerprints(files, workspace)).union(*(probed(other, workspace.reporter) for other in others))
    if use == "transfer":
        used -= remembered("fit", run.path) or set()
    remember(use, used | (remembered(use, home) or set()), home)
    yield
    if sum(command_of(row) == use for row in artefacts_in(home)) == artefacts:
        remember(use, used, home)


def probed(run: Run, reporter: Reporter) -> set[str]:
    """The images whose labels a run's own probe learned; it is said so where the run does not tell which."""
    if PROBE not in run.task().finetuned:
        return set()
    seen = remembered("fit", run.path)
    if seen is None:
        reporter.warn(f"{run.path} does not say which images its probe learned, so eval cannot refuse them.")
    return seen or set()


def tell_changes(files: Sequence[ImageRecord], run: Run, workspace: Workspace, asked: bool) -> None:
    """Say so where images, by their content, are more or fewer than fit saw, as far as the run says which it saw.

    Args:
        files: the images.
        run: the run.
        workspace: the cache, and what says it.
        asked: whether others were asked for: then it is no warning.
    """
    seen, now = remembered("fit", run.path), set(fingerprints(files, workspace))
    if seen is not None and seen != now:
        changes = f"{len(now - seen):,} more, {len(seen - now):,} fewer (by their content)"
        say = workspace.reporter.note if asked else workspace.reporter.warn
        say(f"The images are not those that fit saw: {changes}.")


def forget_unused(run: Run) -> None:
    """Forget which images went into what self-train or refine made where nothing of it is left."""
    for home in map(run.home, run.strong_models()):
        there = artefacts_in(home)
        for row, use in LATER.items():
            if row not in there:
                (home / SEEN[use]).unlink(missing_ok=True)


def remembered(use: Use, folder: Path) -> set[str] | None:
    """The fingerprints of the images that a command used, by the folder where it wrote them down; None if it did not.

    Raises:
        TransmiterError: if the file that says so is damaged.
    """
    path = folder / SEEN[use]
    if not path.is_file():
        return None
    content = path.read_bytes()
    if not re.fullmatch(rb"(?:[0-9a-f]{32}\n)*+", content):
        raise TransmiterError(
            f"{path} is damaged: nobody can tell which images {use} used.",
            f"rm {shlex.quote(str(path))}, then {use} again",
        )
    return set(content.decode().split())


def overlap(
    files: Sequence[ImageRecord], run: Run, strong: str, workspace: Workspace
) -> dict[Use, list[ImageRecord]] | None:
    """Those of the images that fit used, and each command behind a strong model's artefacts; None if fit does not say.

    Raises:
        TransmiterError: if a file that says so is damaged.
    """
    home = run.home(strong)
    said: dict[Use, set[str] | None] = {use: remembered(use, run.path if use == "fit" else home) for use in SEEN}
    if said["fit"] is None:
        return None
    asked = fingerprint_of_each(files, workspace)
    return {
        use: [file for file, one in zip(files, asked, strict=True) if one in used]
        for use, used in said.items()
        if used is not None
    }


def fingerprints(files: Sequence[ImageRecord], workspace: Workspace) -> list[str]:
    """The fingerprints of the images that can be read."""
    return [one for one in fingerprint_of_each(files, workspace) if one is not None]


def fingerprint_of_each(files: Sequence[ImageRecord], workspace: Workspace) -> list[str | None]:
    """SHA-256 of the images' contents, the first 128 bits; None for those that cannot be read."""
    contents = workspace.contents.of(files, workspace.reporter)
    return [as_text(one) if one else None for one in contents.fingerprints.tolist()]
