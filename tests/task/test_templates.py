import json
from pathlib import Path

import pytest

from transmiter_cli.embedding.encoders.prompts import DEFAULT_TEMPLATE, Templates
from transmiter_cli.errors import TransmiterError, UsageError
from transmiter_cli.task.templates import COOP, check_templates, choose_templates, read_templates

CLASSES = ("maine coon", "pug")


def test_a_photo_is_the_default():
    assert choose_templates([], None, CLASSES) == Templates((DEFAULT_TEMPLATE,))
    assert choose_templates(["the {}"], None, CLASSES) == Templates(("the {}",))


def test_clips_ensemble_is_open_clips():
    import open_clip

    found = choose_templates([], "imagenet", CLASSES)
    assert len(set(found.shared)) == 80
    assert found.prompts("pug") == [template("pug") for template in open_clip.OPENAI_IMAGENET_TEMPLATES]
    assert found.shared[0] == "a bad photo of a {}."
    assert len(choose_templates([], "simple", CLASSES).shared) == 7


@pytest.mark.parametrize("name", COOP)
def test_coops_prompts_by_data_set(name: str):
    assert check_templates(read_templates(name)) == [COOP[name]]


def test_what_coop_writes_for_pets_and_textures():
    assert choose_templates([], "oxford_pets", CLASSES).prompts("pug") == ["a photo of a pug, a type of pet."]
    assert choose_templates([], "dtd", CLASSES).prompts("dotted") == ["dotted texture."]


@pytest.mark.parametrize(
    ("name", "text"),
    [("t.txt", "\ufeffa {}.\n\n  the {}\n"), ("t.json", '["a {}.", "the {}"]'), ("t", "a {}.\nthe {}")],
)
def test_a_file_of_templates_and_single_ones_add_up(tmp_path: Path, name: str, text: str):
    (tmp_path / name).write_text(text)
    assert choose_templates(["my {}", "a {}."], str(tmp_path / name), CLASSES).shared == ("a {}.", "the {}", "my {}")


def test_prompts_by_class_are_found_by_name_or_label_and_words_keep_the_default(tmp_path: Path):
    content = {"Maine-Coon": ["a fluffy {}", "a cat {of} sorts"], "n02": ["a small dog"], "eel": ["unused"]}
    (tmp_path / "t.json").write_text(json.dumps(content))
    found = choose_templates([], str(tmp_path / "t.json"), CLASSES, ("n01", "n02"))
    assert found.prompts("maine coon") == ["a fluffy maine coon", "a cat {of} sorts"]
    assert found.prompts("pug") == ["a small dog"]
    assert found.prompts("oak") == ["a photo of a oak."]
    assert choose_templates(["the {}"], str(tmp_path / "t.json"), CLASSES, ("n01", "n02")).prompts("oak") == ["the oak"]


def test_prompts_of_classes_that_differ_in_case_alone_are_found_by_the_exact_name(tmp_path: Path):
    (tmp_path / "t.json").write_text(json.dumps({"dog": ["a pet"], "Dog": ["a make of shoe"]}))
    found = choose_templates([], str(tmp_path / "t.json"), ("dog", "Dog"))
    assert [found.prompts(name) for name in ("dog", "Dog")] == [["a pet"], ["a make of shoe"]]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.txt", b"", "holds no templates"),
        ("t.txt", b"a photo\n", r"'a photo' must have \{\} once"),
        ("t.json", b"{", "no valid JSON"),
        ("t.json", b"[1]", "holds no templates"),
        ("t.json", b'{"pug": "a pug"}', "holds no templates"),
        ("t.json", b'{"pug": ["a pug"]}', "no prompts for the class 'maine coon'"),
    ],
)
def test_files_that_cannot_be_used_are_refused(tmp_path: Path, name: str, content: bytes, said: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=said):
        choose_templates([], str(tmp_path / name), CLASSES)


def test_templates_that_are_not_utf8_are_refused(tmp_path: Path):
    (tmp_path / "t.txt").write_bytes(b"caf\xe9 {}\n")
    with pytest.raises(TransmiterError, match="not UTF-8: byte 0xe9 in line 1"):
        choose_templates([], str(tmp_path / "t.txt"), CLASSES)


def test_a_name_that_is_neither_lists_the_names():
    with pytest.raises(UsageError, match="no templates 'imagnet': neither a file nor one of imagenet, simple, oxford_"):
        choose_templates([], "imagnet", CLASSES)


@pytest.mark.parametrize("template", ["a photo", "{} and {}", "a {name}", "{}}"])
def test_templates_have_one_place_for_the_name(template: str):
    with pytest.raises(UsageError, match=r"must have \{\} once"):
        check_templates([template])
    assert check_templates(["a {}."]) == ["a {}."]
