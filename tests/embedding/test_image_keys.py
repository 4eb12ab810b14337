from pathlib import Path

import numpy as np

from transmiter_cli.embedding.image_keys import image_key, image_keys
from transmiter_cli.embedding.sources import ImageFile
from transmiter_cli.embedding.storage.contents import Contents
from transmiter_cli.embedding.storage.index import key_digests
from transmiter_cli.embedding.views import View

FILE = ImageFile(Path("/"), "a.png")


def test_a_key_tells_apart_content_decoding_and_what_is_shown():
    keys = [
        image_key(FILE, b"place", b"one", "full"),
        image_key(FILE, b"place", b"other", "full"),
        image_key(FILE, b"place", b"one", "scaled"),
        image_key(View(FILE, 1, 0), b"place", b"one", "full"),
        image_key(View(FILE, 2, 0), b"place", b"one", "full"),
        image_key(View(FILE, 1, 1), b"place", b"one", "full"),
        image_key(View(ImageFile(Path("/"), "b/a.png"), 1, 0), b"place", b"one", "full"),
        image_key(View(FILE, 1, 0), b"place", b"one", "scaled"),
    ]
    assert len(set(keys)) == len(keys)


def test_the_same_content_has_the_same_key_wherever_it_lies():
    assert image_key(FILE, b"here", b"one", "full") == image_key(ImageFile(Path("/"), "b"), b"there", b"one", "full")


def test_what_cannot_be_read_is_known_by_its_place():
    assert image_key(FILE, b"here", b"", "full") != image_key(FILE, b"there", b"", "full")
    assert image_key(FILE, b"same", b"", "full") != image_key(FILE, b"place", b"same", "full")


def test_an_image_that_is_gone_has_an_empty_digest():
    contents = Contents(np.array([b"p", b"", b"q"], "S16"), np.array([b"one", b"", b""], "S16"))
    keys = image_keys([FILE] * 3, contents, "full")
    expected = [image_key(FILE, b"p", b"one", "full"), None, image_key(FILE, b"q", b"", "full")]
    assert keys.tolist() == key_digests(expected).tolist()
