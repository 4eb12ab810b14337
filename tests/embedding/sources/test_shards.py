import io
import os
import sys
import tarfile
from pathlib import Path

import pytest
import webdataset as wds
from PIL import Image

from transmiter_cli.embedding.decoding import Skipped
from transmiter_cli.embedding.sources import open_images
from transmiter_cli.embedding.sources.opening import lasting
from transmiter_cli.embedding.sources.spec import DataSpec
from transmiter_cli.embedding.storage.contents import place_of
from transmiter_cli.errors import TransmiterError, UsageError


def jpeg(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (12, 10), (shade, 0, 255 - shade)).save(file, "JPEG")
    return file.getvalue()


def write_shard(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Three shards of four images each, as the webdataset library itself writes them."""
    for number in range(3):
        with wds.TarWriter(str(tmp_path / f"pets-{number:03d}.tar")) as sink:
            for image in range(4):
                index = 4 * number + image
                sink.write({"__key__": f"{index:06d}", "jpg": jpeg(20 * index), "cls": index % 3})
    return tmp_path


def test_a_pattern_a_single_shard_and_a_folder(shards: Path):
    expected = [f"pets-{i // 4:03d}.tar/{i:06d}.jpg" for i in range(12)]
    pattern = open_images(str(shards / "pets-{000..002}.tar"), "train")
    assert [file.id for file in pattern.files] == expected
    assert open_images(str(shards), "train") == pattern
    assert [file.id for file in open_images(str(shards / "pets-001.tar"), None).files] == expected[4:8]
    assert pattern.label_names == ("0", "1", "2")
    assert pattern.labels(pattern.label_names) == [i % 3 for i in range(12)]


def test_images_are_read_at_their_place_in_any_order(shards: Path):
    files = open_images(str(shards), None).files
    for index in (11, 0, 6):
        assert files[index].open().read() == jpeg(20 * index)


def test_the_pixels_are_those_that_webdataset_reads(shards: Path):
    pattern = str(shards / "pets-{000..002}.tar")
    expected = [sample["jpg"] for sample in wds.WebDataset(pattern, shardshuffle=False)]
    assert [file.open().read() for file in open_images(pattern, None).files] == expected


def test_a_pattern_of_the_shell_is_told_what_to_write_in_its_place(shards: Path):
    with pytest.raises(UsageError, match="1 of 1 shards are missing") as caught:
        open_images(str(shards / "*.tar"), None)
    assert caught.value.fix == "name their folder, or the shards as NAME-{000..009}.tar"


def test_places_are_of_the_shard_and_the_member(shards: Path):
    first = {file.place() for file in open_images(str(shards), None).files}
    assert len(first) == 12
    os.utime(shards / "pets-001.tar", ns=(1, 1))
    assert len({file.place() for file in open_images(str(shards), None).files} - first) == 4


def test_a_shard_that_changed_since_it_was_listed_has_no_places(shards: Path):
    images = open_images(str(shards), None).files
    os.utime(shards / "pets-001.tar", ns=(1, 1))
    said = [place_of(image) for image in images]
    changed = [one for one in said if isinstance(one, Skipped)]
    assert len(changed) == 4
    assert {one.reason for one in changed} == {"its shard changed since it was listed"}


def test_names_come_from_a_file_beside_the_shards_or_above(tmp_path: Path):
    for part in ("train", "test"):
        write_shard(tmp_path / part / "0.tar", {"a.png": b"x", "a.cls": b"1", "b.png": b"y", "b.cls": b"0\n"})
    (tmp_path / "classnames.txt").write_text("cat\ndog\neel\n")
    write_shard(tmp_path / "test" / "1.tar", {"c.png": b"x", "c.cls": b"002"})
    images = open_images(str(tmp_path), "test")
    assert images.split == "test"
    assert [file.label for file in images.files] == ["dog", "cat", "eel"]
    assert images.label_names == ("cat", "dog", "eel")
    (tmp_path / "classnames.txt").write_text("cat\n")
    with pytest.raises(TransmiterError, match="1 names, but an image has the label 1"):
        open_images(str(tmp_path), "train")


def test_images_of_two_splits_have_ids_of_their_own(tmp_path: Path):
    for part in ("Train", "val"):
        write_shard(tmp_path / part / "000000.tar", {"0.png": b"x"})
    of_splits = [open_images(DataSpec(str(tmp_path), split=part), None).files[0].id for part in ("train", "val")]
    assert of_splits == ["Train/000000.tar/0.png", "val/000000.tar/0.png"]
    assert [file.id for file in open_images(str(tmp_path / "Train"), None).files] == ["000000.tar/0.png"]


def test_numbers_are_sorted_by_value(tmp_path: Path):
    members = {f"{i}.{suffix}": str(i).encode() for i in (10, 9, 2) for suffix in ("png", "cls")}
    images = open_images(str(write_shard(tmp_path / "0.tar", members)), None)
    assert [file.id for file in images.files] == ["0.tar/10.png", "0.tar/9.png", "0.tar/2.png"]
    assert images.label_names == ("2", "9", "10")


def test_images_without_labels_and_other_files(tmp_path: Path):
    members = {"README": b"hello", "dir/a.PNG": b"x", "dir/a.json": b"{}", "b.txt": b"no picture", ".hidden": b""}
    images = open_images(str(write_shard(tmp_path / "0.tar", members)), None)
    assert [file.id for file in images.files] == ["0.tar/dir/a.PNG"]
    assert (images.labelled, images.label_names) == (False, ())


def test_links_in_a_shard_are_no_images(tmp_path: Path):
    with tarfile.open(write_shard(tmp_path / "0.tar", {"a.png": b"x"}), "a") as archive:
        link = tarfile.TarInfo("b.png")
        link.type, link.linkname = tarfile.SYMTYPE, "a.png"
        archive.addfile(link)
    assert [file.id for file in open_images(str(tmp_path / "0.tar"), None).files] == ["0.tar/a.png"]


def test_a_tar_beside_photographs_does_not_hide_them(tmp_path: Path):
    write_shard(tmp_path / "backup.tar", {"a.png": b"x"})
    (tmp_path / "photo.png").touch()
    assert [file.id for file in open_images(str(tmp_path), None).files] == ["photo.png"]
    (tmp_path / "photo.png").unlink()
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "photo.png").touch()
    assert [file.id for file in open_images(str(tmp_path), None).files] == ["cats/photo.png"]


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"a.txt": b"x"}, "holds no images"),
        ({}, "holds no images"),
        ({"a.png": b"x", "a.cls": b"0", "b.png": b"y"}, r"1 of the 2 images .* have no label, the first in .*b\.png"),
        ({"a.png": b"x", "a.cls": b"\xff"}, r"label a\.cls in the shard .*0\.tar is not UTF-8"),
    ],
)
def test_shards_that_cannot_be_used_say_why(tmp_path: Path, members: dict[str, bytes], said: str):
    with pytest.raises(TransmiterError, match=said):
        open_images(str(write_shard(tmp_path / "0.tar", members)), None)


def test_a_name_that_occurs_twice(tmp_path: Path):
    shard = write_shard(tmp_path / "0.tar", {"a.png": b"x"})
    with tarfile.open(shard, "a") as archive:
        archive.addfile(tarfile.TarInfo("a.png"))
    with pytest.raises(TransmiterError, match=r"holds 'a\.png' twice"):
        open_images(str(shard), None)


@pytest.mark.parametrize("kept", [3072, 2660, 1736, 1536, 600])
def test_a_truncated_shard_is_named(tmp_path: Path, kept: int):
    shard = write_shard(tmp_path / "0.tar", {"a.png": bytes(900), "b.png": bytes(900)})
    shard.write_bytes(shard.read_bytes()[:kept])
    with pytest.raises(TransmiterError, match=r"0\.tar is (truncated|no tar file)"):
        open_images(str(shard), None)


def test_a_damaged_header_does_not_hide_the_images_behind_it(tmp_path: Path):
    shard = write_shard(tmp_path / "0.tar", {"a.png": bytes(900), "b.png": bytes(900)})
    content = bytearray(shard.read_bytes())
    content[1536:1600] = b"#" * 64
    shard.write_bytes(content)
    with pytest.raises(TransmiterError, match=r"0\.tar is truncated or damaged after 1 whole files"):
        open_images(str(shard), None)


def test_files_that_are_no_plain_tar(tmp_path: Path):
    with tarfile.open(tmp_path / "0.tar", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("a.png"))
    for content in (None, b"", b"hello" * 500):
        if content is not None:
            (tmp_path / "0.tar").write_bytes(content)
        with pytest.raises(TransmiterError, match="no tar file that can be read at any place"):
            open_images(str(tmp_path / "0.tar"), None)


def test_missing_shards_are_counted(shards: Path):
    with pytest.raises(UsageError, match=r"2 of 5 shards are missing, .*pets-003\.tar the first"):
        open_images(str(shards / "pets-{000..004}.tar"), None)


def test_without_the_library_the_extra_is_named(shards: Path, monkeypatch: pytest.MonkeyPatch):
    for module in ("webdataset", "webdataset.shardlists", "webdataset.tariterators"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match="webdataset library") as caught:
        open_images(str(shards / "pets-000.tar"), None)
    assert caught.value.fix == "pip install 'transmiter[webdataset]'"


def test_a_relative_pattern_means_the_same_from_everywhere(shards: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(shards)
    spec = lasting(DataSpec("pets-{000..001}.tar", limit=3))
    assert spec == DataSpec(str(shards / "pets-{000..001}.tar"), limit=3)
