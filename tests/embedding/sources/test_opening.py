from dataclasses import replace
from pathlib import Path

import pytest

from tests.embedding.conftest import write_image
from transmiter_cli.embedding.sources import DataSpec, open_images
from transmiter_cli.embedding.sources.opening import lasting, limited, same_data
from transmiter_cli.errors import TransmiterError, UsageError


def test_a_limit_keeps_every_classs_share_and_chooses_the_same_again():
    spec = DataSpec("demo-digits", limit=100)
    images = open_images(spec, "train")
    assert len(images.files) == 100
    labels = images.labels(images.label_names)
    assert all(9 <= labels.count(label) <= 11 for label in range(10))
    assert open_images(spec, "train") == images
    assert len({file.id for file in images.files}) == 100


@pytest.mark.parametrize(("total", "limit"), [(10, 3), (10, 10), (10, 11), (1, 1), (7, 6), (5, None)])
def test_evenly_spaced_gives_so_many_distinct_images_in_order(total: int, limit: int | None):
    files = open_images("demo-digits", "test").files[:total]
    chosen = limited(files, limit)
    assert len(chosen) == min(total, limit or total)
    assert list(chosen) == [file for file in files if file in chosen]


def test_a_split_that_was_asked_for_is_never_replaced_by_another(tmp_path: Path):
    write_image(tmp_path / "train/a/1.png")
    write_image(tmp_path / "val/a/2.png")
    assert open_images(DataSpec(str(tmp_path)), "test").split == "val"
    with pytest.raises(UsageError, match="no 'test' split, only train, val"):
        open_images(DataSpec(str(tmp_path), split="test"), "train")
    assert open_images(DataSpec(str(tmp_path), split="validation"), "train").split == "val"


def test_lasting_names_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "data/a/1.png")
    (tmp_path / "list.csv").write_text("path\n1.png\n")
    assert lasting(DataSpec("data", split="val")) == DataSpec(str(tmp_path / "data"), split="val")
    expected = DataSpec(str(tmp_path / "list.csv"), str(tmp_path / "data"))
    assert lasting(DataSpec("list.csv", "data")) == expected
    monkeypatch.chdir(tmp_path / "data")
    assert lasting(DataSpec("../data", split="val")) == DataSpec(str(tmp_path / "data"), split="val")
    assert lasting(DataSpec("../list.csv", "../data")) == expected
    assert lasting(DataSpec("demo-digits")).data == "demo-digits"
    assert lasting(DataSpec("torchvision:MNIST")).data == "torchvision:MNIST"


def test_a_run_beside_the_classes_is_no_class(tmp_path: Path):
    write_image(tmp_path / "a/1.png")
    write_image(tmp_path / "b/2.png")
    for run, name in (("transmiter-run", "run.json"), ("begun", ".lock")):
        (tmp_path / run).mkdir()
        (tmp_path / run / name).touch()
    assert open_images(str(tmp_path), None).label_names == ("a", "b")
    (tmp_path / "a" / ".lock").touch()
    write_image(tmp_path / "transmiter-run/3.png")
    assert open_images(str(tmp_path), None).label_names == ("a", "b", "transmiter-run")


def test_links_name_the_same_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data, other, link = (DataSpec(str(tmp_path / name)) for name in ("data", "other", "below/link"))
    for name in ("data", "other", "below"):
        (tmp_path / name).mkdir()
    Path(link.data).symlink_to(data.data)
    assert same_data(link, replace(data, split="test", limit=3))
    assert not same_data(other, data)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo-digits").mkdir()
    assert same_data(DataSpec("demo-digits"), DataSpec("demo-digits"))
    assert not same_data(DataSpec(str(tmp_path / "demo-digits")), DataSpec("demo-digits"))


@pytest.mark.parametrize("name", ["list.csv", "list.jsonl", "split_zhou_Pets.json"])
def test_a_list_over_another_root_is_other_data(tmp_path: Path, name: str):
    clean, corrupted, link = (tmp_path / folder for folder in ("clean", "corrupted", "link"))
    for folder in (clean, corrupted):
        folder.mkdir()
    link.symlink_to(clean)
    beside, spec = DataSpec(str(clean / name)), DataSpec(str(tmp_path / name), str(clean))
    assert same_data(beside, replace(beside, root=str(clean)))
    assert not same_data(beside, replace(beside, root=str(corrupted)))
    assert same_data(spec, replace(spec, root=str(link)))
    assert not same_data(spec, replace(spec, root=str(corrupted)))
    assert not same_data(spec, replace(spec, root=None))


def test_torchvisions_usual_folder_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TRANSMITER_CACHE", str(tmp_path))
    spec = DataSpec("torchvision:MNIST")
    assert same_data(spec, replace(spec, root=str(tmp_path / "torchvision")))
    assert not same_data(spec, replace(spec, root=str(tmp_path)))


def test_a_root_for_data_that_need_none(tmp_path: Path):
    write_image(tmp_path / "1.png")
    with pytest.raises(UsageError, match="takes no --root"):
        open_images(DataSpec(str(tmp_path), root=str(tmp_path)), None)


def test_a_file_of_no_known_kind_is_told_the_kinds(tmp_path: Path):
    with pytest.raises(UsageError, match=r"is a file; --data takes .*\.csv or \.jsonl.*\.tar shards.*torchvision"):
        open_images(str(write_image(tmp_path / "1.png")), None)
    (tmp_path / "1.tar.gz").touch()
    with pytest.raises(UsageError, match="is a file") as caught:
        open_images(str(tmp_path / "1.tar.gz"), None)
    assert caught.value.fix == "unpack it"


def test_an_address_is_told_from_a_missing_folder():
    with pytest.raises(UsageError, match="is an address; --data takes what is on this disk"):
        open_images("https://example.org/pets.tar", None)


def test_an_empty_split_folder_holds_no_images(tmp_path: Path):
    write_image(tmp_path / "train/a/1.png")
    (tmp_path / "test").mkdir()
    with pytest.raises(TransmiterError, match="holds no images"):
        open_images(str(tmp_path), "test")
