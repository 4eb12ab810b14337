import pickle
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.embedding.conftest import ListReporter
from tests.task.opening import FILES, IMAGES, opened, weak_model
from transmiter_cli.embedding.encoders.models import resolve_model
from transmiter_cli.embedding.workspace import Workspace
from transmiter_cli.errors import TransmiterError, UsageError
from transmiter_cli.files import file_digest
from transmiter_cli.task.finetuned import (
    FinetunedCheckpoint,
    bundled_path,
    finetuned_digest,
    mean_logits,
)


def test_a_head_beside_a_model_is_not_left_aside_in_silence(tmp_path: Path):
    state = load_file(resolve_model("demo-weak").weights)
    inside = {f"clip.{name}": tensor for name, tensor in state.items()}
    torch.save(inside | {"head.weight": torch.randn(3, 64), "head.bias": torch.randn(3)}, tmp_path / "both.pt")
    reporter = ListReporter()
    assert isinstance(opened(tmp_path / "both.pt", tmp_path, reporter), FinetunedCheckpoint)
    assert "both.pt holds more than a model, and head.bias, head.weight are left aside" in reporter.warnings[0]
    torch.save(inside, tmp_path / "alone.pt")
    opened(tmp_path / "alone.pt", tmp_path, reporter)
    assert len(reporter.warnings) == 1


def test_a_checkpoint_that_a_trainer_overwrites_is_told_before_anything_of_it_is_stored(tmp_path: Path):
    state = load_file(resolve_model("demo-weak").weights)
    torch.save(state, tmp_path / "best.pt")
    teacher = opened(tmp_path / "best.pt", tmp_path)
    torch.save({name: value + 0.01 for name, value in state.items()}, tmp_path / "best.pt")
    with pytest.raises(TransmiterError, match=r"weights .*best\.pt changed while they were read"):
        teacher.check(FILES)
    assert not teacher.encoder.folder.exists()
    opened(tmp_path / "best.pt", tmp_path).check(FILES)


def test_an_archive_with_code_says_how_to_have_its_weights(
    tmp_path: Path, recwarn: pytest.WarningsRecorder, monkeypatch: pytest.MonkeyPatch
):
    layer = torch.nn.Linear(64, 3)
    torch.jit.save(torch.jit.script(layer), tmp_path / "jit.pt")
    recwarn.clear()
    with pytest.raises(TransmiterError, match="is an archive of TorchScript") as found:
        opened(tmp_path / "jit.pt", tmp_path)
    assert not recwarn.list
    program, flag, code = shlex.split(str(found.value.fix))
    assert (program, flag) == ("python", "-c")
    monkeypatch.chdir(tmp_path)
    exec(code)
    assert opened(tmp_path / "weights.pt", tmp_path).bias.equal(layer.bias)


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_mask_that_a_traced_model_saves_is_left_out(tmp_path: Path, prefix: str, suffix: str):
    state = load_file(resolve_model("demo-weak").weights)
    traced = {f"{prefix}{name}": tensor for name, tensor in (state | {"attn_mask": torch.zeros(24, 24)}).items()}
    path = tmp_path / f"traced.{suffix}"
    save_file(traced, path) if suffix == "safetensors" else torch.save(traced, path)
    assert opened(path, tmp_path).encoder.encoder.model.logit_scale == state["logit_scale"]


def test_a_bias_of_all_logits_that_the_weak_model_lacks_is_left_out(tmp_path: Path):
    state = load_file(resolve_model("demo-weak").weights)
    torch.save(state | {"logit_bias": torch.tensor(-10.0)}, tmp_path / "siglip.pt")
    assert opened(tmp_path / "siglip.pt", tmp_path).encoder.encoder.model.logit_scale == state["logit_scale"]


@pytest.mark.parametrize("whole", [True, False])
def test_unmerged_lora_says_how_to_merge_it(tmp_path: Path, whole: bool):
    state = load_file(resolve_model("demo-weak").weights) if whole else {}
    layer = "base_model.model.visual.transformer.resblocks.0.mlp.c_fc"
    lora = {f"{layer}.lora_{side}.default.weight": torch.zeros(2, 2) for side in "AB"}
    torch.save(state | lora, tmp_path / "lora.pt")
    with pytest.raises(TransmiterError, match="holds LoRA's matrices") as caught:
        opened(tmp_path / "lora.pt", tmp_path)
    assert "merge_and_unload" in str(caught.value.fix)


def test_what_openais_archives_hold_beside_the_weights_is_left_out(tmp_path: Path):
    state = load_file(resolve_model("demo-weak").weights)
    extra = {"input_resolution": torch.tensor(32), "context_length": torch.tensor(8), "vocab_size": torch.tensor(9)}
    torch.save(state | extra, tmp_path / "openai.pt")
    assert opened(tmp_path / "openai.pt", tmp_path).encoder.encoder.model.logit_scale == state["logit_scale"]


def test_a_checkpoint_has_the_weak_models_architecture(tmp_path: Path):
    teacher = opened("demo-finetuned", tmp_path)
    assert isinstance(teacher, FinetunedCheckpoint)
    assert teacher.encoder.encoder.spec.architecture == resolve_model("demo-weak").architecture
    assert teacher.encoder.name == "demo-finetuned"
    assert torch.equal(teacher.head(), teacher.weight)


def test_embeddings_of_another_architecture_are_no_head_of_the_weak_models(tmp_path: Path):
    other = opened("demo-strong", tmp_path)
    assert isinstance(other, FinetunedCheckpoint)
    assert not other.like_weak
    assert replace(other, encoder=weak_model(tmp_path)).head() is None, "though as wide"


def test_several_teachers_are_averaged_whatever_constant_each_adds_to_a_row(tmp_path: Path):
    head = {"weight": torch.randn(3, 64), "bias": torch.randn(3)}
    save_file(head, tmp_path / "a.safetensors")
    save_file({**head, "bias": head["bias"] + 100}, tmp_path / "b.safetensors")
    rows = torch.arange(6.0).reshape(2, 3)
    save_file({"logits": rows}, tmp_path / "c.safetensors", {"ids": '["a/one.png", "a/two.png"]'})

    def found(*names: str) -> torch.Tensor:
        teachers = [opened(tmp_path / f"{name}.safetensors", tmp_path) for name in names]
        return mean_logits([one.logits(FILES, IMAGES) for one in teachers])

    alone = IMAGES @ head["weight"].T + head["bias"]
    torch.testing.assert_close(found("a"), alone)
    torch.testing.assert_close(found("a", "b"), alone - alone.mean(-1, keepdim=True), atol=1e-4, rtol=0)
    mean = (alone + rows) / 2
    torch.testing.assert_close(found("a", "c"), mean - mean.mean(-1, keepdim=True))


def test_a_checkpoints_activation_is_said_to_be_the_weak_models(tmp_path: Path):
    reporter = ListReporter()
    path = tmp_path / "tuned.safetensors"
    shutil.copy(bundled_path("demo-finetuned"), path)
    opened(path, tmp_path, reporter)
    (note,) = reporter.notes
    assert note == "tuned.safetensors says neither activation nor preprocessing: it gets those of demo-weak."
    opened("demo-finetuned", tmp_path, reporter)
    assert len(reporter.notes) == 1


class Evil:
    def __reduce__(self):
        return print, ("executed",)


def test_a_pickle_that_holds_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for save in (lambda obj, path: torch.save(obj, path), lambda obj, path: path.write_bytes(pickle.dumps(obj))):
        save({"state_dict": Evil()}, tmp_path / "evil.pt")
        with pytest.raises(TransmiterError, match=r"is refused|cannot be read without running"):
            opened(tmp_path / "evil.pt", tmp_path)
    assert "executed" not in capsys.readouterr().out


def test_what_does_not_fit_the_task_is_refused(tmp_path: Path):
    cases = {
        "shape": ({"weight": torch.randn(4, 64)}, {}, r"shape \(4, 64\), but the task has 3 classes"),
        "width": ({"weight": torch.randn(3, 32)}, {}, "embeddings of demo-weak have 64 numbers"),
        "ids": ({"logits": torch.randn(2, 3)}, {}, "which images its rows are"),
        "classes": ({"logits": torch.randn(2, 4)}, {"ids": '["a", "b"]'}, r"shape \(2, 4\)"),
        "turned": ({"logits": torch.randn(3, 2)}, {"ids": '["a", "b", "c"]'}, r"shape \(3, 2\)"),
        "count": ({"logits": torch.randn(2, 3)}, {"ids": '["a"]'}, "1 ids for 2 rows"),
        "bias": ({"weight": torch.randn(3, 64), "bias": torch.zeros(2)}, {}, r"bias in .* has shape \(2,\)"),
        "nan in bias": (
            {"weight": torch.randn(3, 64), "bias": torch.tensor([0.0, torch.nan, 0.0])},
            {},
            "the bias in",
        ),
        "json": ({"logits": torch.randn(1, 3)}, {"ids": "{"}, "is no JSON"),
        "twice": ({"logits": torch.randn(2, 3)}, {"ids": '["a", "a"]'}, "has the image id .a. twice"),
        "nan": ({"logits": torch.full((2, 3), torch.nan)}, {"ids": '["a", "b"]'}, "NaN"),
        "nan in row 1": (
            {"logits": torch.tensor([[1.0, -torch.inf, 0.0], [1.0, torch.nan, 0.0]])},
            {"ids": '["a", "b"]'},
            "first in row 1",
        ),
        "mask": (
            {"logits": torch.tensor([[1.0, -torch.inf, 3.0], [-torch.inf] * 3])},
            {"ids": '["a", "b"]'},
            r"infinite values \(first in row 1",
        ),
    }
    for name, (tensors, metadata, said) in cases.items():
        save_file(tensors, tmp_path / f"{name}.safetensors", metadata)
        with pytest.raises((TransmiterError, ValueError), match=said):
            opened(tmp_path / f"{name}.safetensors", tmp_path)
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(TransmiterError, match="cannot be read"):
        opened(tmp_path / "text.safetensors", tmp_path)
    for name in ("text.pt", "log.csv"):
        (tmp_path / name).write_text("hello")
        with pytest.raises(TransmiterError, match=f"{name} is no file of torch") as found:
            opened(tmp_path / name, tmp_path)
        assert "logits may be in a .npy, their ids in a .txt" in str(found.value.fix)
    torch.save(torch.randn(2, 3), tmp_path / "bare.pt")
    with pytest.raises(TransmiterError, match="holds a tensor without a name") as found:
        opened(tmp_path / "bare.pt", tmp_path)
    assert '{"logits": logits, "ids": ids}' in str(found.value.fix)
    with pytest.raises(UsageError, match="no fine-tuned model"):
        opened(tmp_path / "absent.pt", tmp_path)
    np.save(tmp_path / "alone.npy", np.zeros((2, 3)))
    with pytest.raises(TransmiterError, match=r"alone\.txt is missing"):
        opened(tmp_path / "alone.npy", tmp_path)


def test_a_teachers_digest_covers_all_that_its_answers_come_from(tmp_path: Path):
    workspace = Workspace(cache=tmp_path / "cache")
    np.save(tmp_path / "logits.npy", np.zeros((2, 3), dtype="float32"))
    ids = tmp_path / "logits.txt"
    ids.write_text("a.png\nb.png\n")
    model = shutil.copytree(resolve_model("demo-weak").weights.parent, tmp_path / "model")
    config, tokenizer = model / "open_clip_config.json", model / "tokenizer.json"
    changes = [
        (str(tmp_path / "logits.npy"), ids, "b.png\na.png\n"),
        (f"local-dir:{model}", tokenizer, tokenizer.read_text() + "\n"),
        (f"local-dir:{model}", config, config.read_text().replace("0.5", "0.4")),
    ]
    for given, file, content in changes:
        before = finetuned_digest(given, workspace)
        file.write_text(content)
        assert finetuned_digest(given, workspace) != before
    file = bundled_path("demo-finetuned")
    assert finetuned_digest(str(file), workspace) == file_digest(file), "as in the runs that there are"
