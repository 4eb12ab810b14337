import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.embedding.conftest import ListReporter
from tests.task.opening import FILES, IMAGES, opened, weak_model
from transmiter_cli.embedding.sources import ImageFile
from transmiter_cli.errors import TransmiterError
from transmiter_cli.task.logits_file import MissingLogitsError


def test_logits_are_found_by_id_or_absolute_path(tmp_path: Path):
    rows = torch.arange(9.0).reshape(3, 3)
    save_file(
        {"logits": rows}, tmp_path / "l.safetensors", {"ids": json.dumps(["./a/two.png", "b/x.png", "a//one.png"])}
    )
    np.save(tmp_path / "n.npy", rows.numpy())
    (tmp_path / "n.txt").write_text("/data/a/two.png\nx.png\n/data/a/one.png\n")
    for name in ("l.safetensors", "n.npy"):
        assert torch.equal(opened(tmp_path / name, tmp_path).logits(FILES, IMAGES), rows[[2, 0]])


def test_absolute_ids_are_found_through_links_to_their_folder(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    rows, files = torch.arange(6.0).reshape(2, 3), [ImageFile(tmp_path / "real", f"{name}.png") for name in "ab"]
    ids = [str(tmp_path / "linked" / "b.png"), str(tmp_path / "real" / "a.png")]
    save_file({"logits": rows}, tmp_path / "l.safetensors", {"ids": json.dumps(ids)})
    assert torch.equal(opened(tmp_path / "l.safetensors", tmp_path).logits(files, IMAGES), rows[[1, 0]])
    ids[1] = str(tmp_path / "real" / "b.png")
    save_file({"logits": rows}, tmp_path / "l.safetensors", {"ids": json.dumps(ids)})
    with pytest.raises(TransmiterError, match=r"two rows for the image '.*/real/b\.png'"):
        opened(tmp_path / "l.safetensors", tmp_path).logits(files, IMAGES)


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
    scale = weak_model(tmp_path).facts.logit_scale
    torch.testing.assert_close(found, scale * rows)
    assert f"taken for cosines, and multiplied with {scale:.4g}, the logit scale of demo-weak." in reporter.warnings[0]


def test_masked_classes_do_not_hide_cosines_and_whole_numbers_are_logits(tmp_path: Path):
    rows = torch.tensor([[0.9, 0.3, -100.0], [0.1, 0.8, -100.0]])
    save_file({"logits": rows}, tmp_path / "c.safetensors", {"ids": '["a/one.png", "a/two.png"]'})
    scale = weak_model(tmp_path).facts.logit_scale
    torch.testing.assert_close(opened(tmp_path / "c.safetensors", tmp_path).logits(FILES, IMAGES), scale * rows)
    whole = torch.tensor([[3, 0, -2], [1, 5, 0]])
    save_file({"logits": whole}, tmp_path / "w.safetensors", {"ids": '["a/one.png", "a/two.png"]'})
    assert torch.equal(opened(tmp_path / "w.safetensors", tmp_path).logits(FILES, IMAGES), whole.float())


def test_logits_whose_rows_sum_to_one_are_no_probabilities(tmp_path: Path):
    rows = torch.tensor([[1.5, -0.5, 0.0], [0.0, 1.5, -0.5]])
    save_file({"logits": rows}, tmp_path / "l.safetensors", {"ids": '["a/one.png", "a/two.png"]'})
    found = opened(tmp_path / "l.safetensors", tmp_path, reporter := ListReporter()).logits(FILES, IMAGES)
    assert torch.equal(found, rows)
    assert not reporter.notes + reporter.warnings


@pytest.mark.parametrize(
    ("mask", "dtype"),
    [
        (-torch.inf, torch.float32),
        (torch.finfo(torch.float32).min, torch.float32),
        (-torch.inf, torch.float16),
        (-torch.inf, torch.bfloat16),
    ],
)
def test_classes_masked_by_minus_infinity_get_the_lowest_logit(tmp_path: Path, mask: float, dtype: torch.dtype):
    rows = torch.tensor([[2.0, -3.0, mask], [1.0, 0.5, mask]], dtype=dtype)
    save_file({"logits": rows}, tmp_path / "l.safetensors", {"ids": '["a/one.png", "a/two.png"]'})
    found = opened(tmp_path / "l.safetensors", tmp_path).logits(FILES, IMAGES)
    assert torch.equal(found, torch.tensor([[2.0, -3.0, -3.0], [1.0, 0.5, -3.0]]))


def test_images_are_found_whatever_way_leads_to_them(tmp_path: Path):
    rows = torch.arange(6.0).reshape(2, 3)
    ids = ["/data/a/one.png", "/data/a/two.png"]
    torch.save({"logits": rows, "ids": ids}, tmp_path / "l.pt")
    files = [ImageFile(Path("/data/b/.."), f"a/{name}.png") for name in ("two", "one")]
    assert torch.equal(opened(tmp_path / "l.pt", tmp_path).logits(files, IMAGES), rows[[1, 0]])


def test_ids_are_lines_whatever_else_ends_a_line_elsewhere(tmp_path: Path):
    files = [ImageFile(Path("/data"), name) for name in ("a\u2028b.png", "c\x85d.png")]
    np.save(tmp_path / "x.npy", np.eye(2, 3, dtype=np.float32))
    (tmp_path / "x.txt").write_text("".join(f"{file.id}\n" for file in files), encoding="utf-8")
    assert opened(tmp_path / "x.npy", tmp_path).logits(files, IMAGES).argmax(-1).tolist() == [0, 1]


def test_the_same_file_name_in_another_folder_is_another_image(tmp_path: Path):
    save_file({"logits": torch.randn(2, 3)}, tmp_path / "l.safetensors", {"ids": '["b/one.png", "one.png"]'})
    with pytest.raises(MissingLogitsError, match="no logits for 2 images"):
        opened(tmp_path / "l.safetensors", tmp_path).logits(FILES, IMAGES)


def test_images_without_logits_are_named(tmp_path: Path):
    save_file({"logits": torch.randn(1, 3)}, tmp_path / "l.safetensors", {"ids": '["a/two.png"]'})
    with pytest.raises(MissingLogitsError, match=r"no logits for 1 images, 'a/one\.png'"):
        opened(tmp_path / "l.safetensors", tmp_path).logits(FILES, IMAGES)


def test_logits_that_are_a_list_are_told_to_be_no_tensor(tmp_path: Path):
    torch.save({"logits": [[1.0, 2.0, 3.0]], "ids": ["a/one.png"]}, tmp_path / "l.pt")
    with pytest.raises(TransmiterError, match="are no tensor, but a list") as caught:
        opened(tmp_path / "l.pt", tmp_path)
    assert "torch.tensor(logits)" in str(caught.value.fix)
