"""Parquet files as Hugging Face writes them, and as others do."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from transmiter_cli.embedding.sources import open_images, parquet
from transmiter_cli.embedding.sources.opening import lasting
from transmiter_cli.embedding.sources.spec import DataSpec
from transmiter_cli.embedding.storage.contents import Skipped, place_of
from transmiter_cli.errors import TransmiterError, UsageError

NAMES = ["cat", "dog", "eel"]


def png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (12, 10), (shade, 0, 255 - shade)).save(file, "PNG")
    return file.getvalue()


def write(
    path: Path,
    columns: dict[str, Sequence[Any]],
    features: dict[str, Any] | None = None,
    rows: int = 4,
    types: dict[str, pa.DataType] | None = None,
) -> Path:
    """A file of these columns, in row groups of so many rows, described as Hugging Face does."""
    arrays = {name: pa.array(values, (types or {}).get(name)) for name, values in columns.items()}
    table = pa.table(arrays)
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=rows)
    return path


def as_hugging_face(path: Path, shades: Sequence[int], labels: Sequence[int | None]) -> Path:
    columns = {"image": [{"bytes": png(shade), "path": None} for shade in shades], "label": labels}
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": NAMES}}
    return write(path, columns, features, types={"label": pa.int64()})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Ten train images in two files and four test images, laid out as on the hub."""
    (tmp_path / "README.md").write_text("---\ndataset_info: {}\n---\n")
    for number, some in enumerate((range(6), range(6, 10))):
        file = tmp_path / "data" / f"train-{number:05d}-of-00002.parquet"
        as_hugging_face(file, [20 * i for i in some], [i % 2 for i in some])
    as_hugging_face(tmp_path / "data" / "validation-00000-of-00001-a09b74b3ef9c3b56.parquet", [7, 8, 9, 10], [2] * 4)
    return tmp_path


def test_a_data_set_of_the_hub_has_splits_names_and_images_in_order(data: Path):
    found = open_images(str(data), "train")
    files = [f"data/train-{i // 6:05d}-of-00002.parquet/{i - 6 * (i // 6)}" for i in range(10)]
    assert [file.id for file in found.files] == files
    assert found.label_names == tuple(NAMES), "also those without images"
    assert [file.label for file in found.files] == [NAMES[i % 2] for i in range(10)]
    assert found.split == "train"
    assert [file.open().read() for file in found.files] == [png(20 * i) for i in range(10)]
    assert [file.label for file in open_images(str(data), "test").files] == ["eel"] * 4
    assert open_images(str(data / "data"), "val").split == "val"


def test_a_single_file_is_read_whole(data: Path):
    found = open_images(str(data / "data" / "train-00001-of-00002.parquet"), "train")
    assert [file.id for file in found.files] == [f"train-00001-of-00002.parquet/{i}" for i in range(4)]
    assert found.split is None


def test_splits_may_be_folders_or_there_may_be_none(data: Path, tmp_path: Path):
    for split in ("train", "test"):
        as_hugging_face(tmp_path / "folders" / split / "part-0.parquet", [1, 2], [0, 1])
    assert [file.id for file in open_images(str(tmp_path / "folders"), "test").files] == [
        "test/part-0.parquet/0", "test/part-0.parquet/1",
    ]  # fmt: skip
    for name in ("a.parquet", "b.PQ", ".c.parquet"):
        as_hugging_face(tmp_path / "plain" / name, [1, 2], [0, 1])
    found = open_images(str(tmp_path / "plain"), "train")
    assert ([file.id for file in found.files], found.split) == (
        ["a.parquet/0", "a.parquet/1", "b.PQ/0", "b.PQ/1"],
        None,
    )


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.parquet", "train"),
        ("test_00000.parquet", "test"),
        ("validation-1.parquet", "val"),
        ("dev-00000-of-00001.parquet", "val"),
        ("eval.parquet", "test"),
        ("unsupervised-00000-of-00001.parquet", "unsupervised"),
        ("stats.parquet", None),
        ("trainer.parquet", None),
        ("train_small.parquet", None),
    ],
)
def test_a_name_says_the_split(name: str, split: str | None):
    assert parquet.split_of(Path(name)) == split


def test_a_file_that_may_be_of_any_split_is_refused_beside_those_of_one(data: Path):
    as_hugging_face(data / "data" / "stats.parquet", [1], [0])
    with pytest.raises(TransmiterError, match=r"names of stats\.parquet in .* do not say which split"):
        open_images(str(data), "train")


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["train-00000-of-00002"], "train-00000-of-00002"),
        (["train-00000-of-00001", "train-00000-of-00002", "train-00001-of-00002"], "train-00000-of-00001"),
        (["train-00000-of-00001-0123456789abcdef", "train-00000-of-00001"], "train-00000-of-00001"),
        (["train/train-00000-of-00003", "test/test-00000-of-00001"], "train-00000-of-00003"),
        (["train-00000-of-00001", "train"], "train-00000-of-00001"),
        (["train-00000-of-00001", "training-00000-of-00001"], "train-00000-of-00001"),
    ],
)
def test_parts_of_a_data_set_are_all_there_once(tmp_path: Path, names: list[str], told: str):
    for name in names:
        as_hugging_face(tmp_path / f"{name}.parquet", [1, 2], [0, 1])
    with pytest.raises(TransmiterError, match=f"The files of train in .* are not those of one data set.*: {told}"):
        open_images(str(tmp_path), "train")


@pytest.mark.parametrize("second", ["test.parquet", "data/test.parquet", "data/train/0.parquet"])
def test_tables_in_several_places_are_no_data_set(tmp_path: Path, second: str):
    for name in ("train/0.parquet", "test/0.parquet", second):
        as_hugging_face(tmp_path / name, [1, 2], [0, 1])
    with pytest.raises(TransmiterError, match=r"There are Parquet files in .* and "):
        open_images(str(tmp_path), "train")


def test_split_folders_may_lie_in_data(tmp_path: Path):
    for split in ("train", "test"):
        as_hugging_face(tmp_path / "data" / split / "0000.parquet", [1, 2], [0, 1])
    assert [file.id for file in open_images(str(tmp_path), "test").files] == [
        "data/test/0000.parquet/0", "data/test/0000.parquet/1",
    ]  # fmt: skip


def test_a_folder_of_images_and_of_tables_is_named_more_closely(data: Path, tmp_path: Path):
    (data / "banner.png").write_bytes(png(1))
    with pytest.raises(UsageError, match=r"holds Parquet files, train-00000-of-00002\.parquet for one, and images"):
        open_images(str(data), "train")
    assert len(open_images(str(data / "data"), "train").files) == 10
    as_hugging_face(tmp_path / "own" / "pets.parquet", [1], [0])
    (tmp_path / "own" / "cat").mkdir()
    (tmp_path / "own" / "cat" / "1.png").write_bytes(png(1))
    with pytest.raises(UsageError, match=r"holds Parquet files, pets\.parquet for one"):
        open_images(str(tmp_path / "own"), None)


def test_a_run_among_the_tables_hides_none(data: Path):
    (data / "data" / "transmiter-run").mkdir()
    (data / "data" / "transmiter-run" / "run.json").write_text("{}")
    for folder in (data, data / "data"):
        assert len(open_images(str(folder), "train").files) == 10


def test_bytes_and_texts_need_no_description(tmp_path: Path):
    columns = {"jpg": [png(1), png(2), png(3)], "category": ["red", "blue", "red"], "width": [12, 12, 12]}
    found = open_images(str(write(tmp_path / "own.parquet", columns)), None)
    assert found.label_names == ("blue", "red")
    assert found.files[2].open().read() == png(3)
    numbers = write(tmp_path / "numbers.parquet", {**columns, "category": [10, 9, 10]})
    assert open_images(str(numbers), None).label_names == ("9", "10")


def test_rows_without_a_class_are_unlabelled_all_or_none(tmp_path: Path):
    hidden = open_images(str(as_hugging_face(tmp_path / "test.parquet", [1, 2], [-1, None])), None)
    assert not hidden.labelled
    with pytest.raises(TransmiterError, match=r"1 of the 2 images of .* have no label, the first in .*/1"):
        open_images(str(as_hugging_face(tmp_path / "some.parquet", [1, 2], [0, -1])), None)


def test_integers_of_which_some_are_missing_are_no_other_classes(tmp_path: Path):
    columns = {"image": [png(1), png(2)], "label": [1.0, float("nan")]}
    features = {"label": {"_type": "ClassLabel", "names": NAMES}}
    with pytest.raises(TransmiterError, match="1 of the 2 images"):
        open_images(str(write(tmp_path / "some.parquet", columns, features)), None)
    columns["label"] = [1.0, 2.0]
    assert [file.label for file in open_images(str(write(tmp_path / "all.parquet", columns)), None).files] == ["1", "2"]


def test_numbers_with_a_point_are_no_classes(tmp_path: Path):
    columns = {"image": [png(1), png(2)], "label": [1.5, float("inf")]}
    with pytest.raises(TransmiterError, match=r"has the class 1\.5; classes are texts or whole numbers"):
        open_images(str(write(tmp_path / "a.parquet", columns)), None)


def test_two_columns_of_one_name_are_refused(tmp_path: Path):
    table = pa.Table.from_arrays([pa.array([png(1)]), pa.array([1]), pa.array([2])], ["image", "x", "x"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(TransmiterError, match=r"Two columns of .* are called 'x'"):
        open_images(str(tmp_path / "a.parquet"), None)


def test_empty_texts_are_no_classes(tmp_path: Path):
    columns = {"image": [png(1), png(2)], "Labels": ["", ""]}
    assert not open_images(str(write(tmp_path / "a.parquet", columns)), None).labelled


@pytest.mark.parametrize("kind", [pa.large_binary(), pa.dictionary(pa.int32(), pa.binary())])
def test_bytes_may_be_kept_in_other_ways(tmp_path: Path, kind: pa.DataType):
    columns = {"image": [png(1), png(2), png(1)]}
    files = open_images(str(write(tmp_path / "a.parquet", columns, types={"image": kind}, rows=2)), None).files
    assert [file.open().read() for file in files] == [png(1), png(2), png(1)]


def test_images_of_which_the_path_alone_is_kept_are_files(tmp_path: Path):
    (tmp_path / "cat").mkdir()
    places = [tmp_path / "cat" / "1.png", Path("cat/2.png")]
    for number, place in enumerate(places):
        (tmp_path / place).write_bytes(png(number))
    columns = {"image": [{"bytes": None, "path": str(place)} for place in places], "label": ["cat", "cat"]}
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    files = open_images(str(write(tmp_path / "t" / "train.parquet", columns, types={"image": kind})), None).files
    assert files[0].open().read() == png(0)
    files = open_images(str(write(tmp_path / "train.parquet", columns, types={"image": kind})), None).files
    assert [file.open().read() for file in files] == [png(0), png(1)]
    assert [file.label for file in files] == ["cat", "cat"]


@pytest.mark.parametrize("statistics", [True, False])
def test_rows_with_and_without_content_may_be_mixed(tmp_path: Path, statistics: bool):
    (tmp_path / "2.png").write_bytes(png(2))
    rows = [{"bytes": png(1), "path": "1.png"}, {"bytes": None, "path": "2.png"}]
    path = write(tmp_path / "a.parquet", {"image": rows})
    pq.write_table(pq.read_table(path), path, write_statistics=statistics)
    assert [file.open().read() for file in open_images(str(path), None).files] == [png(1), png(2)]


def test_files_of_a_split_have_the_same_classes(data: Path):
    columns = {"image": [png(1)], "label": [0]}
    features = {"label": {"_type": "ClassLabel", "names": [*NAMES, "fox"]}}
    write(data / "data" / "train-00001-of-00002.parquet", columns, features)
    with pytest.raises(TransmiterError, match=r"and train-00001-of-00002\.parquet have different names"):
        open_images(str(data), "train")


def test_a_row_without_an_image_is_one_that_cannot_be_read(tmp_path: Path):
    columns = {"image": [{"bytes": png(1), "path": None}, None, {"bytes": None, "path": "gone.png"}]}
    files = open_images(str(write(tmp_path / "a.parquet", columns)), None).files
    assert files[0].open().read() == png(1)
    with pytest.raises(OSError, match="holds no image"):
        files[1].open()
    with pytest.raises(FileNotFoundError):
        files[2].open()


@pytest.mark.parametrize(
    ("columns", "features", "said"),
    [
        (
            {"path": ["a.jpg"], "label": ["cat"]},
            None,
            r"has no column of encoded images; its columns are path \(string\), label \(string\)",
        ),
        ({"left": [b"1"], "right": [b"2"]}, None, "has the images in left or right"),
        ({"image": []}, {"image": {"_type": "Image"}}, "its tables have no rows"),
        (
            {"image": [b"1"], "fine": [0], "coarse": [1]},
            {name: {"_type": "ClassLabel", "names": NAMES} for name in ("fine", "coarse")},
            "has several columns of classes: fine, coarse",
        ),
        (
            {"image": [b"1"], "label": [3]},
            {"label": {"_type": "ClassLabel", "names": NAMES}},
            "has names for 3 classes, but a row has the class 3",
        ),
        ({"image": [b"1"], "label": [[0, 1]]}, None, "The column label of .* holds list"),
        (
            {"image": [b"1"], "label": ["cat"]},
            {"label": {"_type": "ClassLabel", "names": NAMES}},
            "has the class 'cat'",
        ),
        (
            {"image": [[1]], "label": [0]},
            {"image": {"_type": "Image"}},
            "has the images in image; its columns are image",
        ),
        ({"image": [{"bytes": "text"}]}, None, "has no column of encoded images"),
        (
            {"image": [{"bytes": b"1"}], "image.bytes": [b"2"]},
            {"image": {"_type": "Image"}},
            "may be meant by 'image.bytes'",
        ),
    ],
)
def test_tables_that_do_not_say_what_is_what_are_refused(
    tmp_path: Path, columns: dict[str, Any], features: dict[str, Any] | None, said: str
):
    types = {} if isinstance((*columns.get("image", [b""]), b"")[0], list | dict) else {"image": pa.binary()}
    with pytest.raises(TransmiterError, match=said):
        open_images(str(write(tmp_path / "a.parquet", columns, features, types=types)), None)


def test_of_two_columns_of_bytes_the_described_one_is_taken(tmp_path: Path):
    columns = {"thumbnail": [b"1"], "photo": [{"bytes": png(1), "path": None}], "fine": [1], "label": [2]}
    features = {"photo": {"_type": "Image"}, "fine": {"_type": "ClassLabel", "names": NAMES}}
    (file,) = open_images(str(write(tmp_path / "a.parquet", columns, features)), None).files
    assert (file.label, file.open().read()) == ("2", png(1))


def test_damaged_and_changed_files_are_told(data: Path):
    file = data / "data" / "train-00000-of-00002.parquet"
    image = open_images(str(data), "train").files[0]
    assert isinstance(place_of(image), str)
    file.write_bytes(file.read_bytes()[:-9])
    gone = place_of(image)
    assert isinstance(gone, Skipped)
    with pytest.raises(OSError, match="changed since it was listed"):
        image.open()
    assert "its Parquet file changed since it was listed" in gone.reason
    with pytest.raises(TransmiterError, match=r"train-00000-of-00002\.parquet cannot be read as a Parquet file"):
        open_images(str(data), "train")


def test_places_are_of_the_file_and_the_row(data: Path):
    first = {file.place() for file in open_images(str(data), "train").files}
    assert len(first) == 10
    os.utime(data / "data" / "train-00001-of-00002.parquet", ns=(1, 1))
    assert len({file.place() for file in open_images(str(data), "train").files} - first) == 4


def test_folders_of_images_stay_what_they_are_beside_a_table(tmp_path: Path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.png").write_bytes(png(1))
    write(tmp_path / "metadata.parquet", {"file_name": ["cat/1.png"], "hash": [b"1"]})
    write(tmp_path / "annotations.parquet", {"file_name": ["cat/1.png"]})
    (tmp_path / "loop.parquet").symlink_to(tmp_path / "loop.parquet")
    assert [file.id for file in open_images(str(tmp_path), None).files] == ["cat/1.png"]


@pytest.mark.parametrize(("name", "fix"), [("a.parquet", "--data {}"), ("a.arrow", "datasets.load_from_disk('{}')")])
def test_tables_further_below_are_named(tmp_path: Path, name: str, fix: str):
    (tmp_path / "more" / "train").mkdir(parents=True)
    (tmp_path / "more" / "train" / name).touch()
    with pytest.raises(TransmiterError, match="holds no images") as caught:
        open_images(str(tmp_path), None)
    assert str(caught.value.fix).startswith(fix.format(tmp_path / "more" / ("" if name == "a.parquet" else "train")))


def test_a_file_that_is_not_there_is_a_usage_error(tmp_path: Path):
    with pytest.raises(UsageError, match=r"There is no file .*a\.parquet"):
        open_images(str(tmp_path / "a.parquet"), None)


def test_they_take_no_root_and_last_by_their_path(data: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(data)
    assert lasting(DataSpec("data")).data == str(data / "data")
    with pytest.raises(UsageError, match="takes no --root"):
        open_images(DataSpec(str(data), root=str(data)), "train")


def test_without_the_library_it_says_how_to_have_it(data: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UsageError, match="needs the pyarrow library") as caught:
        open_images(str(data), "train")
    assert caught.value.fix == "pip install 'transmiter[parquet]'"
