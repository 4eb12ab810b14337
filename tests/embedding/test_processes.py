from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from transmiter_cli.embedding.decoding import Decoder, decode_batches
from transmiter_cli.embedding.processes import (
    CAN_FORK,
    PART,
    cut_between_pictures,
    deaths_explained,
    decode_in_processes,
)
from transmiter_cli.embedding.sources.images import ImageFile
from transmiter_cli.embedding.views import picture_of, with_views
from transmiter_cli.errors import TransmiterError

pytestmark = pytest.mark.skipif(not CAN_FORK, reason="processes decode on Linux alone")


def pixels(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image.resize((16, 16))))


@pytest.fixture
def records(tmp_path: Path) -> list[ImageFile]:
    """Pictures of which one is damaged and one is no picture."""
    for number in range(50):
        Image.new("RGB", (20, 20), (5 * number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "4.png").write_bytes(b"")
    (tmp_path / "21.png").write_bytes(b"text")
    return [ImageFile(tmp_path, f"{number}.png") for number in range(50)]


@pytest.mark.parametrize("workers", [1, 3])
def test_processes_give_the_batches_of_threads(records: list[ImageFile], workers: int):
    batches = [list(range(20)), [20], [21], list(range(22, 50))]
    decoder = Decoder(pixels, 16)
    expected = list(decode_batches(records, batches, decoder, workers))
    found = list(decode_in_processes(records, batches, decoder, workers))
    assert [(batch.positions, batch.skipped) for batch in found] == [(one.positions, one.skipped) for one in expected]
    assert found[2].images is None
    for batch, other in zip(found, expected, strict=True):
        assert batch.images is other.images or torch.equal(batch.images, other.images)


def test_the_views_of_a_picture_are_decoded_by_one_process(records: list[ImageFile]):
    files = with_views(records, 2, 0)
    parts = list(cut_between_pictures(files, range(len(files))))
    assert [position for part in parts for position in part] == list(range(len(files)))
    assert all(len(part) == PART + 1 for part in parts[:-1])  # three pictures of three
    pictures = [{picture_of(files[position]).id for position in part} for part in parts]
    assert sum(map(len, pictures)) == len(records)


def test_no_process_is_left_when_nobody_wants_more(records: list[ImageFile]):
    batches = decode_in_processes(records, [[number] for number in range(50)], Decoder(pixels, 16), 2)
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    batches.close()
    assert multiprocessing.active_children() == []


def test_what_is_sent_to_the_group_of_the_caller_does_not_reach_its_processes(records: list[ImageFile]):
    (batch,) = decode_in_processes(records, [[0, 1, 2]], Decoder(lambda _: torch.tensor([os.getpgrp()]), 16), 1)
    assert os.getpgrp() not in batch.images


def test_a_process_that_was_killed_is_told(records: list[ImageFile]):
    def dies(image: Image.Image) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGKILL)
        return pixels(image)

    said = r"decodes images died: DataLoader worker \(pid.*\. What was encoded is kept\."
    with pytest.raises(TransmiterError, match=said) as raised, deaths_explained():
        list(decode_in_processes(records, [list(range(50))], Decoder(dies, 16), 2))
    assert "--workers 1" in str(raised.value.fix)


def test_other_errors_are_left_alone():
    with pytest.raises(RuntimeError, match="another"), deaths_explained():
        raise RuntimeError("another")


def test_random_numbers_of_the_caller_are_left_alone(records: list[ImageFile]):
    torch.manual_seed(0)
    list(decode_in_processes(records, [[0, 1]], Decoder(pixels, 16), 1))
    after = torch.rand(3)
    torch.manual_seed(0)
    assert torch.equal(after, torch.rand(3))


READS_ON = """
import sys, time
import numpy as np, torch
from pathlib import Path
from transmiter_cli.embedding.decoding import Decoder
from transmiter_cli.embedding.processes import decode_in_processes
from transmiter_cli.embedding.sources.images import ImageFile

records = [ImageFile(Path(sys.argv[1]), f"{number % 4}.png") for number in range(20_000)]
decoder = Decoder(lambda image: torch.from_numpy(np.array(image.resize((224, 224)))), 224)
for batch in decode_in_processes(records, [range(start, start + 16) for start in range(0, 20_000, 16)], decoder, 2):
    print("batch", flush=True)
    time.sleep(0.05)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_processes_end_with_the_one_that_started_them(records: list[ImageFile], number: signal.Signals):
    command = [sys.executable, "-c", READS_ON, str(records[0].root)]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # xdist's workers ignore it
    ) as parent:
        assert parent.stdout
        for _ in range(10):  # the pipes are full by now
            parent.stdout.readline()
        os.killpg(parent.pid, number)
        _, said = parent.communicate(timeout=20)  # once no process has its outputs open any more
    assert parent.returncode == -number
    assert said.count("Traceback") == (number == signal.SIGINT)
