"""The README's Python example runs as it stands, and shows a gain."""

import re
from pathlib import Path
from typing import Any

import pytest

README = Path(__file__).parents[1] / "README.md"


def test_the_python_example_runs_and_shows_a_gain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len([line for line in example.splitlines() if line.strip()]) <= 15
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(example, str(README), "exec"), names)
    assert names["adapted"].shape == (500, 10)
    rows = names["rows"]
    assert rows["strong"].top1 < 0.9
    assert rows["moved"].gain_low > 0.1
    assert capsys.readouterr().out.endswith(", helps\n")
