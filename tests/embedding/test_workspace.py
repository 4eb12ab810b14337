import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.embedding.conftest import write_image
from transmiter_cli.embedding import filling
from transmiter_cli.embedding import workspace as workspace_module
from transmiter_cli.embedding.encoders.encoder import WrongCheckpointError
from transmiter_cli.embedding.encoders.models import resolve_model, with_weights
from transmiter_cli.embedding.encoders.prompts import Templates
from transmiter_cli.embedding.found import NoImagesError
from transmiter_cli.embedding.sources import open_images
from transmiter_cli.embedding.views import with_views
from transmiter_cli.embedding.workspace import CachedEncoder, Workspace
from transmiter_cli.errors import TransmiterError
from transmiter_cli.files import file_digest
from transmiter_cli.method.embeddings import InvalidTensorError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(6):
        write_image(tmp_path / "data" / f"{number}.png", shade=40 * number)
    return tmp_path / "data"


def embed(encoder: CachedEncoder, folder: Path):
    return encoder.image_embeddings(open_images(str(folder), None).files)


def test_the_second_time_nothing_is_decoded(weak: CachedEncoder, folder: Path, monkeypatch: pytest.MonkeyPatch):
    first = embed(weak, folder)
    monkeypatch.setattr(filling, "map_batches", None)
    again = embed(weak.workspace.open(weak.encoder.spec), folder)
    assert torch.equal(first.rows, again.rows)
    assert weak.workspace.reporter.notes == [
        "demo-weak: 6 images, 6 decoded and encoded.",
        "demo-weak: 6 images, all from the cache, none decoded.",
    ]


def test_only_new_and_changed_images_are_encoded(weak: CachedEncoder, folder: Path):
    first = embed(weak, folder)
    write_image(folder / "6.png", shade=7)
    write_image(folder / "0.png", shade=99)
    os.utime(folder / "0.png", ns=(1, 1))
    second = embed(weak, folder)
    assert weak.workspace.reporter.notes[-1] == "demo-weak: 7 images, 2 decoded and encoded."
    assert torch.equal(first.rows[1:], second.rows[1:6])
    assert not torch.equal(first.rows[0], second.rows[0])


def test_images_are_known_wherever_they_lie_and_whenever_they_were_written(weak: CachedEncoder, folder: Path):
    first = embed(weak, folder)
    for path in folder.iterdir():
        os.utime(path, ns=(1, 1))
    assert embed(weak, folder).encoded == 0
    moved = folder.rename(folder.with_name("moved"))
    shutil.copy(moved / "5.png", moved / "6.png")
    found = embed(weak.workspace.open(weak.encoder.spec), moved)
    assert (found.encoded, len(found.rows)) == (0, 7)
    assert torch.equal(found.rows, torch.cat([first.rows, first.rows[5:]]))


def test_content_that_takes_the_place_of_another_is_not_taken_for_it(weak: CachedEncoder, folder: Path):
    first = embed(weak, folder)
    (folder / "0.png").rename(folder / "x")
    (folder / "1.png").rename(folder / "0.png")
    (folder / "x").rename(folder / "1.png")
    found = embed(weak, folder)
    assert torch.equal(found.rows, first.rows[[1, 0, 2, 3, 4, 5]])
    assert not torch.equal(found.rows[0], found.rows[1])


def test_every_copy_of_an_image_that_cannot_be_decoded_is_named(weak: CachedEncoder, folder: Path):
    for name in ("1.png", "7.png"):
        (folder / name).write_text("not a picture")
    found = embed(weak, folder)
    assert [(Path(one.name).name, one.reason) for one in found.skipped] == [
        (name, "not an image that Pillow reads") for name in ("1.png", "7.png")
    ]


def test_images_that_cannot_be_decoded_are_skipped_and_named(weak: CachedEncoder, folder: Path):
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:60])
    (folder / "2.png").write_bytes(b"")
    (folder / "3.png").write_text("not a picture")
    found = embed(weak, folder)
    assert found.kept == [0, 4, 5]
    assert {Path(skipped.name).name for skipped in found.skipped} == {"1.png", "2.png", "3.png"}
    said = " ".join(weak.workspace.reporter.warnings)
    assert "2.png: empty file" in said
    assert "3.png: not an image" in said


def test_every_link_to_an_image_that_cannot_be_decoded_is_named_and_counted(weak: CachedEncoder, folder: Path):
    (folder / "1.png").write_bytes(b"")
    for link, target in (("7.png", "1.png"), ("8.png", "1.png"), ("9.png", "2.png")):
        (folder / link).symlink_to(folder / target)
    found = embed(weak, folder)
    assert found.kept == [0, 2, 3, 4, 5, 8]
    expected = [(name, "empty file") for name in ("1.png", "7.png", "8.png")]
    assert [(Path(one.name).name, one.reason) for one in found.skipped] == expected
    assert weak.workspace.reporter.notes == ["demo-weak: 6 images, 5 decoded and encoded."]
    said = [f"Skipped {folder / name}: {reason}." for name, reason in expected]
    assert weak.workspace.reporter.warnings == said
    stored = weak.store_images(open_images(str(folder), None).files)
    assert (int(stored.stored.sum()), len(stored.skipped)) == (6, 3)


def test_a_strict_workspace_fails_but_keeps_what_it_encoded(weak: CachedEncoder, folder: Path):
    (folder / "5.png").write_bytes(b"")
    strict = replace(weak.workspace, strict=True).open(weak.encoder.spec)
    with pytest.raises(TransmiterError, match=r"1 of 6 images cannot be decoded.*5\.png: empty file"):
        embed(strict, folder)
    assert weak.workspace.reporter.warnings == [f"Cannot decode {folder / '5.png'}: empty file."]
    (folder / "5.png").unlink()
    embed(weak, folder)
    assert "none decoded" in weak.workspace.reporter.notes[-1]


def test_views_are_not_counted_as_images(weak: CachedEncoder, folder: Path):
    (folder / "5.png").write_bytes(b"")
    files = with_views(open_images(str(folder), None).files, 2, 0)
    weak.image_embeddings(files)
    assert weak.workspace.reporter.notes == ["demo-weak: 5 images and 10 views of them, 15 decoded and encoded."]
    weak.workspace = replace(weak.workspace, strict=True)
    with pytest.raises(TransmiterError, match=r"1 of 6 images cannot be decoded"):
        weak.image_embeddings(files)


def test_no_images_are_not_said_to_be_from_the_cache(weak: CachedEncoder, folder: Path):
    for path in folder.iterdir():
        path.write_bytes(b"")
    with pytest.raises(NoImagesError, match="6 of 6 images cannot be decoded"):
        embed(weak, folder)
    assert weak.workspace.reporter.notes == []


def test_what_was_encoded_before_a_crash_is_kept(weak: CachedEncoder, folder: Path, monkeypatch: pytest.MonkeyPatch):
    real = filling.map_batches

    def dies_after_one_batch(*args: object):
        yield next(iter(real(*args)))
        raise KeyboardInterrupt

    monkeypatch.setattr(filling, "map_batches", dies_after_one_batch)
    with pytest.raises(KeyboardInterrupt):
        embed(weak, folder)
    monkeypatch.setattr(filling, "map_batches", real)
    embed(weak, folder)
    assert weak.workspace.reporter.notes == ["demo-weak: 6 images, 2 decoded and encoded."]


def test_a_damaged_shard_is_computed_anew(weak: CachedEncoder, folder: Path):
    first = embed(weak, folder)
    (shard,) = (weak.folder / "images").glob("*.safetensors")
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    again = embed(weak, folder)
    assert torch.equal(again.rows, first.rows)
    assert "damaged" in weak.workspace.reporter.warnings[0]


def test_one_image_in_many_shards_and_batches_is_the_same(weak: CachedEncoder, folder: Path, monkeypatch, tmp_path):
    expected = embed(weak, folder).rows
    monkeypatch.setattr(filling, "SHARD_ROWS", 2)
    other = Workspace(cache=tmp_path / "other", batch_size=1).open(weak.encoder.spec)
    torch.testing.assert_close(embed(other, folder).rows, expected, atol=1e-5, rtol=1e-5)
    assert len(list((other.folder / "images").glob("*.safetensors"))) == 3


def test_names_are_the_normalised_mean_of_their_prompts(weak: CachedEncoder):
    found = weak.text_embeddings(["seven", "letter g"], Templates(("a photo of a {}.", "the {}")))
    prompts = weak.encoder.encode_texts(["a photo of a seven.", "the seven", "a photo of a letter g.", "the letter g"])
    mean = prompts.view(2, 2, -1).mean(1)
    torch.testing.assert_close(found, mean / mean.norm(dim=-1, keepdim=True), atol=1e-5, rtol=1e-5)


def test_a_name_with_prompts_of_its_own_is_the_mean_of_those_alone(weak: CachedEncoder):
    templates = Templates(("a {}.",), {"cat": ("a tabby", "a {} on a sofa", "whiskers")})
    found = weak.text_embeddings(["dog", "cat"], templates)
    prompts = weak.encoder.encode_texts(["a dog.", "a tabby", "a cat on a sofa", "whiskers"])
    mean = torch.stack([prompts[0], prompts[1:].mean(0)])
    torch.testing.assert_close(found, mean / mean.norm(dim=-1, keepdim=True), atol=1e-5, rtol=1e-5)


def test_images_that_are_gone_are_skipped_and_named(weak: CachedEncoder, folder: Path):
    files = open_images(str(folder), None).files
    (folder / "2.png").unlink()
    found = weak.image_embeddings(files)
    assert found.kept == [0, 1, 3, 4, 5]
    assert [(Path(skipped.name).name, skipped.reason) for skipped in found.skipped] == [
        ("2.png", "No such file or directory")
    ]
    strict = replace(weak.workspace, strict=True).open(weak.encoder.spec)
    with pytest.raises(TransmiterError, match=r"1 of 6 images cannot be decoded.*2\.png: No such file"):
        strict.image_embeddings(files)


def test_the_fingerprint_is_of_what_is_computed(workspace: Workspace, weak: CachedEncoder, tmp_path: Path):
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(weak.encoder.spec.weights.read_bytes())
    os.utime(copy, (1, 1))  # a clock ticks every few milliseconds, and the next change may come sooner
    assert workspace.open(with_weights(weak.encoder.spec, copy, "copy")).fingerprint == weak.fingerprint
    assert workspace.open(resolve_model("demo-strong")).fingerprint != weak.fingerprint
    tuned = with_weights(weak.encoder.spec, resolve_model("demo-strong").weights, "other weights")
    assert workspace.open(tuned).fingerprint != weak.fingerprint


def test_weights_replaced_by_others_of_the_same_size_are_another_model(
    workspace: Workspace, weak: CachedEncoder, tmp_path: Path
):
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(weak.encoder.spec.weights.read_bytes())
    os.utime(copy, (1, 1))  # a clock ticks every few milliseconds, and the next change may come sooner
    spec = with_weights(weak.encoder.spec, copy, "copy")
    before = workspace.open(spec).fingerprint
    copy.write_bytes(copy.read_bytes()[:-1] + b"x")
    os.utime(copy, ns=(1, 1))
    assert workspace.open(spec).fingerprint != before


def replaced(weights: Path, by: Path) -> None:
    """Weights as a trainer writes them anew: whole, in one step."""
    other = weights.with_suffix(".new")
    save_file({name: value + 0.01 for name, value in load_file(by).items()}, other)
    other.replace(weights)


@pytest.mark.parametrize("asked", ["images", "texts", "facts"])
def test_nothing_of_weights_that_changed_since_they_were_identified_is_stored(
    workspace: Workspace, weak: CachedEncoder, folder: Path, tmp_path: Path, asked: str
):
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(weak.encoder.spec.weights.read_bytes())
    os.utime(copy, (1, 1))  # a clock ticks every few milliseconds, and the next change may come sooner
    opened = workspace.open(with_weights(weak.encoder.spec, copy, "copy"))
    replaced(copy, weak.encoder.spec.weights)
    with pytest.raises(TransmiterError, match=r"weights .*copy\.safetensors changed while they were read") as caught:
        {
            "images": lambda: embed(opened, folder),
            "texts": lambda: opened.text_embeddings(["seven"], Templates()),
            "facts": lambda: opened.facts,
        }[asked]()
    assert caught.value.fix == "run the command again"
    assert not [*opened.folder.rglob("*.safetensors"), *opened.folder.rglob("*.json")]
    again = workspace.open(with_weights(weak.encoder.spec, copy, "copy"))
    assert again.fingerprint != opened.fingerprint
    assert again.facts.logit_scale != weak.facts.logit_scale


def test_weights_that_change_while_they_are_digested_are_no_others_memo(
    workspace: Workspace, weak: CachedEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(weak.encoder.spec.weights.read_bytes())
    os.utime(copy, (1, 1))  # a clock ticks every few milliseconds, and the next change may come sooner
    before, time = copy.read_bytes(), copy.stat().st_mtime_ns

    def late(path: Path) -> str:
        replaced(path, weak.encoder.spec.weights)
        return file_digest(path)

    monkeypatch.setattr(workspace_module, "file_digest", late)
    opened = workspace.open(with_weights(weak.encoder.spec, copy, "copy"))
    monkeypatch.undo()
    with pytest.raises(TransmiterError, match="changed while they were read"):
        _ = opened.facts
    copy.write_bytes(before)
    os.utime(copy, ns=(time, time))
    assert workspace.open(with_weights(weak.encoder.spec, copy, "copy")).fingerprint == weak.fingerprint


@pytest.mark.parametrize("content", [b"\xff" * 64, b"0123", b""])
def test_a_damaged_digest_of_weights_is_computed_anew(workspace: Workspace, weak: CachedEncoder, content: bytes):
    (memo,) = (workspace.cache / "weights").iterdir()
    before = memo.read_bytes()
    memo.write_bytes(content)
    assert workspace.open(weak.encoder.spec).fingerprint == weak.fingerprint
    assert memo.read_bytes() == before


def test_a_logit_scale_that_is_no_number_is_named(workspace: Workspace, weak: CachedEncoder, tmp_path: Path):
    state = load_file(weak.encoder.spec.weights)
    for value in (float("nan"), 200.0, -200.0):
        save_file({**state, "logit_scale": torch.tensor(value)}, tmp_path / "x.safetensors")
        opened = workspace.open(with_weights(weak.encoder.spec, tmp_path / "x.safetensors", "diverged"))
        with pytest.raises(WrongCheckpointError, match=r"diverged has a logit scale of (nan|inf|0.0)"):
            _ = opened.facts


def test_embeddings_that_are_no_numbers_are_refused_and_not_stored(
    workspace: Workspace, weak: CachedEncoder, folder: Path, tmp_path: Path
):
    state = load_file(weak.encoder.spec.weights)
    nothing = {name: torch.full_like(value, torch.nan) for name, value in state.items()}
    save_file({**nothing, "logit_scale": state["logit_scale"]}, tmp_path / "x.safetensors")
    opened = workspace.open(with_weights(weak.encoder.spec, tmp_path / "x.safetensors", "diverged"))
    with pytest.raises(InvalidTensorError, match="the text embeddings of diverged hold NaN"):
        opened.text_embeddings(["seven"], Templates())
    with pytest.raises(InvalidTensorError, match="the image embeddings of diverged hold NaN"):
        embed(opened, folder)
    assert not list(opened.folder.rglob("*.safetensors"))


def test_each_precision_has_a_store_of_its_own(workspace: Workspace, weak: CachedEncoder, folder: Path):
    half = replace(workspace, precision="half").open(weak.encoder.spec)
    places = [(one.folder.parent.name, one.folder.name) for one in (weak, half)]
    assert places == [(weak.fingerprint, "float32"), (weak.fingerprint, "bfloat16")]
    assert embed(weak, folder).rows.dtype == torch.float32
    found = embed(half, folder)
    assert (found.rows.dtype, found.encoded) == (torch.float16, 6)


@pytest.mark.parametrize("left", ['{"logit_sc', '{"logit_scale": 9.0, "parameters": 5}'], ids=["damaged", "of 0.1.0"])
def test_facts_that_are_not_whole_are_looked_up_again(weak: CachedEncoder, left: str):
    before = weak.facts
    path = weak.folder / "facts.json"
    whole = path.read_text()
    path.write_text(left)
    assert weak.facts == before
    assert path.read_text() == whole


def test_a_store_has_its_models_name_however_far_the_images_got(
    weak: CachedEncoder, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(filling, "map_batches", interrupted)
    with pytest.raises(KeyboardInterrupt):
        embed(weak, folder)
    assert json.loads((weak.folder / "facts.json").read_text())["name"] == "demo-weak"


def test_an_image_that_changes_while_it_is_read_is_skipped(
    weak: CachedEncoder, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    real = filling.map_batches

    def changes_one(*args: object):
        for result in real(*args):
            os.utime(folder / "2.png", ns=(5, 5))
            yield result

    monkeypatch.setattr(filling, "map_batches", changes_one)
    found = embed(weak, folder)
    assert [(Path(one.name).name, one.reason) for one in found.skipped] == [("2.png", "changed while it was read")]
    assert found.kept == [0, 1, 3, 4, 5]


def test_a_strict_workspace_gives_no_chunk_with_an_image_missing(weak: CachedEncoder, folder: Path):
    (folder / "3.png").write_bytes(b"")
    files = open_images(str(folder), None).files
    strict = replace(weak.workspace, strict=True).open(weak.encoder.spec)
    given: list[int] = []
    with pytest.raises(TransmiterError, match=r"3\.png: empty file"):
        given.extend(start for start, _ in strict.image_chunks(files, 2))
    assert given == [0]


def test_what_the_command_line_says_goes_before_what_fit_did(workspace: Workspace):
    assert workspace.like_fit("scaled", "half").precision == "half"
    told = replace(workspace, decoding="full", precision="full").like_fit("scaled", "half")
    assert (told.decoding, told.precision) == ("full", "full")


def test_another_tokenizer_is_another_model(workspace: Workspace, weak: CachedEncoder, tmp_path: Path):
    folder = tmp_path / "weak"
    shutil.copytree(weak.encoder.spec.weights.parent, folder)
    assert workspace.open(resolve_model(f"local-dir:{folder}")).fingerprint == weak.fingerprint
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"seven"', '"sevem"'))
    assert workspace.open(resolve_model(f"local-dir:{folder}")).fingerprint != weak.fingerprint
