import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.embedding.conftest import write_image
from transmiter_cli.embedding.sources import DataSpec, open_images
from transmiter_cli.errors import TransmiterError, UsageError

LISTED = [("b.png", "dog"), ("a.png", "cat"), ("deep/c d.png", "dog")]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for name in ("b.png", "a.png", "deep/c d.png"):
        write_image(tmp_path / "pictures" / name)
    return tmp_path / "pictures"


def manifest(folder: Path, text: str, name: str = "list.csv") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def found(data: DataSpec | str, split: str | None = None) -> list[tuple[str, str | None]]:
    return [(file.id, file.label) for file in open_images(data, split).files]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.csv", "path,label\nb.png,dog\na.png,cat\ndeep/c d.png,dog\n"),
        ("list.csv", '\ufeffLabel, Path\r\ndog,./b.png\r\n"cat",a.png\r\ndog, "deep/../deep/c d.png"\r\n\r\n'),
        (
            "list.jsonl",
            '{"path": "b.png", "label": "dog"}\n\n{"label": "cat", "path": "a.png"}\n'
            '{"path": "deep/c d.png", "label": "dog", "taken": 2020}\n',
        ),
        ("list.csv", "Class,file_name\ndog,b.png\ncat,a.png\ndog,deep/c d.png\n"),
        ("list.csv", "path,image,class,label\nb.png,1,?,dog\na.png,2,?,cat\ndeep/c d.png,3,?,dog\n"),
        ("list.jsonl", "\n".join(json.dumps({"image": name, "category": label}) for name, label in LISTED)),
    ],
)
def test_images_keep_the_manifests_order_and_labels(pictures: Path, name: str, text: str):
    data = manifest(pictures, text, name)
    assert found(data) == [("b.png", "dog"), ("a.png", "cat"), ("deep/c d.png", "dog")]
    images = open_images(data, "train")
    assert (images.label_names, images.split, images.labels(("dog", "cat"))) == (("cat", "dog"), None, [0, 1, 0])
    assert images.files[2].open().read() == (pictures / "deep/c d.png").read_bytes()


def test_paths_start_from_the_root_or_are_absolute(pictures: Path, tmp_path: Path):
    data = manifest(tmp_path, f"path\na.png\n{pictures / 'b.png'}\n")
    images = open_images(DataSpec(data, root=str(pictures)), None)
    assert [file.open().read() for file in images.files] == [(pictures / n).read_bytes() for n in ("a.png", "b.png")]
    assert (images.labelled, images.label_names) == (False, ())


def test_splits_come_from_a_column_and_share_their_classes(pictures: Path):
    text = "path,label,split\nb.png,dog,Training\na.png,cat,validation\ndeep/c d.png,dog,extra\n"
    data = manifest(pictures, text)
    assert found(data, "train") == [("b.png", "dog")]
    assert found(data, "test") == [("a.png", "cat")]
    images = open_images(DataSpec(data, split="extra"), "train")
    assert (images.split, images.label_names, len(images.files)) == ("extra", ("cat", "dog"), 1)
    with pytest.raises(UsageError, match="has no 'test' split, only train, val, extra"):
        open_images(DataSpec(data, split="test"), "train")


@pytest.mark.parametrize("column", ["set", "Subset", "partition", "phase"])
def test_a_column_of_usual_splits_may_be_called_otherwise(pictures: Path, column: str):
    data = manifest(pictures, f"path,{column}\nb.png,Train\na.png,valid\ndeep/c d.png,train\n")
    assert found(data, "train") == [("b.png", None), ("deep/c d.png", None)]
    assert found(data, "test") == [("a.png", None)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.csv", "path,set\nb.png,1\na.png,2\n"),
        ("list.jsonl", '{"path": "b.png", "set": ["train"]}\n{"path": "a.png", "set": 7}\n'),
    ],
)
def test_a_column_that_has_other_values_is_no_split(pictures: Path, name: str, text: str):
    assert found(manifest(pictures, text, name), "train") == [("b.png", None), ("a.png", None)]


def test_the_column_split_counts_before_another(pictures: Path):
    data = manifest(pictures, "path,split,set\nb.png,test,train\na.png,train,train\n")
    assert found(data, "train") == [("a.png", None)]


def test_an_unlabelled_split_beside_a_labelled_one(pictures: Path):
    data = manifest(pictures, "path,label,split\nb.png,,train\na.png,cat,test\ndeep/c d.png,dog,test\n")
    train = open_images(data, "train")
    assert (train.labelled, train.label_names) == (False, ("cat", "dog"))
    with pytest.raises(TransmiterError, match="no labels"):
        train.labels(train.label_names)
    assert open_images(data, "test").labels(("cat", "dog")) == [0, 1]


def test_a_split_asked_of_data_without_splits(pictures: Path):
    data = manifest(pictures, "path\na.png\n")
    with pytest.raises(UsageError, match="has no splits") as caught:
        open_images(DataSpec(data, split="val"), "train")
    assert caught.value.fix == "leave --split out"


def test_numbers_are_labels(pictures: Path):
    assert found(manifest(pictures, '{"path": "a.png", "label": 3}\n', "l.jsonl")) == [("a.png", "3")]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("l.csv", "photo,label\na.png,cat\n", r"no column named path; its first line is 'photo,label'"),
        ("l.csv", "", "no column named path"),
        ("l.csv", "path,label\n", "lists no images"),
        ("l.csv", "path,label\na.png,cat\nb.png,\n", r"1 of the 2 images of .* have no label, the first in line 3"),
        ("l.csv", "path,label\na.png,cat\nb.png,dog\n./a.png,cat\n", r"'a\.png' twice, in line 2 and in line 4"),
        ("l.csv", "path,label,label\na.png,cat,dog\n", r"l\.csv has 2 columns named label"),
        ("l.csv", "Path,Label,label,note,note\na.png,cat,dog,1,2\n", r"l\.csv has 2 columns named label"),
        ("l.csv", "file_name,split,file_name\na.png,train,b.png\n", r"l\.csv has 2 columns named file_name"),
        ("l.csv", "path,label\na.png,cat,dog\n", "Line 2 of .* has more fields than the header"),
        ("l.csv", "path,label\n,cat\n", "Line 2 of .* has no path"),
        ("l.csv", 'path,label\n"a.png,cat\n', "Line 2 of .* no valid CSV"),
        ("l.csv", 'path,label\r\na.png,cat\r\n\r\n\r\n\r\n"b.png,cat\r\n', "Line 6 of .* no valid CSV"),
        ("l.jsonl", "\n" + "[" * 100_000, "Line 2 of .* no valid JSON"),
        ("l.csv", "path,split\na.png,train\nb.png,\n", "Line 3 of .* names no split"),
        ("l.csv", "path,set\na.png,train\nb.png,hold\n", "has splits, but 'hold' in line 3"),
        ("l.csv", "path,set\na.png,train\nb.png,\n", "has splits, but 'nothing' in line 3"),
        ("l.csv", "path,label\nx.png,cat\ny.png,dog\n", r"None of the 2 images that l\.csv lists is in"),
        ("l.jsonl", '{"path": "a.png"}\n{"path": \n', "Line 2 of .* no valid JSON"),
        ("l.jsonl", '{"photo": "a.png"}\n', 'no object with the key "path"'),
        ("l.jsonl", '["a.png"]\n', 'no object with the key "path"'),
        ("l.jsonl", '{"path": "a.png", "label": ["cat"]}\n', "label in line 1 .* is no text"),
        ("l.jsonl", '{"path": 3}\n', "path in line 1 .* is no text, but 3"),
        ("l.jsonl", "\n", "lists no images"),
        ("l.jsonl", '{"path": "a\\u0000.png"}\n', "path in line 1 .* holds a NUL character"),
        ("l.jsonl", '{"path": "\\ud83d.png"}\n', "path in line 1 .* half of a surrogate pair"),
    ],
)
def test_manifests_that_cannot_be_used_say_where(pictures: Path, name: str, text: str, said: str):
    with pytest.raises(TransmiterError, match=said):
        open_images(manifest(pictures, text, name), None)


@pytest.mark.parametrize("text", [",path,label,\n0,a.png,cat,2\n", "note,note,label,path\n1,2,cat,a.png\n"])
def test_columns_that_are_not_read_may_have_any_name_or_none(pictures: Path, text: str):
    images = open_images(manifest(pictures, text), "test")
    assert [(file.id, file.label) for file in images.files] == [("a.png", "cat")]
    assert images.split is None


@pytest.mark.parametrize("spelled", ["{root}/b.png", "{root}/deep/../b.png", "alias/b.png", "../pictures/b.png"])
def test_an_image_is_listed_once_however_its_path_is_spelled(pictures: Path, spelled: str):
    (pictures / "alias").symlink_to(pictures)
    again = spelled.format(root=pictures)
    data = manifest(pictures, f"path,label,split\nb.png,dog,train\na.png,cat,test\n{again},cat,test\n")
    with pytest.raises(TransmiterError, match=r"lists 'b\.png' twice, in line 2 and, as '.*b\.png', in line 4\."):
        open_images(data, "train")


def test_a_manifest_in_another_encoding_says_which_byte_and_how_to_convert(pictures: Path):
    (pictures / "l.csv").write_bytes("path,label\na.png,chat\nb.png,chèvre\n".encode("latin-1"))
    with pytest.raises(TransmiterError, match="not UTF-8: byte 0xe8 in line 3") as caught:
        open_images(str(pictures / "l.csv"), None)
    assert str(caught.value.fix).startswith("iconv -f LATIN1 -t UTF-8")


LATIN = os.fsdecode(b"latin-\xe9.png")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("l.csv", b"path,label\nlatin-\xe9.png,cat\na.png,dog\n"),
        ("l.jsonl", rb'{"path": "latin-\udce9.png", "label": "cat"}' + b'\n{"path": "a.png", "label": "dog"}\n'),
    ],
)
def test_file_names_that_are_not_utf8_are_found(pictures: Path, name: str, content: bytes):
    write_image(pictures / LATIN)
    (pictures / name).write_bytes(content)
    images = open_images(str(pictures / name), None)
    assert [file.id for file in images.files] == [LATIN, "a.png"]
    assert images.files[0].open().read() == (pictures / LATIN).read_bytes()


@pytest.mark.parametrize(("content", "line"), [(b"path\na.png\nlatin-\xe9.png\n", 3), (b"p\xe4th\n", 1)])
def test_bytes_that_are_in_no_file_name_are_an_error(pictures: Path, content: bytes, line: int):
    (pictures / "l.csv").write_bytes(content)
    with pytest.raises(TransmiterError, match=f"not UTF-8: byte 0x.. in line {line}") as caught:
        open_images(str(pictures / "l.csv"), None)
    assert ("--root FOLDER" in str(caught.value.fix)) == (line == 3)


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_the_command_that_converts_a_list_makes_one_that_can_be_read(pictures: Path, encoding: str):
    old = pictures / "my list.csv"
    old.write_text("path,label\na.png,Bär\nb.png,Dachs\n", encoding=encoding)
    with pytest.raises(TransmiterError, match=r"UTF-16|not UTF-8") as caught:
        open_images(str(old), None)
    subprocess.run(str(caught.value.fix), shell=True, check=True)
    images = open_images(str(pictures / "my list-utf8.csv"), None)
    assert [file.label for file in images.files] == ["Bär", "Dachs"]


def test_paths_as_windows_writes_them_are_told(pictures: Path):
    (pictures / "sub").mkdir()
    write_image(pictures / "sub" / "x.png")
    with pytest.raises(TransmiterError, match="None of the 1 images") as caught:
        open_images(manifest(pictures, "path\nsub\\x.png\n"), None)
    assert caught.value.fix == "write / in place of \\ in the paths of list.csv"


def test_one_missing_image_is_left_for_the_encoder_to_skip(pictures: Path):
    assert len(found(manifest(pictures, "path\na.png\nabsent.png\n"))) == 2


def test_files_and_roots_that_do_not_exist(pictures: Path, tmp_path: Path):
    with pytest.raises(UsageError, match=r"no file .*absent\.csv"):
        open_images(str(tmp_path / "absent.csv"), None)
    data = manifest(pictures, "path\na.png\n")
    with pytest.raises(UsageError, match="no folder 'absent' for --root"):
        open_images(DataSpec(data, root="absent"), None)


def test_many_rows_are_read_in_order(tmp_path: Path):
    write_image(tmp_path / "0.png")
    lines = [json.dumps({"path": f"{number}.png", "label": str(number % 3)}) for number in range(2000)]
    images = open_images(manifest(tmp_path, "\n".join(lines), "l.jsonl"), None)
    assert [file.id for file in images.files] == [f"{number}.png" for number in range(2000)]


@pytest.mark.parametrize("name", ["l.jsonl", "l.csv"])
def test_spaces_around_a_path_are_its_own_where_there_is_such_a_file(pictures: Path, name: str):
    shutil.copy(pictures / "a.png", pictures / "a.png ")
    listed = ["a.png ", " b.png"]
    json_lines = "\n".join(json.dumps({"path": path}) for path in listed)
    content = json_lines if name == "l.jsonl" else "\n".join(["path", *(f'"{path}"' for path in listed)])
    assert [path for path, _ in found(manifest(pictures, content, name))] == ["a.png ", "b.png"]
