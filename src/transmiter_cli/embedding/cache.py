"""Where everything that can be made or fetched again is kept."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path

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
    """$TRANSMITER_CACHE, or the user's cache directory."""
    return Path(os.environ.get(CACHE_VARIABLE) or user_cache_path("transmiter")).expanduser()
