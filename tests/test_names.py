import pytest

from transmiter_cli.names import ambiguous, finder, numbered, some, spelled


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


@pytest.mark.parametrize(("count", "text"), [(2, "0, 1"), (5, "0, 1, 2, 3, 4"), (6, "0, 1, 2, 3, 4 and 1 more")])
def test_messages_list_some_names(count: int, text: str):
    assert some(range(count)) == text


@pytest.mark.parametrize("name", ["-1", "B-", "A+", "C--"])
def test_signs_at_an_end_are_not_spelling(name: str):
    assert finder_of(["1", "B", "A", "C-"])(name) is None


@pytest.mark.parametrize("name", ["Zu\u0308rich", " _ZÜRICH_ ", "zürich"])
def test_accents_case_and_what_stands_around_a_name_are_spelling(name: str):
    assert finder_of(["bern", "Zürich"])(name) == 1


def test_a_sharp_s_is_found_in_capitals():
    assert finder_of(["Straße"])("STRASSE") == 0


def test_names_that_would_have_one_place_are_found():
    places = {"dog": 1, "a b": 2, "a_b": 2, "cat": 1}
    assert ambiguous(["cat", "Dog", "dog"], places) == ("Dog", "dog")
    assert ambiguous(["Dog", "DOG"], places) == ("Dog", "DOG")
    assert ambiguous(["dog", "cat", "a b", "a_b"], places) is None


def test_names_that_look_the_same_are_told_apart():
    assert spelled("\u00c9l\u00e9phant", "\u00e9l\u00e9phant") == "'\u00c9l\u00e9phant' and '\u00e9l\u00e9phant'"
    assert spelled("\u00e9", "e\u0301") == r"'\xe9' and 'e\u0301'"


def test_the_same_name_comes_before_those_spelled_alike():
    find = finder({"a b": 0, "a_b": 1, "c": 2, "C": 2})
    assert [find(name) for name in ("a b", "a_b", "A-B", " c ")] == [0, 1, None, 2]
