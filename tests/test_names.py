import pytest

from transmiter_cli.names import finder, meeting, numbered, some


def finder_of(names: list[str]):
    return finder(numbered(names))


def test_a_name_is_found_in_its_own_or_another_spelling():
    place = finder_of(["Maine-Coon", "pug dog", "axolotl"])
    assert [place(name) for name in ("Maine-Coon", "maine_coon", "PUG_DOG", "axolotl")] == [0, 0, 1, 2]
    assert place("pug") is None
    assert place(None) is None


def test_names_that_are_spelled_alike_are_themselves_alone():
    place = finder_of(["a b", "a_b"])
    assert (place("a b"), place("a_b"), place("A B")) == (0, 1, None)


@pytest.mark.parametrize(("count", "text"), [(2, "0, 1"), (5, "0, 1, 2, 3, 4"), (6, "0, 1, 2, 3, 4, ...")])
def test_messages_list_some_names(count: int, text: str):
    assert some(range(count)) == text


@pytest.mark.parametrize("name", ["-1", "B-", "A+"])
def test_signs_at_an_end_are_not_spelling(name: str):
    assert finder_of(["1", "B", "A"])(name) is None


def test_two_names_for_one_place_are_found():
    assert meeting({"cat": 0, "Dog": 1, "dog": 1}) == ("Dog", "dog")
    assert meeting({"cat": 0, "dog": 1, None: None, "left out": None, "too": None}) is None


def test_the_same_name_comes_before_those_spelled_alike():
    find = finder({"a b": 0, "a_b": 1, "c": 2, "C": 2})
    assert [find(name) for name in ("a b", "a_b", "A-B", " c ")] == [0, 1, None, 2]
