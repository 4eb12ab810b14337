"""Where everything that can be made or fetched again is kept."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path

from transmiter_cli.errors import UsageError
from transmiter_cli.files import is_address

CACHE_VARIABLE = "TRANSMITER_CACHE"
ENCODERS = "encoders"
"""The folder of embeddings, by the model's fingerprint and precision."""
FACTS = "facts.json"
"""What is known of a model, in its folder."""
CONTENTS = "contents"
"""The store of images' fingerprints."""
WEIGHTS = "weights"
"""The folder of digests of weight files."""


def default_cache() -> Path:
    """$TRANSMITER_CACHE, or the user's cache directory.

    Raises:
        UsageError: if the variable is an address.
    """
    named = os.environ.get(CACHE_VARIABLE)
    if named and is_address(named):
        raise UsageError(f"{CACHE_VARIABLE}={named} is an address; the cache is a folder.", f"{CACHE_VARIABLE}=FOLDER")
    return Path(named or user_cache_path("transmiter")).expanduser()
