from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image, features
from torchvision.transforms.functional import pil_to_tensor

from transmiter_cli.embedding.decoding import (
    Decoder,
    Skipped,
    decode_batch,
    decode_batches,
    map_batches,
    plan_batches,
)
from transmiter_cli.embedding.sources import ImageFile


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 9))
def test_every_missing_image_is_in_one_batch_of_at_most_the_size(missing: list[bool], size: int):
    batches = list(plan_batches(missing, size))
    assert sorted(i for batch in batches for i in batch) == [i for i, absent in enumerate(missing) if absent]
    assert all(0 < len(batch) <= size for batch in batches)


@given(st.integers(1, 60), st.integers(1, 9), st.integers(0, 8), st.sets(st.integers(0, 59), max_size=3))
def test_a_stopped_run_goes_on_with_the_batches_of_an_undisturbed_one(images: int, size: int, done: int, broken):
    """Also where images that cannot be decoded stay missing among those that were done."""
    undisturbed = list(plan_batches([True] * images, size))
    written = {i for batch in undisturbed[:done] for i in batch} - broken
    resumed = list(plan_batches([i not in written for i in range(images)], size))
    assert [batch for batch in undisturbed[done:] if batch not in resumed] == []


def pixels(image: Image.Image) -> torch.Tensor:
    """What a model might be given: the picture, shrunk to 16 pixels."""
    return pil_to_tensor(image.resize((16, 16), Image.Resampling.BICUBIC)).float()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_scaled_decoding_changes_little_of_a_jpeg_file(tmp_path: Path, mode: str):
    scene = Image.radial_gradient("L").resize((1000, 700)).convert(mode)
    scene.save(tmp_path / "a.jpg", quality=95)
    record = ImageFile(tmp_path, "a.jpg")
    (full,), (scaled,) = Decoder(pixels, 16)([record]), Decoder(pixels, 16, "scaled")([record])
    assert (full - scaled).abs().max() <= 3


def test_scaled_decoding_computes_fewer_pixels_but_never_too_few(tmp_path: Path):
    seen: list[tuple[int, int]] = []

    def preprocess(image: Image.Image) -> torch.Tensor:
        seen.append(image.size)
        return torch.zeros(1)

    for width, height in ((4000, 3000), (900, 1200), (440, 500), (100, 80)):
        Image.new("RGB", (width, height)).save(tmp_path / "a.jpg")
        Decoder(preprocess, 224, "scaled")([ImageFile(tmp_path, "a.jpg")])
    assert seen == [(500, 375), (450, 600), (440, 500), (100, 80)]


@pytest.mark.parametrize("workers", [1, 3])
def test_both_ways_through_threads_give_the_batches_in_order(tmp_path: Path, workers: int):
    for number in range(9):
        Image.new("L", (20, 20), 25 * number).save(tmp_path / f"{number}.png")
    (tmp_path / "4.png").write_bytes(b"")
    records = [ImageFile(tmp_path, f"{number}.png") for number in range(9)]
    batches = [[0, 1, 2, 3], [4], [5, 6, 7, 8]]
    decoder = Decoder(pixels, 16)
    ahead = list(decode_batches(records, batches, decoder, workers))
    mapped = list(map_batches(lambda positions: decode_batch(records, positions, decoder), batches, workers))
    for found in (ahead, mapped):
        assert [batch.positions for batch in found] == [[0, 1, 2, 3], [], [5, 6, 7, 8]]
        assert [skipped.reason for batch in found for skipped in batch.skipped] == ["empty file"]
        assert found[1].images is None
    assert all(torch.equal(ahead[i].images, mapped[i].images) for i in (0, 2))


def test_a_file_that_is_gone_when_its_reason_is_looked_for_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "x.png").write_bytes(b"no picture")
    record = ImageFile(tmp_path, "x.png")
    decoder = Decoder(pixels, 16)
    real = Image.open

    def opened(*args: object, **kwargs: object) -> Image.Image:
        (tmp_path / "x.png").unlink()
        return real(*args, **kwargs)

    monkeypatch.setattr(Image, "open", opened)
    (found,) = decoder([record])
    assert isinstance(found, Skipped)


def test_photographs_of_a_hundred_million_pixels_are_decoded_and_bombs_are_not(tmp_path: Path):
    Image.new("L", (12_000, 9_000), 200).save(tmp_path / "large.jpg")
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    records = [ImageFile(tmp_path, "large.jpg"), ImageFile(tmp_path, "bomb.png")]
    (batch,) = decode_batches(records, [[0, 1]], Decoder(pixels, 16, "scaled"), 1)
    assert batch.positions == [0]
    assert [one.reason for one in batch.skipped] == ["more than 178 million pixels, which may be a decompression bomb"]


def test_threads_of_the_encoder_leave_those_of_others_alone():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        inside = list(map_batches(lambda positions: torch.get_num_threads(), [[0], [1], [2]], 2))
        with ThreadPoolExecutor(1) as later:
            assert (inside, torch.get_num_threads(), later.submit(torch.get_num_threads).result()) == ([1, 1, 1], 3, 3)
    finally:
        torch.set_num_threads(before)


def damaged(raw: bytes, start: int, end: int) -> Iterator[bytes]:
    """A file with one byte changed, at each place."""
    for place in range(start, end):
        for value in (2, raw[place] ^ 0xFF):
            yield raw[:place] + bytes([value]) + raw[place + 1 :]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", ["jpg", "avif", "webp", "png", "tif"])
def test_whatever_byte_is_damaged_an_image_is_decoded_or_skipped(tmp_path: Path, suffix: str):
    if suffix == "avif" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.XResolution], exif[ExifTags.Base.Make] = 6, 72.0, "maker"
    path = tmp_path / f"a.{suffix}"
    Image.linear_gradient("L").convert("RGB").resize((32, 32)).save(path, exif=exif)
    raw = path.read_bytes()
    begin = max(raw.find(b"Exif"), 0) if suffix == "jpg" else 0
    kinds: set[type] = set()
    for content in damaged(raw, begin, min(len(raw), begin + 400)):
        path.write_bytes(content)
        kinds.update(map(type, Decoder(pixels, 16)([ImageFile(tmp_path, path.name)])))
    assert kinds == {torch.Tensor, Skipped}
