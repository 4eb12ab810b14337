"""What trainers keep beside weights in a pickle is read, and what could run code is not."""

from __future__ import annotations

import contextlib
import datetime
import os
import random
import warnings
from argparse import Namespace
from collections import defaultdict
from fractions import Fraction
from pathlib import Path, PosixPath, PurePosixPath, PureWindowsPath
from types import SimpleNamespace
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


@given(array=arrays.arrays(SIMPLE, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0)), turned=st.booleans())
def test_arrays_come_back_as_tensors_and_texts_as_lists(
    array: np.ndarray, turned: bool, tmp_path_factory: pytest.TempPathFactory
):
    array = array.T if turned else array
    found = read_again(array, tmp_path_factory.mktemp("array"))
    if array.dtype.kind == "U":
        assert found == array.ravel().tolist()
    elif array.size:
        np.testing.assert_array_equal(found.numpy(), array)
    if array.dtype.kind != "U":
        assert found.numpy().dtype == array.dtype.newbyteorder("=")
        assert found.numel() == array.size


@pytest.mark.parametrize(
    "number", [np.float64(0.5), np.float32(-1.5), np.int64(3), np.bool_(True), np.str_("a b"), np.str_("")]
)
def test_numbers_come_back_as_pythons(number: np.generic, tmp_path: Path):
    found = read_again(number, tmp_path)
    assert (found, type(found)) == (number.item(), type(number.item()))


def test_paths_of_either_system_are_read(tmp_path: Path):
    file = tmp_path / "it.pt"
    torch.save({"it": PosixPath("a/b")}, file, _use_new_zipfile_serialization=False)
    content = file.read_bytes()
    for name, kind in ((b"PosixPath", PurePosixPath), (b"WindowsPath", PureWindowsPath)):
        file.write_bytes(content.replace(b"PosixPath", name))
        assert load_tensors(file)["it"] == kind("a", "b")


def test_bytes_are_read_as_texts(tmp_path: Path):
    assert read_again(np.array([b"a.jpg", b"b.jpg"]), tmp_path) == ["a.jpg", "b.jpg"]


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
    weights = load_file(spec.weights)
    arrays = {name: value.numpy() for name, value in weights.items()}
    for key, kept in (("state_dict", weights), ("model", weights), ("state_dict", arrays)):
        # The first is read by open_clip itself.
        torch.save({**beside, key: kept}, tmp_path / "last.pt")
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
        (Fraction(1, 2), "fractions.Fraction"),
        (np.ones(2, dtype=np.longdouble), "numpy.dtype"),
    ],
)
def test_what_else_is_refused_by_its_name(value: object, named: str, tmp_path: Path):
    with pytest.raises(TransmiterError, match=rf"holds more than tensors \({named}") as found:
        read_again(value, tmp_path)
    assert "save tensors, numbers and texts alone where it was made" in str(found.value.fix)


def test_a_file_of_a_newer_protocol_is_told_to_be_one(tmp_path: Path, recwarn):
    spec = resolve_model("demo-weak")
    torch.save(load_file(spec.weights), tmp_path / "new.pt", pickle_protocol=5)
    with pytest.raises(TransmiterError, match=r"new\.pt was pickled by protocol 4 or later") as found:
        _ = Encoder(with_weights(spec, tmp_path / "new.pt", "new"), torch.device("cpu")).model
    assert not recwarn.list
    assert "torch.save(tensors, PATH)" in str(found.value.fix)


class Calls:
    """Pickled as a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


class SharedBytes:
    """Pickled as an array whose content is an object that others share."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def __reduce__(self) -> Any:
        state = (1, (len(self.content),), np.dtype("u1"), False, self.content)
        return (*Calls(np.empty(0).__reduce__()[0], np.ndarray, (0,), b"b").call, state)


def test_what_trainers_also_keep_is_read(tmp_path: Path):
    history = defaultdict(list, {"loss": [1.0, 0.5]})
    beside = {"history": history, "began": datetime.datetime(2026, 1, 1), "options": SimpleNamespace(lr=0.1)}
    read = read_again({**beside, "dtype": np.float32, "took": datetime.timedelta(1)}, tmp_path)
    assert read["history"] == {"loss": [1.0, 0.5]}
    assert vars(read["options"]) == {"lr": 0.1}


def test_what_a_stranger_puts_into_a_pickle_is_neither_run_nor_believed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    with pytest.raises(TransmiterError, match=rf"holds more than tensors \({os.name}\.system\), and running"):
        read_again(Calls(os.system, "echo executed"), tmp_path)
    assert "executed" not in capfd.readouterr().out
    for size in (1, 0):
        array = np.zeros((10**9, 0) if not size else 1, dtype=f"U{size}")
        assert read_again(array, tmp_path) == [""] * size
    assert read_again(Calls(bytes), tmp_path) == b""
    for crafted in (Calls(bytes, 10**12), Calls(np.dtype, "V8"), Calls(np.dtype, "f16"), Calls(np.dtype, "U٣")):
        with pytest.raises(TransmiterError):
            read_again(crafted, tmp_path)
    assert len(read_again(Calls(np.empty(0).__reduce__()[0], np.ndarray, (0,), b"b"), tmp_path)) == 0
    content = bytes(10**6)
    torch.save({f"{number}": SharedBytes(content) for number in range(100)}, tmp_path / "many.pt")
    with pytest.raises(TransmiterError, match="its arrays are larger than the file"):
        load_tensors(tmp_path / "many.pt")
    array = np.ones(10**4)
    assert torch.equal(read_again({"a": array, "b": array}, tmp_path)["b"], torch.ones(10**4, dtype=torch.float64))
    deep: Any = ()
    for _ in range(500):
        deep = (deep,)
    torch.save({deep: 1}, tmp_path / "deep.pt")
    with pytest.raises(TransmiterError, match=r"holds no tensors by name: \(\(+\.\.\."):
        load_tensors(tmp_path / "deep.pt")


def test_a_name_that_would_steer_the_terminal_is_not_repeated(tmp_path: Path):
    file = tmp_path / "it.pt"
    torch.save({"it": datetime.date(2026, 1, 1)}, file, _use_new_zipfile_serialization=False)
    file.write_bytes(file.read_bytes().replace(b"cdatetime\ndate\n", b"cdatetime\n\x1b[31m\n"))
    with pytest.raises(TransmiterError, match="holds more than tensors, and running"):
        load_tensors(file)


def test_damage_is_told_whatever_it_does_to_the_pickle(tmp_path: Path):
    file = tmp_path / "it.pt"
    content = {
        "w": torch.ones(3),
        "args": Namespace(x=1),
        "best": np.float64(1),
        "two": np.ones(3),
        "ids": np.array(["a", "b"]),
    }
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
