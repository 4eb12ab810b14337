from pathlib import Path

import pytest

from transmiter_cli.embedding.sources.text import read_list
from transmiter_cli.errors import UsageError


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("a.txt", "\ufeff one\n\n two words \n", ["one", "two words"]),
        ("a.json", '["one"]', ["one"]),
        ("a.JSON", '{"one": "two"}', {"one": "two"}),
    ],
)
def test_a_file_is_its_lines_or_its_json(tmp_path: Path, name: str, content: str, found: object):
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_list(tmp_path / name) == found


def test_a_file_that_is_not_there_is_a_mistake_of_the_command_line(tmp_path: Path):
    with pytest.raises(UsageError, match="There is no file"):
        read_list(tmp_path / "a.txt")
