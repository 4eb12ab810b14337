import os
from pathlib import Path

import pytest

from tests.embedding.conftest import write_image
from transmiter_cli.embedding.decoding import Skipped
from transmiter_cli.embedding.image_keys import KnownFiles, image_key, image_keys
from transmiter_cli.embedding.index import key_digests
from transmiter_cli.embedding.sources import ImageFile


@pytest.fixture
def files(tmp_path: Path) -> list[ImageFile]:
    return [ImageFile(tmp_path, write_image(tmp_path / f"{number}.png", shade=number).name) for number in range(3)]


def test_a_key_changes_with_the_file_and_with_the_way_it_is_decoded(files: list[ImageFile]):
    before, scaled = image_key(files[0]), image_key(files[0], "scaled")
    os.utime(files[0].path, ns=(1, 1))
    assert len({before, scaled, image_key(files[0])}) == 3


def test_an_image_that_is_gone_has_an_empty_digest_and_is_named(files: list[ImageFile]):
    files[1].path.unlink()
    keys, gone = image_keys(files, "full")
    assert keys.tolist() == key_digests([files[0].key(), None, files[2].key()]).tolist()
    assert gone == [Skipped(files[1].name, "No such file or directory")]


def test_known_files_are_not_looked_for_again_unless_they_are_decoded_otherwise(files: list[ImageFile]):
    known = KnownFiles(files, *image_keys(files, "full")[:1], "full")
    assert known == tuple(files)
    for file in files:
        file.path.unlink()
    assert image_keys(known, "full") == (known.keys, [])
    assert len(image_keys(known, "scaled")[1]) == len(files)
