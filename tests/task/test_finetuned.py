import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.embedding.conftest import ListReporter
from transmiter_cli.embedding.models import resolve_model
from transmiter_cli.embedding.prompts import Templates
from transmiter_cli.embedding.sources import ImageFile
from transmiter_cli.embedding.workspace import Workspace
from transmiter_cli.errors import TransmiterError, UsageError
from transmiter_cli.reporter import Reporter
from transmiter_cli.task.finetuned import (
    CheckpointTeacher,
    bundled_path,
    mean_teacher,
    open_teacher,
)
from transmiter_cli.task.logits_file import MissingLogitsError

FILES = [ImageFile(Path("/data"), f"a/{name}.png", "a") for name in ("one", "two")]
IMAGES = torch.nn.functional.normalize(torch.randn(2, 64, generator=torch.Generator().manual_seed(0)), dim=-1)


def opened(given: Path | str, tmp_path: Path, reporter: Reporter | None = None):
    names = [f"class {i}" for i in range(3)]
    workspace = Workspace(cache=tmp_path / "cache", reporter=reporter or Reporter())
    return open_teacher(str(given), workspace, resolve_model("demo-weak"), 64, 10.0, names, Templates(("a {}",)))


@pytest.mark.parametrize("prefix", ["", "fc."])
def test_a_linear_probe_is_taken_as_it_is_whatever_stands_before_its_names(tmp_path: Path, prefix: str):
    weight, bias = torch.randn(3, 64), torch.randn(3)
    head = {f"{prefix}weight": weight, f"{prefix}bias": bias}
    save_file(head, tmp_path / "head.safetensors")
    torch.save(head, tmp_path / "head.pt")
    for name in ("head.safetensors", "head.pt"):
        found = opened(tmp_path / name, tmp_path).logits(FILES, IMAGES)
        torch.testing.assert_close(found, IMAGES @ weight.T + bias)


def test_a_tensor_of_an_unknown_name_and_a_transposed_head_say_what_mends_them(tmp_path: Path):
    save_file({"w": torch.randn(3, 64)}, tmp_path / "w.safetensors")
    with pytest.raises(TransmiterError, match="no checkpoint, for it holds 'w' alone; a head has 'weight'"):
        opened(tmp_path / "w.safetensors", tmp_path)
    save_file({"weight": torch.randn(64, 3)}, tmp_path / "t.safetensors")
    with pytest.raises(TransmiterError) as found:
        opened(tmp_path / "t.safetensors", tmp_path)
    assert "transpose" in str(found.value.fix)


def test_text_features_of_tuned_prompts_get_the_logit_scale(tmp_path: Path):
    features = torch.nn.functional.normalize(torch.randn(3, 64), dim=-1)
    save_file({"weight": features}, tmp_path / "prompts.safetensors")
    found = opened(tmp_path / "prompts.safetensors", tmp_path).logits(FILES, IMAGES)
    torch.testing.assert_close(found, 10.0 * IMAGES @ features.T)


def test_logits_are_found_by_id_or_absolute_path(tmp_path: Path):
    rows = torch.arange(9.0).reshape(3, 3)
    save_file(
        {"logits": rows}, tmp_path / "l.safetensors", {"ids": json.dumps(["./a/two.png", "b/x.png", "a//one.png"])}
    )
    np.save(tmp_path / "n.npy", rows.numpy())
    (tmp_path / "n.txt").write_text("/data/a/two.png\nx.png\n/data/a/one.png\n")
    for name in ("l.safetensors", "n.npy"):
        assert torch.equal(opened(tmp_path / name, tmp_path).logits(FILES, IMAGES), rows[[2, 0]])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_probabilities_give_the_logits_of_their_softmax(tmp_path: Path, dtype: torch.dtype):
    logits = torch.tensor([[3.0, -1.0, 0.0], [-2.0, 1.0, 90.0]])
    save_file(
        {"logits": logits.softmax(-1).to(dtype)}, tmp_path / "p.safetensors", {"ids": '["a/one.png", "a/two.png"]'}
    )
    np.save(tmp_path / "n.npy", logits.softmax(-1).numpy())
    (tmp_path / "n.txt").write_text("a/one.png\na/two.png\n")
    for name in ("p.safetensors", "n.npy"):
        found = opened(tmp_path / name, tmp_path, reporter := ListReporter()).logits(FILES, IMAGES)
        torch.testing.assert_close(found[0] - found[0, 0], logits[0] - logits[0, 0], atol=1e-2, rtol=0)
        assert found.isfinite().all()
        assert found[1].argmax() == 2
        assert "are probabilities: their logarithms are taken" in reporter.notes[0]


def test_cosines_get_the_logit_scale_and_it_is_said(tmp_path: Path):
    rows = torch.tensor([[0.9, 0.3, 0.2], [0.1, 0.8, -0.2]])
    save_file({"logits": rows}, tmp_path / "c.safetensors", {"ids": '["a/one.png", "a/two.png"]'})
    found = opened(tmp_path / "c.safetensors", tmp_path, reporter := ListReporter()).logits(FILES, IMAGES)
    torch.testing.assert_close(found, 10.0 * rows)
    assert "taken for cosines, and multiplied with 10, the logit scale of demo-weak." in reporter.warnings[0]


def test_masked_classes_do_not_hide_cosines_and_whole_numbers_are_logits(tmp_path: Path):
    rows = torch.tensor([[0.9, 0.3, -100.0], [0.1, 0.8, -100.0]])
    save_file({"logits": rows}, tmp_path / "c.safetensors", {"ids": '["a/one.png", "a/two.png"]'})
    torch.testing.assert_close(opened(tmp_path / "c.safetensors", tmp_path).logits(FILES, IMAGES), 10.0 * rows)
    whole = torch.tensor([[3, 0, -2], [1, 5, 0]])
    save_file({"logits": whole}, tmp_path / "w.safetensors", {"ids": '["a/one.png", "a/two.png"]'})
    assert torch.equal(opened(tmp_path / "w.safetensors", tmp_path).logits(FILES, IMAGES), whole.float())


def test_logits_whose_rows_sum_to_one_are_no_probabilities(tmp_path: Path):
    rows = torch.tensor([[1.5, -0.5, 0.0], [0.0, 1.5, -0.5]])
    save_file({"logits": rows}, tmp_path / "l.safetensors", {"ids": '["a/one.png", "a/two.png"]'})
    found = opened(tmp_path / "l.safetensors", tmp_path, reporter := ListReporter()).logits(FILES, IMAGES)
    assert torch.equal(found, rows)
    assert not reporter.notes + reporter.warnings


@pytest.mark.parametrize("mask", [-torch.inf, torch.finfo(torch.float32).min])
def test_classes_masked_by_minus_infinity_get_the_lowest_logit(tmp_path: Path, mask: float):
    rows = torch.tensor([[2.0, -3.0, mask], [1.0, 0.5, mask]])
    save_file({"logits": rows}, tmp_path / "l.safetensors", {"ids": '["a/one.png", "a/two.png"]'})
    found = opened(tmp_path / "l.safetensors", tmp_path).logits(FILES, IMAGES)
    assert torch.equal(found, torch.tensor([[2.0, -3.0, -3.0], [1.0, 0.5, -3.0]]))


def test_the_same_file_name_in_another_folder_is_another_image(tmp_path: Path):
    save_file({"logits": torch.randn(2, 3)}, tmp_path / "l.safetensors", {"ids": '["b/one.png", "one.png"]'})
    with pytest.raises(MissingLogitsError, match="no logits for 2 images"):
        opened(tmp_path / "l.safetensors", tmp_path).logits(FILES, IMAGES)


def test_images_without_logits_are_named(tmp_path: Path):
    save_file({"logits": torch.randn(1, 3)}, tmp_path / "l.safetensors", {"ids": '["a/two.png"]'})
    with pytest.raises(MissingLogitsError, match=r"no logits for 1 images, 'a/one\.png'"):
        opened(tmp_path / "l.safetensors", tmp_path).logits(FILES, IMAGES)


def test_a_checkpoint_has_the_weak_models_architecture(tmp_path: Path):
    teacher = opened("demo-finetuned", tmp_path)
    assert isinstance(teacher, CheckpointTeacher)
    assert teacher.encoder.encoder.spec.architecture == resolve_model("demo-weak").architecture
    assert teacher.encoder.name == "demo-finetuned"


def test_several_teachers_are_averaged_whatever_constant_each_adds_to_a_row(tmp_path: Path):
    head = {"weight": torch.randn(3, 64), "bias": torch.randn(3)}
    save_file(head, tmp_path / "a.safetensors")
    save_file({**head, "bias": head["bias"] + 100}, tmp_path / "b.safetensors")
    rows = torch.arange(6.0).reshape(2, 3)
    save_file({"logits": rows}, tmp_path / "c.safetensors", {"ids": '["a/one.png", "a/two.png"]'})
    arguments = (
        Workspace(tmp_path / "cache"),
        resolve_model("demo-weak"),
        64,
        10.0,
        ["x", "y", "z"],
        Templates(("a {}",)),
    )

    def found(*names: str) -> torch.Tensor:
        teachers = [open_teacher(str(tmp_path / f"{name}.safetensors"), *arguments) for name in names]
        return mean_teacher(teachers).logits(FILES, IMAGES)

    alone = IMAGES @ head["weight"].T + head["bias"]
    torch.testing.assert_close(found("a"), alone)
    torch.testing.assert_close(found("a", "b"), alone - alone.mean(-1, keepdim=True), atol=1e-4, rtol=0)
    mean = (alone + rows) / 2
    torch.testing.assert_close(found("a", "c"), mean - mean.mean(-1, keepdim=True))


def test_a_checkpoints_activation_is_said_to_be_the_weak_models(tmp_path: Path):
    reporter = ListReporter()
    arguments = (
        Workspace(tmp_path, reporter=reporter),
        resolve_model("demo-weak"),
        64,
        10.0,
        ["x", "y"],
        Templates(("a {}",)),
    )
    path = tmp_path / "tuned.safetensors"
    shutil.copy(bundled_path("demo-finetuned"), path)
    open_teacher(str(path), *arguments)
    (note,) = reporter.notes
    assert note == ("tuned.safetensors says neither activation nor preprocessing: it gets those of demo-weak (GELU).")
    open_teacher("demo-finetuned", *arguments)
    assert len(reporter.notes) == 1


class Evil:
    def __reduce__(self):
        return print, ("executed",)


def test_a_pickle_that_holds_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for save in (lambda obj, path: torch.save(obj, path), lambda obj, path: path.write_bytes(pickle.dumps(obj))):
        save({"state_dict": Evil()}, tmp_path / "evil.pt")
        with pytest.raises(TransmiterError, match=r"refused|cannot be read"):
            opened(tmp_path / "evil.pt", tmp_path)
    assert "executed" not in capsys.readouterr().out


def test_what_does_not_fit_the_task_is_refused(tmp_path: Path):
    cases = {
        "shape": ({"weight": torch.randn(4, 64)}, {}, r"shape \(4, 64\), but the task has 3 classes"),
        "width": ({"weight": torch.randn(3, 32)}, {}, "embeddings have 64 numbers"),
        "ids": ({"logits": torch.randn(2, 3)}, {}, "which images its rows are"),
        "classes": ({"logits": torch.randn(2, 4)}, {"ids": '["a", "b"]'}, r"shape \(2, 4\)"),
        "turned": ({"logits": torch.randn(3, 2)}, {"ids": '["a", "b", "c"]'}, r"shape \(3, 2\)"),
        "count": ({"logits": torch.randn(2, 3)}, {"ids": '["a"]'}, "1 ids for 2 rows"),
        "bias": ({"weight": torch.randn(3, 64), "bias": torch.zeros(2)}, {}, r"bias in .* has shape \(2,\)"),
        "json": ({"logits": torch.randn(1, 3)}, {"ids": "{"}, "is no JSON"),
        "twice": ({"logits": torch.randn(2, 3)}, {"ids": '["a", "a"]'}, "has the image id .a. twice"),
        "nan": ({"logits": torch.full((2, 3), torch.nan)}, {"ids": '["a", "b"]'}, "NaN"),
        "nan in row 1": (
            {"logits": torch.tensor([[1.0, -torch.inf, 0.0], [1.0, torch.nan, 0.0]])},
            {"ids": '["a", "b"]'},
            "first in row 1",
        ),
        "mask": ({"logits": torch.full((2, 3), -torch.inf)}, {"ids": '["a", "b"]'}, "infinite"),
    }
    for name, (tensors, metadata, said) in cases.items():
        save_file(tensors, tmp_path / f"{name}.safetensors", metadata)
        with pytest.raises((TransmiterError, ValueError), match=said):
            opened(tmp_path / f"{name}.safetensors", tmp_path)
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(TransmiterError, match="cannot be read"):
        opened(tmp_path / "text.safetensors", tmp_path)
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(TransmiterError, match="cannot be read"):
        opened(tmp_path / "text.pt", tmp_path)
    with pytest.raises(UsageError, match="no fine-tuned model"):
        opened(tmp_path / "absent.pt", tmp_path)
    np.save(tmp_path / "alone.npy", np.zeros((2, 3)))
    with pytest.raises(TransmiterError, match=r"alone\.txt is missing"):
        opened(tmp_path / "alone.npy", tmp_path)
