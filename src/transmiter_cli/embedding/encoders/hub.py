"""Files of the Hugging Face hub: taken from this disk where they are there, else downloaded, else a clear error."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transmiter_cli.errors import TransmiterError, first_line


def hub_cache() -> Path:
    """Where the hub's client keeps files: $HF_HUB_CACHE, $HF_HOME/hub, or ~/.cache/huggingface/hub."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids the network."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def cached_file(repository: str, names: Sequence[str]) -> Path | None:
    """The first of several files of a repository that is on this disk."""
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(repository, name) for name in names)
    return next((Path(path) for path in found if isinstance(path, str)), None)


def hub_file(repository: str, names: Sequence[str], purpose: str) -> Path:
    """The first of several files of a repository, downloaded unless it is on this disk.

    Args:
        repository: "org/name".
        names: what the file may be called, best first.
        purpose: what it is, for the error: "the weights of ViT-B/32".

    Raises:
        TransmiterError: if it is not here and cannot be downloaded.
    """
    found = cached_file(repository, names)
    if found is not None:
        return found
    if is_offline():
        raise missing_file(repository, names[:1], purpose, "HF_HUB_OFFLINE forbids to download it")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    reason: Exception | None = None
    for name in names:
        try:
            return Path(hf_hub_download(repository, name))
        except LocalEntryNotFoundError as error:  # the client's words for a hub that cannot be reached
            raise missing_file(repository, names[:1], purpose, "the hub cannot be reached") from error
        except EntryNotFoundError as error:  # another name may be there
            reason = error
        # This broad, since the client's errors have no base in common: its own, those of its transport (requests, httpx
        # or another, by version), those of xet. Nothing of ours is called here.
        except Exception as error:
            raise missing_file(repository, names[:1], purpose, first_line(error)) from error
    raise missing_file(repository, names[:1], purpose, first_line(reason)) from reason


def missing_file(repository: str, names: Sequence[str], purpose: str, reason: str) -> TransmiterError:
    """The error for files that are neither on this disk nor could be downloaded."""
    files = f"{' and '.join(names)} of {repository} {'is' if len(names) == 1 else 'are'}"
    return TransmiterError(
        f"{purpose[:1].upper()}{purpose[1:]} cannot be had: {files} not in {hub_cache()}, and {reason}.",
        f"HF_HUB_OFFLINE=0 hf download {repository} {' '.join(names)}",
    )
