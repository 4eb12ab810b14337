import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transmiter_cli.errors import TransmiterError, UsageError
from transmiter_cli.task.vocabulary import (
    WORD_LISTS,
    auxiliary_words,
    build_vocabulary,
    class_names,
)


def test_folder_names_become_class_names():
    assert class_names(("maine_coon", "pug__dog"), None) == (("maine coon", "pug dog"), ("maine_coon", "pug__dog"))


def test_a_list_of_names_is_matched_whatever_its_spelling_and_decides_the_order(tmp_path: Path):
    (tmp_path / "names.txt").write_text("Pug Dog\nMaine-Coon\n\n")
    found = class_names(("maine_coon", "pug_dog"), tmp_path / "names.txt")
    assert found == (("Pug Dog", "Maine-Coon"), ("pug_dog", "maine_coon"))


def test_names_for_folders_that_are_codes(tmp_path: Path):
    (tmp_path / "names.json").write_text(json.dumps({"n02": "dog", "n01": "cat"}))
    assert class_names(("n01", "n02"), tmp_path / "names.json") == (("dog", "cat"), ("n02", "n01"))
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    with pytest.raises(UsageError, match="none of them for the class 'n01' of the data; which stands for it is not"):
        class_names(("n01", "n02"), tmp_path / "names.txt")


def test_unlabelled_images_need_a_file_of_names(tmp_path: Path):
    (tmp_path / "names.json").write_text('["cat", "dog"]')
    assert class_names((), tmp_path / "names.json") == (("cat", "dog"), ())
    with pytest.raises(UsageError, match="no class folders"):
        class_names((), None)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("n.txt", "a\nb\nc\n", "3 names, none of them for the class 'x1'"),
        ("n.json", "{", "no valid JSON"),
        ("n.json", "[1, 2]", "holds no names"),
        ("n.json", '{"x": "a"}', "no name for the class 'x1'"),
        ("n.txt", "", "holds no names"),
    ],
)
def test_files_of_names_that_do_not_fit_are_refused(tmp_path: Path, name: str, content: str, said: str):
    (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=said):
        class_names(("x1", "x2"), tmp_path / name)


def test_numbered_classes_are_the_lines_of_the_file(tmp_path: Path):
    names = [f"name {chr(ord('a') + i)}" for i in range(11)]
    (tmp_path / "names.txt").write_text("\n".join(names))
    labels = sorted(map(str, range(11)))  # "10" comes before "2"
    found, ordered = class_names(labels, tmp_path / "names.txt")
    assert dict(zip(ordered, found, strict=True))["10"] == "name k"
    others = class_names(("0", "2"), tmp_path / "names.txt")
    assert dict(zip(*reversed(others), strict=True)) == dict(zip(ordered, found, strict=True)), "they have no images"
    with pytest.raises(UsageError, match="for the class '1' of the data"):  # counted from 1?
        class_names(("1", "2"), tmp_path / "names.txt")


@pytest.mark.parametrize("names", ["dog\ncat\npony\n", "dog\ncat\n", "dog\ncat\npony\nmule\n"])
def test_a_class_of_the_data_without_a_name_is_not_guessed_at(tmp_path: Path, names: str):
    (tmp_path / "names.txt").write_text(names)
    with pytest.raises(UsageError, match="none of them for the class 'horse'"):
        class_names(("cat", "dog", "horse"), tmp_path / "names.txt")


def test_a_misspelled_name_is_shown(tmp_path: Path):
    (tmp_path / "names.txt").write_text("tabby\nsiamse\n")
    with pytest.raises(UsageError, match=r"for the class 'siamese' .* Did you mean 'siamse'\?"):
        class_names(["siamese", "tabby"], tmp_path / "names.txt")


def test_a_list_may_name_classes_without_images(tmp_path: Path):
    (tmp_path / "names.txt").write_text("Pug Dog\nAxolotl\nMaine-Coon\n")
    found = class_names(("maine_coon", "pug_dog"), tmp_path / "names.txt")
    assert found == (("Pug Dog", "Axolotl", "Maine-Coon"), ("pug_dog", "Axolotl", "maine_coon"))


def test_the_same_name_twice_is_refused(tmp_path: Path):
    (tmp_path / "names.txt").write_text("maine coon\npug\n")
    with pytest.raises(TransmiterError, match="same name: 'maine_coon' and 'Maine_coon'"):
        class_names(("maine_coon", "Maine_coon"), tmp_path / "names.txt")
    with pytest.raises(TransmiterError, match="same name: 'maine coon' and 'Maine coon'") as found:
        class_names(("maine_coon", "Maine_coon"), None)
    assert "JSON file" in str(found.value.fix)
    (tmp_path / "names.txt").write_text("pug\nPug\n")
    with pytest.raises(TransmiterError, match="same name: 'pug' and 'Pug'") as found:
        class_names((), tmp_path / "names.txt")
    assert found.value.fix == "give each class a name of its own, once"


@pytest.mark.parametrize("name", WORD_LISTS)
def test_the_lists_that_come_along_hold_distinct_words(name: str):
    words = auxiliary_words(name)
    assert len(words) > 300
    assert len(set(words)) == len(words)
    assert all(word == word.strip() and word for word in words)


def test_the_digits_are_not_among_the_characters_for_the_digits():
    vocabulary = build_vocabulary(("seven", "two"), auxiliary_words("characters"), 1024, 0)
    assert not {"digit seven", "number two", "seven"} & set(vocabulary[2:])


def test_words_from_a_file_or_nowhere(tmp_path: Path):
    (tmp_path / "words.txt").write_text("oak\nelm\n")
    assert auxiliary_words(str(tmp_path / "words.txt")) == ["oak", "elm"]
    with pytest.raises(UsageError, match="no word list 'nuns'"):
        auxiliary_words("nuns")


def test_variants_of_task_names_are_left_out():
    words = ["Cats", "cat", "maine-coon", "Maine_Coons", "butterfly", "boxes", "glass", "wolves", "dog", "Dog", "dog"]
    vocabulary = build_vocabulary(("cat", "maine coon", "butterflies", "box", "glasses", "wolf"), words, 100, 0)
    assert vocabulary[6:] == ("dog",)


@given(st.integers(2, 40), st.integers(0, 100))
def test_the_sample_is_seeded_distinct_and_of_the_size_asked_for(size: int, seed: int):
    words = [f"word{i}x" for i in range(50)]
    vocabulary = build_vocabulary(("a", "b"), words, size, seed)
    assert vocabulary == build_vocabulary(("a", "b"), words, size, seed)
    assert len(set(vocabulary)) == len(vocabulary) == size
    assert vocabulary[:2] == ("a", "b")


def test_another_seed_gives_another_sample():
    words = [f"word{i}x" for i in range(50)]
    assert build_vocabulary(("a",), words, 20, 0) != build_vocabulary(("a",), words, 20, 1)


def test_a_vocabulary_smaller_than_the_classes_is_refused():
    with pytest.raises(UsageError, match="A vocabulary of 2 cannot hold 3 classes"):
        build_vocabulary(("a", "b", "c"), ["d"], 2, 0)
