from dataclasses import replace
from pathlib import Path

import pytest

from transmiter_cli.embedding.found import require_unchanged
from transmiter_cli.embedding.sources import ImageFile
from transmiter_cli.errors import TransmiterError

FILES = [ImageFile(Path("/data"), f"{name}.png", "a") for name in ("one", "two", "three")]


@pytest.mark.parametrize(
    "found", [FILES[:2], [*FILES, FILES[0]], [FILES[0], FILES[2], FILES[1]], [*FILES[:2], replace(FILES[2], label="b")]]
)
def test_other_images_than_a_model_read_before_are_refused(found: list[ImageFile]):
    require_unchanged(tuple(FILES), FILES)
    with pytest.raises(TransmiterError, match=r"Images changed while they were read\.") as caught:
        require_unchanged(found, FILES)
    assert caught.value.fix == "run the command again"
