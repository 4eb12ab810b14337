"""Checkpoints as trainers write them; pickles of torch, read without running what strangers put into them."""

from __future__ import annotations

import pickle
import reprlib
import shlex
import warnings
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from transmiter_cli.embedding.encoders.harmless import PickledArray, arrays_in, harmless, plain, refused
from transmiter_cli.errors import TransmiterError, first_line, is_out_of_memory

WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Under which of its names a trainer's checkpoint keeps the weights, the likeliest first."""
LANDMARK = "logit_scale"
"""A tensor that every model of images and texts has; what stands before its name does so before all."""
LOADED_BY_OPEN_CLIP = ("", "module.")
"""What may stand before the names in files that open_clip loads as they are, under the first of WRAPPERS or none."""

OPENAI_BUFFERS = {"input_resolution", "context_length", "vocab_size"}
"""What OpenAI's archives hold beside the weights."""
NEWER = f"Unsupported operand {pickle.FRAME[0]}"
"""What torch says of pickles of protocol 4 and later, which all begin with a frame."""


def weights_in(content: dict[Any, Any]) -> dict[Any, Any]:
    """The weights of a checkpoint, which may hold the trainer's own state beside them."""
    return next((inner for name in WRAPPERS if isinstance(inner := content.get(name), dict) and inner), content)


def unwrapped(path: Path, ignored: Collection[str] = ()) -> dict[str, Tensor] | None:
    """Weights by the model's own names, where a trainer or torch.compile put something before these; None elsewhere.

    None, too, for files of other kinds, which open_clip reads, and for several models in one.

    Args:
        path: the file.
        ignored: what the model does not load: buffers that it computes by itself, which a state that TorchScript
            traced has, and a bias of all logits, which changes no softmax.

    Raises:
        TransmiterError: as `load_tensors`.
    """
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                content = dict.fromkeys(file.keys())
        except SafetensorError:
            return None
    elif is_torch_file(path):
        content = read_pickle(path)
    else:
        return None
    weights = weights_in(content)
    prefix = prefix_of(weights)
    if prefix is None:
        return None
    own = {name.removeprefix(prefix): name for name in weights if name.startswith(prefix)}
    beside = own.keys() & {*OPENAI_BUFFERS, *ignored}
    arrays = any(isinstance(value, PickledArray) for value in weights.values())
    if prefix in LOADED_BY_OPEN_CLIP and weights is content.get(WRAPPERS[0], content) and not beside and not arrays:
        return None
    if path.suffix == ".safetensors":
        weights = load_file(path)
    return {name: plain(weights[given]) for name, given in own.items() if name not in beside}


def prefix_of(names: Collection[str]) -> str | None:
    """What stands before the names of a model's own tensors; None where there are none, or several models."""
    marks = [name for name in names if name.rpartition(".")[2] == LANDMARK]
    return marks[0].removesuffix(LANDMARK) if len(marks) == 1 else None


def beside_the_model(names: Collection[str]) -> list[str]:
    """The names of tensors that are none of the one model that a checkpoint holds."""
    return [name for name in names if not name.startswith(prefix_of(names) or "")]


def load_tensors(path: Path) -> dict[str, Any]:
    """The dictionary in a file of torch.save: tensors, and what is `harmless` beside them, on the CPU.

    Raises:
        TransmiterError: if it is damaged, holds other objects, code, or no dictionary.
    """
    return plain(read_pickle(path))


def read_pickle(path: Path) -> dict[str, Any]:
    """The same before arrays are tensors; memory-mapped where the format allows.

    Raises:
        TransmiterError: as `load_tensors`.
    """
    if is_archive(path):
        code = f'import torch; torch.save(torch.jit.load({str(path)!r}, "cpu").state_dict(), "weights.pt")'
        raise TransmiterError(
            f"{path} is an archive of TorchScript, which holds code; its weights alone are read.",
            f"python -c {shlex.quote(code)}",
        )
    if not is_torch_file(path):
        raise TransmiterError(f"{path} is no file of torch, nor of another kind that is read here.")
    try:
        with warnings.catch_warnings(), harmless():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # what comes of it is an error here
            try:
                content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            except RuntimeError:  # files of torch before 1.6 cannot be mapped
                content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise refused_pickle(path, error) from error
    except PermissionError:
        raise
    except Exception as error:  # torch raises anything on what is damaged
        if is_out_of_memory(error):
            raise
        raise TransmiterError(
            f"{path} cannot be read as a file of torch: {first_line(error)}.",
            "save it again: torch.save(tensors, PATH), or safetensors.torch.save_file(tensors, PATH)",
        ) from error
    if isinstance(content, Tensor | PickledArray):
        raise TransmiterError(
            f"{path} holds a tensor without a name.",
            'torch.save({"logits": logits, "ids": ids}, PATH), with the images\' ids; {"weight": weight} is a head',
        )
    if not isinstance(content, dict):
        raise TransmiterError(
            f"{path} holds no dictionary of tensors, but {type(content).__name__}.",
            "torch.save(model.state_dict(), PATH)",
        )
    if sum({id(one): one.array.nbytes for one in arrays_in(content)}.values()) > path.stat().st_size:
        raise TransmiterError(f"{path} is damaged: its arrays are larger than the file.", "save it again")
    strange = next((name for name in (*content, *weights_in(content)) if not isinstance(name, str)), None)
    if strange is not None:
        raise TransmiterError(
            f"{path} holds no tensors by name: {reprlib.repr(strange)} is none.", "torch.save(model.state_dict(), PATH)"
        )
    return content


def refused_pickle(path: Path, error: pickle.UnpicklingError) -> TransmiterError:
    """The error for a pickle that cannot be read without running it."""
    if NEWER in str(error):
        return TransmiterError(
            f"{path} was pickled by protocol 4 or later, which cannot be read without running what may be in it.",
            "save it again where it was made: torch.save(tensors, PATH), without pickle_protocol",
        )
    what = f" ({name})" if (name := refused(error)) else ""
    return TransmiterError(
        f"{path} holds more than tensors{what}, and running a stranger's pickle is refused.",
        "save tensors, numbers and texts alone where it was made: torch.save(model.state_dict(), PATH); of logits, "
        '{"logits": torch.as_tensor(logits), "ids": list(map(str, ids))}',
    )


def is_torch_file(path: Path) -> bool:
    """Whether a file begins as torch.save lets it begin: as a zip or, before torch 1.6, as a pickle; an unreadable one
    may be one.
    """
    try:
        with path.open("rb") as file:
            return file.read(2).startswith((b"PK", b"\x80"))
    except OSError:
        return True


def is_archive(path: Path) -> bool:
    """Whether a file is what torch.jit.save writes."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False
