"""The Python examples of docs/ run as they stand, and what they save is what the commands take."""

import json
import re
import shutil
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from transmiter_cli.embedding.encoders.encoder import Encoder
from transmiter_cli.embedding.encoders.models import resolve_model, with_weights
from transmiter_cli.embedding.encoders.prompts import Templates
from transmiter_cli.embedding.workspace import CachedEncoder, Workspace
from transmiter_cli.task.finetuned import open_finetuned
from transmiter_cli.task.head_file import FinetunedHead
from transmiter_cli.task.logits_file import FinetunedLogits

DOCS = Path(__file__).parents[1] / "docs"


def run_examples(document: str) -> dict[str, object]:
    names: dict[str, object] = {}
    for example in re.findall(r"```python\n(.*?)```", (DOCS / document).read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(example, document, "exec"), names)
    return names


def small_model(width: int, folder: Path, workspace: Workspace) -> CachedEncoder:
    """A model like demo-weak with embeddings of this width, and random weights."""
    shutil.copytree(resolve_model("demo-weak").weights.parent, folder)
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["embed_dim"] = width
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    spec = resolve_model(f"local-dir:{folder}")
    model = open_clip.create_model(spec.architecture, load_weights=False)
    save_file(model.state_dict(), spec.weights)
    return workspace.open(spec)


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    monkeypatch.chdir(tmp_path)
    return run_examples("finetuned.md")


def test_heads_and_logits_of_the_examples_are_taken(examples: dict[str, object], tmp_path: Path):
    weak = small_model(512, tmp_path / "model", Workspace(cache=tmp_path / "cache"))
    kinds = {"prompts.safetensors": FinetunedHead, "probe.safetensors": FinetunedHead}
    for name, kind in {**kinds, "logits.safetensors": FinetunedLogits, "logits.pt": FinetunedLogits}.items():
        given = str(tmp_path / name)
        assert isinstance(open_finetuned(given, weak, [*"abcdefghij"], Templates(("a {}",))), kind)


def test_a_lora_checkpoint_merges_into_an_ordinary_one(examples: dict[str, object], tmp_path: Path):
    weak = resolve_model("demo-weak")
    plain = load_file(weak.weights)
    names = [name for name in plain if name.endswith(("mlp.c_fc.weight", "mlp.c_proj.weight"))]
    peft = {f"base_model.model.{name}": value for name, value in plain.items()}
    expected = dict(plain)
    for name in names:
        layer = f"base_model.model.{name.removesuffix('.weight')}"
        for part in ("weight", "bias"):
            peft[f"{layer}.base_layer.{part}"] = peft.pop(f"{layer}.{part}")
        rows, columns = plain[name].shape
        peft[f"{layer}.lora_A.default.weight"] = 0.1 * torch.randn(2, columns)
        peft[f"{layer}.lora_B.default.weight"] = 0.1 * torch.randn(rows, 2)
        update = peft[f"{layer}.lora_B.default.weight"] @ peft[f"{layer}.lora_A.default.weight"]
        expected[name] = plain[name] + 4.0 * update
    assert names
    merged = examples["merge_lora"](peft, 4.0)  # type: ignore[operator]
    assert set(merged) == set(plain)
    for name, value in expected.items():
        torch.testing.assert_close(merged[name], value)
    torch.save(merged, tmp_path / "merged.pt")
    spec = with_weights(weak, tmp_path / "merged.pt", "merged")
    texts = ["a photo of a seven."]
    found = Encoder(spec, torch.device("cpu")).encode_texts(texts)
    assert not torch.allclose(found, Encoder(weak, torch.device("cpu")).encode_texts(texts), atol=1e-3)


def test_the_evaluation_example_runs(capsys: pytest.CaptureFixture[str]):
    rows = run_examples("evaluation.md")["rows"]
    assert rows["eft"].hm is not None  # type: ignore[index]
    assert rows["eft"].gain > 0.1, "EFT is shown where it helps"  # type: ignore[index]
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_the_bench_example_is_of_the_grammar(tmp_path: Path):
    from transmiter_cli.bench.spec import read_spec

    (example,) = re.findall(r"```toml\n(.*?)```", (DOCS / "evaluation.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "bench.toml").write_text(example)
    assert len(list(read_spec(tmp_path / "bench.toml").scenes())) == 30
