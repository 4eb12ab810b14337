import json
from pathlib import Path
from typing import Any

import pytest

from tests.embedding.conftest import write_image
from transmiter_cli.embedding.sources import DataSpec, open_images
from transmiter_cli.errors import TransmiterError, UsageError

PARTS = {
    "train": [["pug_1.jpg", 1, "pug"], ["abyssinian_1.jpg", 2, "abyssinian"], ["pug_2.jpg", 1, "pug"]],
    "val": [],
    "test": [["cats/zebra_1.jpg", 0, "zebra"], ["pug_3.jpg", 1, "pug"]],
}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for part in PARTS.values():
        for path, _, _ in part:
            write_image(tmp_path / "images" / path)
    return tmp_path / "images"


def split_file(folder: Path, content: Any = PARTS) -> str:
    (folder / "split_zhou_Pets.json").write_text(json.dumps(content))
    return str(folder / "split_zhou_Pets.json")


def test_images_keep_the_files_order_and_classes_the_order_of_their_numbers(images: Path, tmp_path: Path):
    spec = DataSpec(split_file(tmp_path), root=str(images))
    train, test = open_images(spec, "train"), open_images(spec, "test")
    assert [file.id for file in train.files] == ["pug_1.jpg", "abyssinian_1.jpg", "pug_2.jpg"]
    assert train.label_names == test.label_names == ("zebra", "pug", "abyssinian")
    assert (train.labels(train.label_names), test.labels(train.label_names)) == ([1, 2, 1], [0, 1])
    assert test.files[0].open().read() == (images / "cats/zebra_1.jpg").read_bytes()


def test_an_empty_split_does_not_exist(images: Path, tmp_path: Path):
    with pytest.raises(UsageError, match="no 'val' split, only train, test"):
        open_images(DataSpec(split_file(tmp_path), root=str(images), split="val"), "train")


def test_a_wrong_root_is_said_with_the_first_path_tried(images: Path, tmp_path: Path):
    with pytest.raises(TransmiterError, match=r"None of the 3 images .* would be .*pug_1\.jpg") as caught:
        open_images(split_file(tmp_path), "train")
    assert "--root" in str(caught.value.fix)
    assert len(open_images(split_file(images), "train").files) == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (["a.jpg"], "no CoOp split file"),
        ({"train": "a.jpg"}, "no CoOp split file"),
        ({"train": [["pug_1.jpg", 0]]}, r"has \['pug_1.jpg', 0\] in place of"),
        ({"train": [["pug_1.jpg", "0", "pug"]]}, "in place of"),
        ({"train": [], "test": []}, "lists no images"),
        ({"train": [["pug_1.jpg", 0, "pug"], ["pug_2.jpg", 0, "cat"]]}, "two names for the class 0: 'pug' and 'cat'"),
        ({"train": [["pug_1.jpg", 0, "pug"], ["pug_2.jpg", 1, "pug"]]}, "two classes with the name 'pug'"),
        ({"validation": [["pug_1.jpg", 0, "pug"]], "val": [["pug_2.jpg", 0, "pug"]]}, "two lists of the val split"),
        ({"train": [["pug_1.jpg", 0, "pug"], ["pug_1.jpg", 0, "pug"]]}, r"lists the image 'pug_1\.jpg' twice"),
    ],
)
def test_files_that_are_no_split_files_are_refused(images: Path, content: Any, said: str):
    with pytest.raises(TransmiterError, match=said) as caught:
        open_images(split_file(images, content), "train")
    assert caught.value.fix


@pytest.mark.parametrize(
    "spelled", ["./pug_1.jpg", "cats/../pug_1.jpg", "cats//../pug_1.jpg", "alias/pug_1.jpg", "/./pug_1.jpg"]
)
def test_an_image_is_listed_once_however_its_path_is_spelled(images: Path, spelled: str):
    (images / "alias").symlink_to(images)
    content = {"train": [["pug_1.jpg", 0, "pug"], ["pug_2.jpg", 0, "pug"], [spelled, 1, "cat"]]}
    with pytest.raises(TransmiterError, match=r"lists the image 'pug_1\.jpg' twice, also as '.*/pug_1\.jpg'"):
        open_images(split_file(images, content), "train")


def test_text_that_is_no_json_is_refused(images: Path):
    (images / "split.json").write_text("{\n'train': []}")
    with pytest.raises(TransmiterError, match=r"Line 2 of .* no valid JSON: .* at column 1") as caught:
        open_images(str(images / "split.json"), "train")
    assert str(caught.value.fix).startswith("sed -n 2p")
    (images / "split.json").write_bytes(b'{"train": [["\xe9.jpg", 0, "x"]]}')
    with pytest.raises(TransmiterError, match="not UTF-8: byte 0xe9 in line 1"):
        open_images(str(images / "split.json"), "train")
