"""transmiter eval --report, from a run to a page."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Cli
from tests.cli.test_errors import FIT, failed


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
