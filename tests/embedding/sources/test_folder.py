import os
from pathlib import Path

import pytest

from tests.embedding.conftest import write_image
from transmiter_cli.embedding.sources import DataSpec, open_images
from transmiter_cli.errors import TransmiterError, UsageError


def names(images) -> list[str]:
    return [file.id for file in images.files]


def test_class_folders_are_sorted_and_give_labels(tmp_path: Path):
    for name in ("b/2.png", "b/1.JPG", "a/x/deep.png", ".hidden/3.png", "a/notes.txt", "stray.png"):
        write_image(tmp_path / name) if "." in name and not name.endswith("txt") else (tmp_path / name).touch()
    images = open_images(str(tmp_path), None)
    assert names(images) == ["a/x/deep.png", "b/1.JPG", "b/2.png"]
    assert images.label_names == ("a", "b")
    assert images.labels(("b", "a")) == [1, 0, 0]
    with pytest.raises(TransmiterError, match="class 'a'"):
        images.labels(("b", "c"))


def test_images_beside_class_folders_are_told_of_and_taken_where_no_label_is_needed(tmp_path: Path):
    for name in ("a/1.png", "stray.png", "A.png"):
        write_image(tmp_path / name)
    images = open_images(str(tmp_path), "test")
    assert (names(images), [file.id for file in images.beside]) == (["a/1.png"], ["A.png", "stray.png"])
    every = open_images(str(tmp_path), "test", labels=False)
    assert (names(every), every.beside) == (["A.png", "a/1.png", "stray.png"], ())
    assert not open_images(str(tmp_path / "a"), "test").beside


def test_images_beside_splits_are_taken_unless_a_split_is_asked_for(tmp_path: Path):
    for name in ("train/a/1.png", "test/a/2.png", "test/3.png", "4.png"):
        write_image(tmp_path / name)
    assert [file.id for file in open_images(str(tmp_path), "test").beside] == ["test/3.png", "4.png"]
    assert names(open_images(str(tmp_path), "test", labels=False)) == ["4.png", "test/3.png", "test/a/2.png"]
    asked = open_images(DataSpec(str(tmp_path), split="test"), None, labels=False)
    assert (names(asked), len(asked.beside)) == (["test/a/2.png"], 2)


def test_images_are_sorted_by_their_whole_path_and_classes_by_name(tmp_path: Path):
    for name in ("a/1.png", "a-b/2.png", "a b/3.png", "a.b/4.png", "ab/5.png"):
        write_image(tmp_path / name)
    (tmp_path / "loop").symlink_to("loop")
    images = open_images(str(tmp_path), None)
    assert names(images) == sorted(names(images))
    assert images.label_names == ("a", "a b", "a-b", "a.b", "ab")
    assert [file.label for file in images.files] == ["a b", "a-b", "a.b", "a", "ab"]


def test_splits_are_found_by_any_usual_name(tmp_path: Path):
    write_image(tmp_path / "Training" / "a" / "1.png")
    write_image(tmp_path / "valid" / "a" / "2.png")
    assert names(open_images(str(tmp_path), "train")) == ["Training/a/1.png"]
    assert names(open_images(str(tmp_path), "val")) == ["valid/a/2.png"]
    found = open_images(str(tmp_path), "test")
    assert (names(found), found.split) == (["valid/a/2.png"], "val")


def test_two_folders_of_one_split_are_named(tmp_path: Path):
    for name in ("Train", "train", "test"):
        write_image(tmp_path / name / "cat" / "1.png")
    with pytest.raises(TransmiterError, match="two folders of the train split, 'Train' and 'train'"):
        open_images(str(tmp_path), "train")


def test_a_missing_split_is_named_with_those_there_are(tmp_path: Path):
    write_image(tmp_path / "train" / "a" / "1.png")
    with pytest.raises(TransmiterError, match="no 'test' split, only train"):
        open_images(str(tmp_path), "test")


def test_data_without_splits_are_taken_whole(tmp_path: Path):
    write_image(tmp_path / "a" / "1.png")
    images = open_images(str(tmp_path), "test")
    assert (names(images), images.split) == (["a/1.png"], None)


def test_a_flat_folder_has_no_labels(tmp_path: Path):
    write_image(tmp_path / "2.png")
    write_image(tmp_path / "1.png")
    images = open_images(str(tmp_path), "train")
    assert (names(images), images.label_names) == (["1.png", "2.png"], ())
    with pytest.raises(TransmiterError, match="no labels"):
        images.labels(("a",))


def test_the_bundled_digits_are_there():
    train, test = open_images("demo-digits", "train"), open_images("demo-digits", "test")
    assert (len(train.files), len(test.files)) == (1198, 599)
    assert train.label_names == test.label_names
    assert not set(names(train)) & set(names(test))


def test_what_cannot_be_read_is_said(tmp_path: Path):
    with pytest.raises(UsageError, match="no folder"):
        open_images(str(tmp_path / "absent"), None)
    with pytest.raises(TransmiterError, match="holds no images"):
        open_images(str(tmp_path), None)
    write_image(tmp_path / "a" / "1.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(TransmiterError, match="class folder 'empty'"):
        open_images(str(tmp_path), None)
    with pytest.raises(UsageError, match="is a file"):
        open_images(str(tmp_path / "a" / "1.png"), None)


def test_a_class_folder_that_may_not_be_read_is_not_called_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_image(tmp_path / "a" / "1.png")
    (tmp_path / "closed").mkdir()
    is_file = Path.is_file

    def searched(path: Path) -> bool:
        if path.parent.name == "closed":
            raise PermissionError
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", searched)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "closed")  # root may read everything
    with pytest.raises(TransmiterError, match="'closed' in") as caught:
        open_images(str(tmp_path), None)
    assert caught.value.fix == f"chmod u+rx {tmp_path}/closed"


def test_images_that_pillow_may_not_decode_are_listed_so_that_it_is_said(tmp_path: Path):
    write_image(tmp_path / "a.png")
    for name in ("b.avif", "c.HEIC", "d.jfif", "e.txt", "f.json"):
        (tmp_path / name).write_bytes(b"x")
    assert names(open_images(str(tmp_path), None)) == ["a.png", "b.avif", "c.HEIC", "d.jfif"]


def test_a_class_called_train_is_a_class(tmp_path: Path):
    for name in ("bus", "car", "train"):
        write_image(tmp_path / name / "1.png")
    images = open_images(str(tmp_path), "train")
    assert (images.label_names, images.split) == (("bus", "car", "train"), None)


def test_hidden_folders_and_files_are_left_out(tmp_path: Path):
    for name in ("cat/1.png", "cat/.ipynb_checkpoints/1-checkpoint.png", "cat/.2.png", ".thumbs/3.png"):
        write_image(tmp_path / name)
    assert names(open_images(str(tmp_path), None)) == ["cat/1.png"]


@pytest.mark.parametrize("target", [".", "..", "../train/", "a", "outside"])
def test_a_link_that_would_give_images_a_second_class_is_named(tmp_path: Path, target: str):
    write_image(tmp_path / "outside" / "0.png")
    folder = tmp_path / "data" / "train"
    write_image(folder / "a" / "1.png")
    (folder / "b").symlink_to(tmp_path / "outside")
    assert open_images(str(tmp_path / "data"), "train").label_names == ("a", "b")
    (folder / "loop").symlink_to(tmp_path / "outside" if target == "outside" else target)
    with pytest.raises(TransmiterError, match=r"'loop' in .* is a link to .*: its images would count twice"):
        open_images(str(tmp_path / "data"), "train")


def test_a_link_to_its_own_flat_folder_is_no_class(tmp_path: Path):
    write_image(tmp_path / "1.png")
    (tmp_path / "loop").symlink_to(".")
    with pytest.raises(TransmiterError, match="'loop'"):
        open_images(str(tmp_path), None)
