"""The fine-tuned weak model in its several forms: a checkpoint, a classifier head, logits, or a probe made here."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from transmiter_cli import demo
from transmiter_cli.embedding.encoders.encoder import WrongCheckpointError
from transmiter_cli.embedding.encoders.models import (
    BUNDLED_MODELS,
    CONFIG,
    HUB,
    LOCAL,
    ModelSpec,
    resolve_model,
    with_weights,
)
from transmiter_cli.embedding.encoders.pickles import beside_the_model, load_tensors, weights_in
from transmiter_cli.embedding.encoders.prompts import Templates
from transmiter_cli.embedding.found import require_unchanged
from transmiter_cli.embedding.sources import ImageRecord
from transmiter_cli.embedding.workspace import CachedEncoder, Workspace
from transmiter_cli.errors import TransmiterError, UsageError, first_line, listing, mended_by
from transmiter_cli.files import absolute, digest, is_address
from transmiter_cli.method.per_image import centred
from transmiter_cli.names import some
from transmiter_cli.task.head_file import FinetunedHead, by_last_part, checked_head, is_head
from transmiter_cli.task.logits_file import FinetunedLogits, as_logits, checked_logits, npy_logits, read_ids

PROBE = "probe"
BUNDLED_CHECKPOINTS = {"demo-finetuned": "models/demo-finetuned.safetensors"}
"""Checkpoints that come with the package, by name: files of transmiter_cli/demo."""
FEWEST_TENSORS = 3
"""Tensors below which a file is not taken for a checkpoint."""
LORA = ".lora_"
"""What PEFT has in the names of matrices that are not merged into the weights yet."""


@runtime_checkable
class FinetunedModel(Protocol):
    """The fine-tuned weak model, whatever its form."""

    def logits(
        self, files: Sequence[ImageRecord], weak_images: Float[Tensor, "images width"]
    ) -> Float[Tensor, "images classes"]:
        """Logits of the task classes.

        Args:
            files: the images.
            weak_images: the zero-shot weak model's embeddings of the same images.
        """
        ...

    def head(self) -> Float[Tensor, "classes width"] | None:
        """What embeddings like the weak model's are multiplied with, scale included; None if there is no such thing."""
        ...

    def check(self, files: Sequence[ImageRecord]) -> None:
        """Raise TransmiterError if it cannot answer for any of the images; none is encoded for that."""
        ...


@dataclass(frozen=True)
class FinetunedCheckpoint:
    """A whole fine-tuned model; its own towers encode the images and the class prompts.

    Attributes:
        like_weak: whether it has the weak model's architecture: embeddings of another one have nothing in common.
    """

    encoder: CachedEncoder
    class_names: Sequence[str]
    templates: Templates
    like_weak: bool

    def logits(self, files: Sequence[ImageRecord], weak_images: Tensor) -> Tensor:
        """See FinetunedModel."""
        images = self.encoder.image_embeddings(files)
        require_unchanged(images.files, files)
        return images.rows.float() @ self.weight.T

    def head(self) -> Tensor | None:
        """See FinetunedModel."""
        return self.weight if self.like_weak else None

    def check(self, files: Sequence[ImageRecord]) -> None:
        """See FinetunedModel: its weights must be those of the architecture."""
        try:
            _ = self.weight
        except WrongCheckpointError as error:
            error.fix = (
                "pass the model that was fine-tuned as --weak; or save it alone, torch.save(model.state_dict(), PATH); "
                "or its logits, if a layer of your own classifies"
            )
            raise

    @cached_property
    def weight(self) -> Float[Tensor, "classes width"]:
        """Its class embeddings times its logit scale."""
        return self.encoder.facts.logit_scale * self.encoder.text_embeddings(self.class_names, self.templates)


def has_columns_of_a_file(teacher: FinetunedModel) -> bool:
    """Whether a head or logits, whose columns have no names, are all that a teacher is."""
    return isinstance(teacher, FinetunedHead | FinetunedLogits)


def mean_logits(several: Sequence[Float[Tensor, "images classes"]]) -> Float[Tensor, "images classes"]:
    """The mean of several models' logits, each row's mean taken off first; the only ones as they are.

    A softmax does not see what is added to a whole row, so the models need not agree on it.
    """
    if len(several) == 1:
        return several[0]
    return torch.stack([centred(logits.float()) for logits in several]).mean(0)


def open_finetuned(given: str, weak: CachedEncoder, class_names: Sequence[str], templates: Templates) -> FinetunedModel:
    """The fine-tuned weak model that a --finetuned value names.

    Args:
        given: a checkpoint (.pt, .safetensors, "local-dir:", "hf-hub:"), a head, logits, or bundled name.
        weak: the zero-shot weak model; a checkpoint has its architecture, and shares its cache.
        class_names: the C task classes.
        templates: their prompts.

    Raises:
        UsageError: if the file does not exist.
        TransmiterError: if it cannot be read, or is of another model or task.
    """
    if names_model(given):
        return open_checkpoint(resolve_model(given), weak, class_names, templates)
    reporter = weak.workspace.reporter
    path = finetuned_file(given)
    if path.suffix == ".npy":
        return as_logits(npy_logits(path, len(class_names)), weak)
    tensors, metadata = read_tensors(path)
    names = set(tensors)
    if "logits" in names:
        ids = tensors["ids"] if "ids" in names else read_ids(path, metadata)
        found = checked_logits(str(path), tensors["logits"], ids, len(class_names))
        return as_logits(found, weak)
    if is_head(names):
        return checked_head(path, by_last_part(tensors), weak, len(class_names))
    refuse_unless_checkpoint(path, tensors)
    beside = beside_the_model(sorted(names))
    if beside:
        reporter.warn(
            f"{path.name} holds more than a model, and {some(beside)} are left aside. If these classify, save "
            "the logits of the images, and give those."
        )
    if given not in BUNDLED_CHECKPOINTS:
        reporter.note(f"{path.name} says neither activation nor preprocessing: it gets those of {weak.name}.")
    return open_checkpoint(with_weights(weak.encoder.spec, path, given), weak, class_names, templates)


def refuse_unless_checkpoint(path: Path, tensors: Mapping[str, Any]) -> None:
    """Raise TransmiterError if a file's tensors, which are neither logits nor a head, can be no whole model either."""
    if any(LORA in name for name in tensors):
        raise TransmiterError(
            f"{path} holds LoRA's matrices beside the weights that they change, or alone.",
            "merge them before you save: model.merge_and_unload(); docs/finetuned.md has how to do it by hand",
        )
    layers = sorted({name.rpartition(".")[0] for name in tensors if name.endswith((".weight", ".bias"))})
    if len(layers) > 1 and is_head({name.rpartition(".")[2] for name in tensors}):
        raise TransmiterError(
            f"{path} holds {len(layers)} layers, {some(layers)}, and no model of images and texts; a head is one.",
            "save the layer that classifies alone; or the logits of the images, if several do",
        )
    if len(tensors) < FEWEST_TENSORS and all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise TransmiterError(
            f"{path} is no checkpoint, for it holds {' and '.join(map(repr, sorted(tensors))) or 'nothing'} alone; "
            "a head has 'weight' (C x d) and perhaps 'bias' (C), logits of images 'logits' (N x C).",
            "save it again under these names",
        )


def open_checkpoint(
    spec: ModelSpec, weak: CachedEncoder, class_names: Sequence[str], templates: Templates
) -> FinetunedCheckpoint:
    """A whole model; it is said where it does not look fine-tuned from the weak one."""
    workspace = weak.workspace
    encoder = workspace.open(spec)
    like_weak = spec.config() == weak.encoder.spec.config()
    if encoder.fingerprint == weak.fingerprint:
        workspace.reporter.warn(f"{spec.name} has the very weights of {weak.name}: there is no fine-tuning to learn.")
    elif not like_weak:
        workspace.reporter.warn(
            f"{spec.name} has another architecture than {weak.name}: the adapter learns that difference, too, "
            "not only what fine-tuning changed."
        )
    return FinetunedCheckpoint(encoder, class_names, templates, like_weak)


def lasting_name(given: str) -> str:
    """What a --finetuned value means from any working directory.

    Raises:
        UsageError: if it is empty, or a file and does not exist.
    """
    if not given:
        raise UsageError("The fine-tuned model has no name: the value is empty.", "--finetuned FILE")
    if given == PROBE or given in BUNDLED_CHECKPOINTS or given in BUNDLED_MODELS or given.startswith(HUB):
        return given
    if given.startswith(LOCAL):
        return resolve_model(given).name
    path = absolute(given)
    if is_address(given):
        raise UsageError(f"{given} is an address; --finetuned takes a file on this disk.", "download it first")
    if path.is_dir():
        raise UsageError(
            f"{given} is a folder. A folder is a model if it holds an {CONFIG} beside the weights, and is then named "
            f"{LOCAL}FOLDER.",
            f"--finetuned {shlex.quote(LOCAL + given)}, or a file",
        )
    if not path.is_file():
        raise UsageError(f"There is no fine-tuned model {given!r}.", listing(path))
    return str(path)


def finetuned_digest(given: str, workspace: Workspace) -> str:
    """What tells one content of a --finetuned value, as `lasting_name` gives it, from another: SHA-256 of its file, of
    that and the ids beside logits of NumPy's, or a model's fingerprint.

    Raises:
        UsageError: if the file does not exist.
        TransmiterError: if weights are neither on this disk nor can be downloaded.
    """
    if names_model(given):
        return workspace.open(resolve_model(given)).fingerprint
    path = finetuned_file(given)
    digests = [workspace.weights_digest(file) for file in files_of(path)]
    return digests[0] if len(digests) == 1 else digest(*digests)


def names_model(given: str) -> bool:
    """Whether a --finetuned value is the name of a whole model, and not of a file."""
    return given.startswith((LOCAL, HUB)) or given in BUNDLED_MODELS


def finetuned_file(given: str) -> Path:
    """The file of a --finetuned value that names no model.

    Raises:
        UsageError: if it does not exist.
    """
    return bundled_path(given) if given in BUNDLED_CHECKPOINTS else Path(lasting_name(given))


def files_of(path: Path) -> list[Path]:
    """The files that are read of a --finetuned file: the ids beside logits of NumPy's are one of their own."""
    beside = [path.with_suffix(".txt")] if path.suffix == ".npy" else []
    return [file for file in (path, *beside) if file.is_file()]


def require_answers_of_views(finetuned: Sequence[str]) -> None:
    """Refuse logits, which are of whole images, where views of images are asked about, before any is encoded.

    Args:
        finetuned: --finetuned values, as `lasting_name` gives them.

    Raises:
        UsageError: if one of them is logits.
        TransmiterError: if a file cannot be read.
    """
    for given in finetuned:
        path = Path(given)
        if path.is_file() and (path.suffix == ".npy" or "logits" in read_tensors(path)[0]):
            raise UsageError(f"{given} has logits of whole images, and none of views.", "leave --views out")


def bundled_path(name: str) -> Path:
    """The file of a bundled checkpoint."""
    return demo.FOLDER / BUNDLED_CHECKPOINTS[name]


def read_tensors(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Tensors of a small file, or only the names of a checkpoint's, with the metadata of safetensors.

    Raises:
        TransmiterError: if it is damaged, or a pickle that holds more than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                names = list(file.keys())
                small = "logits" in names or is_head(names)
                tensors = {name: file.get_tensor(name) if small else torch.empty(0) for name in names}
                return tensors, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise TransmiterError(f"{path} cannot be read: {first_line(error)}.", "save, or download, it again") from error
    with mended_by("pass what torch.save or safetensors wrote; logits may be in a .npy, their ids in a .txt beside it"):
        content = weights_in(load_tensors(path))
    layer = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    return (layer if is_head(layer) else content), {}  # beside a head, too, there may be what is no tensor
