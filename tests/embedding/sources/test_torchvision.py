"""Data sets laid out on the disk as torchvision unpacks them; nothing is fetched."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from tests.embedding.conftest import write_image
from transmiter_cli.embedding.sources import DataSpec, ImageSet, open_images
from transmiter_cli.embedding.sources.torchvision import ENTRIES, class_names
from transmiter_cli.errors import TransmiterError, UsageError


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TRANSMITER_CACHE", str(tmp_path / "cache"))


def opened(name: str, root: Path, split: str | None = None) -> ImageSet:
    return open_images(DataSpec(f"torchvision:{name}", str(root), split), "train")


def listed(images: ImageSet) -> list[tuple[str, str | None]]:
    return [(file.id.rpartition("/")[2], file.label) for file in images.files]


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


@pytest.mark.parametrize("name", ENTRIES)
def test_every_name_is_one_of_torchvisions(name: str):
    assert issubclass(getattr(datasets, name), datasets.VisionDataset)


def test_pets(tmp_path: Path):
    base = tmp_path / "oxford-iiit-pet"
    for name in ("pug_2", "Abyssinian_1", "pug_1", "Abyssinian_7"):
        write_image(base / "images" / f"{name}.jpg")
    text(base / "annotations/trainval.txt", "pug_2 2 2 1\nAbyssinian_1 1 1 1\npug_1 2 2 1\n")
    text(base / "annotations/test.txt", "Abyssinian_7 1 1 1\n")
    train = opened("OxfordIIITPet", tmp_path)
    assert listed(train) == [("Abyssinian_1.jpg", "Abyssinian"), ("pug_1.jpg", "Pug"), ("pug_2.jpg", "Pug")]
    assert (train.split, train.label_names) == ("train", ("Abyssinian", "Pug"))
    assert train.files[1].open().read() == (base / "images/pug_1.jpg").read_bytes()
    assert listed(opened("OxfordIIITPet", tmp_path, "test")) == [("Abyssinian_7.jpg", "Abyssinian")]
    with pytest.raises(UsageError, match="no 'val' split, only train, test"):
        opened("OxfordIIITPet", tmp_path, "val")


def test_scenes_are_sorted_whatever_the_file_system_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    base = tmp_path / "SUN397"
    text(base / "ClassName.txt", "/a/abbey\n/c/church/outdoor\n")
    for path in ("c/church/outdoor/sun_b.jpg", "a/abbey/sun_z.jpg", "c/church/outdoor/sun_a.jpg"):
        write_image(base / path)
    expected = [("sun_z.jpg", "abbey"), ("sun_a.jpg", "outdoor church"), ("sun_b.jpg", "outdoor church")]
    assert listed(opened("SUN397", tmp_path)) == expected
    real = Path.rglob
    monkeypatch.setattr(Path, "rglob", lambda self, pattern: reversed(list(real(self, pattern))))
    assert listed(opened("SUN397", tmp_path)) == expected


def test_textures_aircraft_and_food(tmp_path: Path):
    for name in ("dotted/dotted_1.jpg", "banded/banded_9.jpg"):
        write_image(tmp_path / "dtd/dtd/images" / name)
    text(tmp_path / "dtd/dtd/labels/train1.txt", "dotted/dotted_1.jpg\nbanded/banded_9.jpg\n")
    assert listed(opened("DTD", tmp_path)) == [("banded_9.jpg", "banded"), ("dotted_1.jpg", "dotted")]

    data = tmp_path / "fgvc-aircraft-2013b/data"
    write_image(data / "images/0042.jpg")
    text(data / "variants.txt", "707-320\nA300B4\n")
    text(data / "images_variant_val.txt", "0042 A300B4\n")
    assert listed(opened("FGVCAircraft", tmp_path, "val")) == [("0042.jpg", "A300B4")]

    write_image(tmp_path / "food-101/images/pho/7.jpg")
    text(tmp_path / "food-101/meta/test.json", json.dumps({"pho": ["pho/7"], "apple_pie": []}))
    found = opened("Food101", tmp_path, "test")
    assert (listed(found), found.label_names) == ([("7.jpg", "pho")], ("apple_pie", "pho"))


def test_satellite_photographs_objects_and_signs(tmp_path: Path):
    write_image(tmp_path / "eurosat/2750/SeaLake/SeaLake_1.jpg")
    write_image(tmp_path / "eurosat/2750/AnnualCrop/AnnualCrop_1.jpg")
    assert listed(opened("EuroSAT", tmp_path)) == [("AnnualCrop_1.jpg", "Annual Crop"), ("SeaLake_1.jpg", "Sea Lake")]

    for name in ("BACKGROUND_Google/image_0001.jpg", "ant/image_0001.jpg", "ant/image_0002.jpg", "bass/image_0001.jpg"):
        write_image(tmp_path / "caltech101/101_ObjectCategories" / name)
    images = opened("Caltech101", tmp_path)
    assert [(file.id.split("/", 2)[2], file.label) for file in images.files] == [
        ("ant/image_0001.jpg", "ant"),
        ("ant/image_0002.jpg", "ant"),
        ("bass/image_0001.jpg", "bass"),
    ]
    assert all(file.open().read() for file in images.files)

    write_image(tmp_path / "gtsrb/GTSRB/Training/00000/1.ppm")
    write_image(tmp_path / "gtsrb/GTSRB/Training/00001/1.ppm")
    signs = opened("GTSRB", tmp_path)
    assert [file.label for file in signs.files] == ["speed limit 20 km/h", "speed limit 30 km/h"]
    assert len(set(signs.label_names)) == 43


def write_mnist(root: Path) -> np.ndarray:
    """Five images per part in MNIST's own format; returns the train images."""
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    (root / "MNIST/raw").mkdir(parents=True)
    for part in ("train", "t10k"):
        header = struct.pack(">IIII", 0x803, 5, 28, 28)
        (root / f"MNIST/raw/{part}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        labels = struct.pack(">II", 0x801, 5) + bytes([7, 2, 1, 0, 4])
        (root / f"MNIST/raw/{part}-labels-idx1-ubyte").write_bytes(labels)
    return images


def test_rows_of_an_array_have_keys_of_their_files_and_index(tmp_path: Path):
    expected = write_mnist(tmp_path)
    train, test = opened("MNIST", tmp_path), opened("MNIST", tmp_path, "test")
    assert [file.label for file in train.files] == ["seven", "two", "one", "zero", "four"]
    assert train.files[3].id == "train/000003"
    pictures = [file.open() for file in train.files]
    assert all(isinstance(picture, Image.Image) for picture in pictures)
    assert np.array_equal(np.stack([np.asarray(picture) for picture in pictures]), expected)
    places = [file.place() for file in (*train.files, *test.files)]
    assert len(set(places)) == 10
    assert places[:5] == [file.place() for file in opened("MNIST", tmp_path).files]
    os.utime(tmp_path / "MNIST/raw/train-images-idx3-ubyte", ns=(1, 1))
    assert not set(places) & {file.place() for file in opened("MNIST", tmp_path).files}


def test_rows_of_an_array_are_encoded(tmp_path: Path, weak):
    write_mnist(tmp_path)
    found = weak.image_embeddings(opened("MNIST", tmp_path).files)
    assert found.rows.shape == (5, 64)
    weak.image_embeddings(opened("MNIST", tmp_path).files)
    assert "none decoded" in weak.workspace.reporter.notes[-1]


def test_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    data = np.random.default_rng(0).integers(0, 256, (2, 3072), dtype=np.uint8)

    def write(name: str, content: object) -> str:
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    train = [[f"data_batch_{i}", write(f"data_batch_{i}", {"data": data, "labels": [1, 0]})] for i in range(1, 6)]
    test = [["test_batch", write("test_batch", {"data": data, "labels": [0, 1]})]]
    meta = write("batches.meta", {"label_names": ["airplane", "automobile"]})
    monkeypatch.setattr(datasets.CIFAR10, "train_list", train)
    monkeypatch.setattr(datasets.CIFAR10, "test_list", test)
    monkeypatch.setattr(datasets.CIFAR10, "meta", {**datasets.CIFAR10.meta, "md5": meta})
    images = opened("CIFAR10", tmp_path)
    assert [file.label for file in images.files] == ["automobile", "airplane"] * 5
    assert np.array_equal(np.asarray(images.files[1].open()), data[1].reshape(3, 32, 32).transpose(1, 2, 0))
    assert len({file.place() for file in images.files}) == 10


def test_images_without_labels_in_an_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    monkeypatch.setattr(datasets.STL10, "_check_integrity", lambda self: True)  # it wants all 2.6 GB, by checksum
    (folder / "unlabeled_X.bin").write_bytes(bytes(3 * 96 * 96 * 2))
    (folder / "train_X.bin").write_bytes(bytes(3 * 96 * 96))
    (folder / "train_y.bin").write_bytes(bytes([2]))
    text(folder / "class_names.txt", "airplane\nbird\n")
    images = opened("STL10", tmp_path, "unlabeled")
    assert (len(images.files), images.labelled, images.label_names) == (2, False, ("airplane", "bird"))
    assert [file.label for file in opened("STL10", tmp_path).files] == ["bird"]


@pytest.mark.parametrize("name", ENTRIES)
def test_nothing_is_fetched_offline(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fetch(*_: object, **__: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr("urllib.request.urlopen", fetch)
    with pytest.raises(
        TransmiterError, match=rf"{name} is not in .*cache/torchvision .*HF_HUB_OFFLINE forbids"
    ) as caught:
        open_images(f"torchvision:{name}", "train")
    assert "--root" in str(caught.value.fix)


def test_a_network_that_is_down_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def down(*_: object, **__: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("urllib.request.urlopen", down)
    with pytest.raises(TransmiterError, match=r"DTD is not in .*Name or service not known.*could not be fetched"):
        open_images("torchvision:DTD", "train")


def test_names_that_are_none():
    with pytest.raises(UsageError, match=r"no data set 'mnist'; there are OxfordIIITPet, .*MNIST") as caught:
        open_images("torchvision:mnist", "train")
    assert caught.value.fix == "--data torchvision:MNIST"


def test_a_torchvision_without_class_names_is_too_old():
    with pytest.raises(TransmiterError, match="no class names for object"):
        class_names(object(), ENTRIES["Flowers102"])
    assert len(class_names(datasets.Flowers102, ENTRIES["Flowers102"])) == 102
