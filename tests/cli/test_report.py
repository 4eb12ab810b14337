"""transmiter eval --report, from a run to a page."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.cli.test_errors import FIT, failed
from transmiter_cli.embedding.sources import open_images


def test_the_report_of_a_run_shows_its_images_and_commands(cli: Cli, tmp_path: Path):
    assert cli(*FIT, "--data", "demo-digits").code == 0
    assert cli("transfer", "--strong", "demo-strong").code == 0
    outcome = cli("eval", "--report", "out/report.html")
    assert outcome.code == 0, outcome.err
    assert "out/report.html" in outcome.err
    text = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "$ transmiter fit --weak demo-weak" in text
    assert "$ transmiter transfer --strong demo-strong" in text
    assert text.count("data:image/webp;base64,") > 5
    assert len(text) < 500_000
    failed(cli("eval", "--report", "r.html", "--data", "demo-digits", "--data", "demo-digits"), 2, "one data set")
    assert cli("eval", "--no-labels", "--report", "plain.html").code == 0
    assert "which model is right" in (tmp_path / "plain.html").read_text(encoding="utf-8")


@pytest.fixture
def transferred(cli: Cli) -> Cli:
    assert cli(*FIT, "--data", "demo-digits", "--limit", 200).code == 0
    assert cli("transfer", "--strong", "demo-strong", "--method", "ridge").code == 0
    return cli


def test_a_report_that_compares_a_row_with_itself_is_refused_before_anything_is_encoded(
    transferred: Cli, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("transmiter_cli.embedding.workspace.CachedEncoder.image_embeddings", lambda *_: 1 / 0)
    failed(transferred("eval", "--report", "r.html", "--against", "ridge"), 2, "about ridge", "--against strong")


def test_file_names_that_are_no_text_are_escaped(transferred: Cli, tmp_path: Path):
    for number, file in enumerate(open_images("demo-digits", "test").files[:40]):
        name = os.fsdecode(b"\xff%d.png" % number)
        (tmp_path / "odd" / str(file.label)).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file.path, tmp_path / "odd" / str(file.label) / name)
    outcome = transferred("eval", "--data", "odd", "--no-labels", "--report", "report.html")
    assert outcome.code == 0, outcome.err
    assert "\\udcff" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_report_that_cannot_be_written_hides_neither_the_table_nor_an_unmet_gate(transferred: Cli, tmp_path: Path):
    (tmp_path / "file").touch()
    for gate, code in (("strong.top1 >= 0", 1), ("strong.top1 > 1", 3)):
        outcome = transferred("eval", "--report", "file/report.html", "--require", gate)
        assert outcome.code == code
        assert "file/report.html cannot be written" in outcome.err
        assert "ridge" in outcome.out
