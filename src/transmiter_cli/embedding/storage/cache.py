"""Where everything that can be made or fetched again is kept."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path

from transmiter_cli.errors import UsageError
from transmiter_cli.files import expanded, is_address, require_utf8_path

CACHE_VARIABLE = "TRANSMITER_CACHE"
ENCODERS = "encoders"
"""The folder of embeddings, by the model's fingerprint and precision."""
FACTS = "facts.json"
"""What is known of a model, in its folder."""
FLOPS = "image-flops.json"
"""How many operations an image costs, in its folder."""
CONTENTS = "contents"
"""The store of images' fingerprints."""
WEIGHTS = "weights"
"""The folder of digests of weight files."""


def default_cache() -> Path:
    """$TRANSMITER_CACHE, or the user's cache directory.

    Raises:
        UsageError: if the variable is an address, there is no home directory, or the path is no UTF-8.
    """
    named = os.environ.get(CACHE_VARIABLE)
    if named and is_address(named):
        raise UsageError(f"{CACHE_VARIABLE}={named} is an address; the cache is a folder.", f"{CACHE_VARIABLE}=FOLDER")
    try:
        cache = expanded(named or user_cache_path("transmiter"))
    except RuntimeError as error:  # platformdirs', of a user without a home
        raise UsageError("There is no home directory for the cache.", f"{CACHE_VARIABLE}=FOLDER") from error
    require_utf8_path(cache, f"{CACHE_VARIABLE}=FOLDER")
    return cache
