"""Nothing touches the network with HF_HUB_OFFLINE=1, and models from the hub's cache do the whole job."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.e2e.conftest import COMMAND
from tests.offline import GuardedProcess, add_to_hub
from transmiter_cli.embedding.encoders.models import resolve_model
from transmiter_cli.task.finetuned import bundled_path


def test_hub_models_do_the_whole_job_offline(tmp_path: Path):
    hub = tmp_path / "hub"
    for name in ("demo-weak", "demo-strong"):
        add_to_hub(hub, f"org/{name}", *resolve_model(name).weights.parent.iterdir())
    process = GuardedProcess(tmp_path / "guarded", hub)

    def transmiter(line: str) -> str:
        command = [str(COMMAND), *line.split()]
        done = subprocess.run(command, cwd=tmp_path, env=process.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    tuned = bundled_path("demo-finetuned")
    common = "--data demo-digits --aux-words characters --epochs 1"
    transmiter(f"fit --weak hf-hub:org/demo-weak --finetuned {tuned} {common}")
    transmiter("transfer --strong hf-hub:org/demo-strong")
    rows = json.loads(transmiter("eval --json"))["rows"]
    assert rows["transferred"]["top1"] > rows["strong"]["top1"]
    assert "hf-hub:org/demo-weak" in transmiter("models hf-hub --downloaded")
    assert process.used_network() == ""


def test_missing_files_are_named_without_a_look_at_the_network(tmp_path: Path):
    process = GuardedProcess(tmp_path / "guarded", tmp_path / "hub")
    for name in ("ViT-B/32", "ViT-B-16-SigLIP:webli", "hf-hub:org/absent"):
        command = [str(COMMAND), "embed", "--model", name, "--data", "demo-digits"]
        done = subprocess.run(command, env=process.environment, capture_output=True, text=True)
        assert done.returncode == 1, done.stderr
        assert f"of {name} cannot be had" in done.stderr
        assert str(tmp_path / "hub") in done.stderr
        assert "Try: HF_HUB_OFFLINE=0 hf download" in done.stderr
    assert process.used_network() == ""


def test_the_guard_notices_the_network(tmp_path: Path):
    process = GuardedProcess(tmp_path / "guarded", tmp_path / "hub", offline=False)
    command = [str(COMMAND), "embed", "--model", "ViT-B/32", "--data", "demo-digits"]
    done = subprocess.run(command, env=process.environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "huggingface.co" in process.used_network()
