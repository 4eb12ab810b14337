import json
from dataclasses import replace
from pathlib import Path

import pytest

from transmiter_cli.embedding.sources import ImageSet
from transmiter_cli.embedding.sources.images import ImageFile
from transmiter_cli.errors import TransmiterError
from transmiter_cli.record import Task
from transmiter_cli.task.templates import choose_templates
from transmiter_cli.workflow.class_lists import LEFT_OUT, base_classes, read_map

CLASSES, LABELS = ("maine coon", "pug dog", "axolotl"), ("n01", "pug_dog", "Axolotl")


def given(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def images(*labels: str) -> ImageSet:
    files = tuple(ImageFile(Path("/data"), f"{label}/1.png", label) for label in labels)
    return ImageSet(files, tuple(dict.fromkeys(labels)), None)


def test_labels_are_found_in_another_spelling():
    assert read_map(None, CLASSES, LABELS).classes_of(["Pug-Dog", "axolotl", "n01"]) == {
        "Pug-Dog": 1,
        "axolotl": 2,
        "n01": 0,
    }
    assert images("Pug-Dog", "axolotl").labels(LABELS) == [1, 2]


def test_labels_may_be_the_names_of_classes_that_fits_data_call_otherwise():
    found = read_map(None, ("maine coon", "pug", "n01"), ("n01", "n02", "n03"))
    assert found.classes_of(["Pug", "n02", "n01", "n03"]) == {"Pug": 1, "n02": 1, "n01": 0, "n03": 2}
    assert images("Pug", "n01").labels(found.labels, found.names) == [1, 0]
    with pytest.raises(TransmiterError, match="none of the run's 3 classes"):
        images("Pug", "n01").labels(found.labels)


def test_labels_that_a_map_does_not_name_are_told(tmp_path: Path):
    found = read_map(given(tmp_path / "map.json", {"A_b": "pug_dog"}), CLASSES, LABELS)
    assert found.unmapped(["a b", "axolotl", "n01"]) == ["axolotl", "n01"]
    assert read_map(None, CLASSES, LABELS).unmapped(["axolotl"]) == []


def test_two_labels_that_differ_in_spelling_alone_are_refused():
    for read in (lambda: read_map(None, CLASSES, LABELS).classes_of(["axolotl", "Axolotl"]), same_class):
        with pytest.raises(TransmiterError, match="'axolotl' and 'Axolotl', which differ in spelling alone"):
            read()


def same_class() -> list[int]:
    return images("axolotl", "Axolotl").labels(LABELS)


def test_a_map_may_send_two_labels_to_one_class_and_is_asked_before_the_runs_labels(tmp_path: Path):
    path = given(tmp_path / "map.json", {"A_b": "MAINE-COON", "pug": "pug_dog", "pug_dog": "axolotl", "none": None})
    found = read_map(path, CLASSES, LABELS).classes_of(["a b", "pug", "pug_dog", "none", "axolotl"])
    assert found == {"a b": 0, "pug": 1, "pug_dog": 2, "none": LEFT_OUT, "axolotl": 2}
    with pytest.raises(TransmiterError, match="the class 'cat'"):
        read_map(path, CLASSES, LABELS).classes_of(["cat"])
    with pytest.raises(TransmiterError, match="maps to 'cat'"):
        read_map(given(tmp_path / "map.json", {"x": "cat"}), CLASSES, LABELS)


def test_a_runs_own_label_comes_before_a_mapped_one_in_another_spelling(tmp_path: Path):
    path = given(tmp_path / "map.json", {"AXOLOTL": None, "N01": "pug dog"})
    found = read_map(path, CLASSES, LABELS).classes_of(["AXOLOTL", "Axolotl", "n01", "N01"])
    assert found == {"AXOLOTL": LEFT_OUT, "Axolotl": 2, "n01": 0, "N01": 1}
    with pytest.raises(TransmiterError, match="the class 'axolotl'"):
        read_map(path, CLASSES, LABELS).classes_of(["axolotl"])


def test_images_of_labels_that_are_left_out_are(tmp_path: Path):
    found = read_map(given(tmp_path / "map.json", {"x": None, "y": "n01"}), CLASSES, LABELS)
    data = images("y", "x", "pug dog")
    assert [file.label for file in found.known_only(data).files] == ["y", "pug dog"]
    assert found.indices(found.known_only(data).files) == [0, 1]
    assert found.among(data) == [0, 1]
    with pytest.raises(TransmiterError, match="leaves out all images"):
        found.known_only(images("x"))
    assert read_map(None, CLASSES, LABELS).among(data) is None


def test_labels_of_images_may_be_answered_where_the_data_do_not_list_them(tmp_path: Path):
    found = read_map(given(tmp_path / "map.json", {"y": "n01"}), CLASSES, LABELS)
    assert found.among(replace(images("y", "Axolotl"), label_names=("y",))) == [0, 2]


def test_base_classes_are_named_by_name_or_label_in_any_spelling(tmp_path: Path):
    task = Task(CLASSES, LABELS, choose_templates((), None, CLASSES, LABELS), "data", None, "weak", ("finetuned",))
    assert base_classes(given(tmp_path / "base.txt", "N01\nPug Dog\n"), task) == [0, 1]
    assert base_classes(given(tmp_path / "base.json", ["Maine Coon", "axolotl"]), task) == [0, 2]
    with pytest.raises(TransmiterError, match="a class twice: 'n01' and 'maine coon'"):
        base_classes(given(tmp_path / "base.txt", "n01\nmaine coon\n"), task)
    for content in ([3], ["axolotl", None], [["x"]], {"axolotl": 1}):
        with pytest.raises(TransmiterError, match="no list of classes"):
            base_classes(given(tmp_path / "base.json", content), task)
    names = replace(task, label_names=("axolotl", "Maine Coon", "pug dog"))
    assert base_classes(given(tmp_path / "base.txt", "axolotl\n"), names) == [2]
    with pytest.raises(TransmiterError, match="'cat', which is none"):
        base_classes(given(tmp_path / "base.txt", "cat\n"), task)
