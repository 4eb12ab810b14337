import json
import subprocess
import sys
from pathlib import Path

from tests.cli.conftest import Cli


def test_the_table_fits_80_columns_and_the_summary_goes_to_stderr(cli: Cli):
    outcome = cli("models")
    lines = outcome.out.splitlines()
    assert outcome.code == 0
    assert max(map(len, lines)) <= 80
    assert lines[1].split()[:5] == ["demo-weak", "yes", "64", "32", "GELU"]
    assert "2 on this disk" in outcome.err


def test_json_has_all_fields(cli: Cli, hub_cache: Path):
    shown = json.loads(cli("models", "ViT-B/32", "--json").out)
    assert shown["hub_cache"] == str(hub_cache)
    model = shown["models"][0]
    assert model == {
        "name": "ViT-B/32",
        "width": 512,
        "pixels": 224,
        "activation": "QuickGELU",
        "weights": None,
        "parameters": None,
    }


def test_a_pattern_without_a_match_is_a_usage_error(cli: Cli):
    outcome = cli("models", "zzz")
    assert (outcome.code, outcome.out) == (2, "")
    assert "Try: transmiter models" in outcome.err


def test_the_package_runs_as_a_module():
    line = [sys.executable, "-m", "transmiter_cli", "--version"]
    assert subprocess.run(line, capture_output=True, text=True, check=True).stdout.startswith("transmiter ")
