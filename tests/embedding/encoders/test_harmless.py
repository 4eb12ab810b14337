"""What trainers keep beside weights in a pickle is read, and what could run code is not."""

from __future__ import annotations

import contextlib
import datetime
import random
import shlex
import subprocess
import sys
import warnings
from argparse import Namespace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.torch import load_file

from transmiter_cli.embedding.encoders.encoder import Encoder
from transmiter_cli.embedding.encoders.models import resolve_model, with_weights
from transmiter_cli.embedding.encoders.pickles import load_tensors
from transmiter_cli.errors import TransmiterError

SIMPLE = arrays.boolean_dtypes() | arrays.integer_dtypes() | arrays.unsigned_integer_dtypes(sizes=(8,))
SIMPLE |= arrays.floating_dtypes(sizes=(16, 32, 64)) | arrays.unicode_string_dtypes(max_len=4)


def read_again(value: object, folder: Path) -> Any:
    torch.save({"it": value}, folder / "it.pt")
    return load_tensors(folder / "it.pt")["it"]


@given(array=arrays.arrays(SIMPLE, arrays.array_shapes(min_dims=0, max_dims=3)), turned=st.booleans())
def test_arrays_come_back_as_tensors_and_texts_as_lists(
    array: np.ndarray, turned: bool, tmp_path_factory: pytest.TempPathFactory
):
    array = array.T if turned else array
    found = read_again(array, tmp_path_factory.mktemp("array"))
    if array.dtype.kind == "U":
        assert found == array.tolist()
    else:
        np.testing.assert_array_equal(found.numpy(), array)
        assert found.numpy().dtype == array.dtype.newbyteorder("=")


@pytest.mark.parametrize("number", [np.float64(0.5), np.float32(-1.5), np.int64(3), np.bool_(True), np.str_("a b")])
def test_numbers_come_back_as_pythons(number: np.generic, tmp_path: Path):
    found = read_again(number, tmp_path)
    assert (found, type(found)) == (number.item(), type(number.item()))


@pytest.mark.parametrize("core", [b"numpy.core.", b"numpy._core."])
def test_the_names_of_either_numpy_are_known(core: bytes, tmp_path: Path):
    file = tmp_path / "it.pt"
    torch.save({"it": np.float64(0.5), "two": np.ones(2)}, file, _use_new_zipfile_serialization=False)
    content = file.read_bytes().replace(b"numpy._core.", b"numpy.core.").replace(b"numpy.core.", core)
    assert content.count(core) == 2
    file.write_bytes(content)
    read = load_tensors(file)
    assert read["it"] == 0.5
    assert torch.equal(read["two"], torch.ones(2, dtype=torch.float64))


def test_a_checkpoint_with_a_trainers_options_and_scores_loads_as_a_model(tmp_path: Path):
    spec = resolve_model("demo-weak")
    options = Namespace(lr=0.1, out=Path("runs/1"))
    beside = {"args": options, "best": np.float64(0.9), "epoch": 3}
    for key in ("state_dict", "model"):  # the first is read by open_clip itself
        torch.save({**beside, key: load_file(spec.weights)}, tmp_path / "last.pt")
        found = Encoder(with_weights(spec, tmp_path / "last.pt", "last"), torch.device("cpu"))
        assert torch.equal(found.encode_texts(["a"]), Encoder(spec, torch.device("cpu")).encode_texts(["a"]))
    read = load_tensors(tmp_path / "last.pt")
    assert vars(read["args"]) == {"lr": 0.1, "out": PurePosixPath("runs/1")}
    assert read["best"] == 0.9


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (np.array(["a", None], dtype=object), "numpy.dtype"),
        (np.zeros(2, dtype=[("a", "O")]), "numpy.dtype"),
        (np.ones(2, dtype=complex), "numpy.dtype"),
        (datetime.date(2026, 1, 1), "datetime.date"),
    ],
)
def test_what_else_is_refused_by_its_name(value: object, named: str, tmp_path: Path):
    with pytest.raises(TransmiterError, match=rf"holds more than tensors \({named}") as found:
        read_again(value, tmp_path)
    assert "save tensors, numbers and texts alone" in str(found.value.fix)


def test_a_file_of_a_newer_protocol_comes_with_the_command_that_reads_it(tmp_path: Path, recwarn):
    spec = resolve_model("demo-weak")
    torch.save(load_file(spec.weights), tmp_path / "new.pt", pickle_protocol=5)
    with pytest.raises(TransmiterError, match=r"new\.pt was pickled by protocol 4 or later") as found:
        _ = Encoder(with_weights(spec, tmp_path / "new.pt", "new"), torch.device("cpu")).model
    assert not recwarn.list
    program, flag, code = shlex.split(str(found.value.fix).partition(": ")[2])
    assert (program, flag) == ("python", "-c")
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert load_tensors(tmp_path / "again.pt").keys() == load_file(spec.weights).keys()


def test_damage_is_told_whatever_it_does_to_the_pickle(tmp_path: Path):
    file = tmp_path / "it.pt"
    content = {"w": torch.ones(3), "args": Namespace(x=1), "best": np.float64(1), "two": np.ones(3)}
    for plain in (False, True):
        torch.save(content, file, _use_new_zipfile_serialization=plain)
        whole = file.read_bytes()
        for seed in range(300):
            chosen, damaged = random.Random(seed), bytearray(whole)
            for _ in range(3):
                damaged[chosen.randrange(min(len(damaged), 1200))] = chosen.randrange(256)
            file.write_bytes(bytes(damaged))
            with contextlib.suppress(TransmiterError), warnings.catch_warnings(action="ignore"):
                load_tensors(file)
