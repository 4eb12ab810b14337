"""The artefact: an adapter or a linear classifier, with all it needs, in one safetensors file."""

from __future__ import annotations

import copy
import math
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from transmiter_cli.description import FORMAT, METADATA_KEY, DamagedArtefactError, read_description
from transmiter_cli.errors import TransmiterError, is_out_of_memory, mended_by
from transmiter_cli.files import canonical_json, write_atomically
from transmiter_cli.method.embeddings import (
    Embeddings,
    InvalidTensorError,
    kind_of,
    require_embeddings,
    require_finite,
    require_matrix,
    require_tensor,
)
from transmiter_cli.method.linear.classifier import Linear, LinearClassifier
from transmiter_cli.method.paper.adapter import Adapter
from transmiter_cli.method.settings import Method
from transmiter_cli.method.torch_state import plain_torch

Stage = Literal["weak", "strong", "self_trained", "refined"]
Correction = Adapter | LinearClassifier

SAME_MODEL = 0.5
"""Least mean cosine of a model's text embeddings with those that an artefact keeps: other templates leave more, other
models none."""


@dataclass(frozen=True, eq=False, repr=False)
class Artefact:
    """An adapter of one model's logits or a linear classifier of its images, and the vocabulary it was made for.

    Attributes:
        stage: "weak" after fit, "strong" after transfer, "self_trained" or "refined" after those commands.
        method: "adapter" (works on logits), "ridge" or "discriminant" (linear in the image embeddings).
        correction: the module that does it: an adapter of logits, or a classifier in place of the text embeddings.
        texts: the model's unit-norm text embeddings T.
        logit_scale: the model's s.
        vocabulary: the name of each of T's rows, the task classes first.
        details: settings and origin, as JSON.
    """

    stage: Stage
    method: Method
    correction: Correction
    texts: Float[Tensor, "vocabulary width"]
    logit_scale: float
    vocabulary: tuple[str, ...]
    details: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        """What it is, without its thousands of numbers and names."""
        words, width = self.texts.shape
        return f"<{self.stage} {self.method}: {self.correction.classes} classes among {words} texts {width} wide>"

    @property
    def class_names(self) -> tuple[str, ...]:
        """The task classes, in the order of the logits' columns."""
        return self.vocabulary[: self.correction.classes]

    @property
    def verdict(self) -> Mapping[str, Any]:
        """Whether the transfer was expected to help, from unlabelled images alone; empty but after "discriminant".

        Its key "verdict" is "helps", "unsure" or "useless teacher", "doubt" says why it is unsure, "gain" is the
        expected one, a fraction; docs/using.md has all keys. Self-training and refinement keep it.
        """
        return self.details.get("transfer", {}).get("verdict", {})

    @property
    def parameters_added(self) -> int:
        """Numbers that inference needs beside the model: the adapter, its basis, the auxiliary words.

        0 for "ridge" and "discriminant", which take the text classifier's place.
        """
        if isinstance(self.correction, LinearClassifier):
            return 0
        words = self.texts[self.correction.classes :].numel()
        return words + sum(parameter.numel() for parameter in self.correction.parameters())

    @property
    def flops_added(self) -> int:
        """Operations per image that inference adds: the auxiliary words' logits, and the adapter's matrix products.

        A multiplication and an addition are two; what is linear in M, as the standardisation, is left out. 0 for
        "ridge" and "discriminant", which take the text classifier's place.
        """
        if isinstance(self.correction, LinearClassifier):
            return 0
        size, vocabulary = self.correction.basis.shape
        words = (vocabulary - self.correction.classes) * self.texts.shape[1]
        return 2 * (words + size * vocabulary + 8 * size * size + size * self.correction.classes)

    @plain_torch()
    @torch.no_grad()
    def __call__(
        self, logits: Float[Tensor, "images vocabulary"], images: Float[Tensor, "images width"] | None = None
    ) -> Float[Tensor, "images classes"]:
        """Adapted logits of the task classes, on the device of the logits; no gradient flows back through them.

        Args:
            logits: the model's zero-shot logits of the whole vocabulary, s X T'; only "adapter" looks at them.
            images: the model's image embeddings X; all methods but "adapter" need them.

        Raises:
            ValueError: if a linear method is called without `images`.
            InvalidTensorError: if the logits have another vocabulary's size, the images another shape, or a number that
                is looked at is not finite.
        """
        with mended_by("adapt(embeddings), of Embeddings"):
            require_matrix("the logits", logits)
        if logits.shape[-1] != len(self.vocabulary):
            sizes = f"{logits.shape[-1]} columns for a vocabulary of {len(self.vocabulary)} entries"
            raise InvalidTensorError(f"the logits have {sizes}.")
        correction = self.to(logits.device).correction
        if isinstance(correction, Adapter):
            require_finite("the logits", logits)
            return correction(logits.float())
        if images is None:
            raise ValueError(f"method {self.method!r} classifies image embeddings: call it with (logits, images).")
        require_matrix("the image embeddings", images)
        if images.shape != (len(logits), self.texts.shape[1]):
            wanted = f"{len(logits)} logits of a model {self.texts.shape[1]} wide"
            raise InvalidTensorError(f"the image embeddings have shape {tuple(images.shape)} beside {wanted}.")
        require_finite("the image embeddings", images)
        return correction(images)

    def to(self, device: torch.device | str) -> Artefact:
        """The same artefact on a device; itself if it is there.

        Raises:
            TransmiterError: if the device is not there.
        """
        with device_told("an artefact cannot be moved", device, 'to("cpu")'):
            texts = self.texts.to(device)
        if texts.device == self.texts.device:
            return self
        return replace(self, correction=copy.deepcopy(self.correction).to(texts.device), texts=texts)

    @plain_torch()
    @torch.no_grad()
    def adapt(self, embeddings: Embeddings) -> Float[Tensor, "images classes"]:
        """Adapted logits of all images, on their device; no N x M matrix is formed.

        An adapter takes the texts and the logit scale from the embeddings, a linear classifier none but its own.

        Raises:
            InvalidTensorError: if the embeddings have another width, or another vocabulary's size, or their texts are
                another model's.
        """
        self.require_model(embeddings)
        return torch.cat(list(self.adapt_blocks(embeddings)))

    @plain_torch()
    @torch.no_grad()
    def predictions(self, embeddings: Embeddings) -> Int[Tensor, " images"]:
        """The likeliest class of each image, without the N x C logits of all images at once.

        Raises:
            InvalidTensorError: if a logit is not finite, for the highest of such a row means nothing; or as `adapt`.
        """
        self.require_model(embeddings)
        found: list[Tensor] = []
        for logits in self.adapt_blocks(embeddings):
            require_finite("adapted logits", logits)
            found.append(logits.argmax(-1))
        return torch.cat(found)

    def adapt_blocks(self, embeddings: Embeddings) -> Iterator[Float[Tensor, "rows classes"]]:
        """Adapted logits a block of images of the artefact's model at a time."""
        correction = self.to(embeddings.images.device).correction
        if isinstance(correction, LinearClassifier):
            for rows in embeddings.blocks(correction.classes):
                yield correction(embeddings.images[rows])
        else:
            classifier = embeddings.classifier().T
            for rows in embeddings.blocks(len(embeddings.texts)):
                yield correction(embeddings.unit_images(rows) @ classifier)

    def require_model(self, embeddings: Embeddings) -> None:
        """Raise InvalidTensorError unless embeddings are of the artefact's model, as their texts tell."""
        require_embeddings("what an artefact is used on", embeddings)
        wanted = (len(self.vocabulary), self.texts.shape[1])
        if embeddings.texts.shape != wanted:
            shapes = f"{tuple(embeddings.texts.shape)}, but those that this was made for {wanted}"
            raise InvalidTensorError(f"the text embeddings have shape {shapes}.")
        if F.cosine_similarity(self.texts.to(embeddings.texts.device), embeddings.texts).mean() < SAME_MODEL:
            raise InvalidTensorError("the text embeddings are not those of the model that this was made for.")

    def classifier(self) -> tuple[Float[Tensor, "classes width"], Float[Tensor, " classes"]]:
        """Weight and bias of the linear classifier of unit-norm embeddings that an artefact of a linear method is.

        Raises:
            ValueError: if it is an adapter, which is no linear classifier.
        """
        if isinstance(self.correction, Adapter):
            raise ValueError("an adapter is no linear classifier; what 'ridge' and 'discriminant' make is one.")
        return self.correction.weight.detach().clone(), self.correction.bias.detach().clone()

    @plain_torch()
    @torch.no_grad()
    def class_logits(self, images: Float[Tensor, "images width"]) -> Float[Tensor, "images classes"]:
        """Adapted logits of the task classes, straight from the model's image embeddings, on their device.

        Raises:
            InvalidTensorError: if these are no tensor, of another width, or hold what is not finite.
        """
        require_tensor("image embeddings", images)
        moved = self.to(images.device)
        return torch.cat(list(moved.adapt_blocks(moved.embeddings(images))))

    def embeddings(self, images: Float[Tensor, "images width"]) -> Embeddings:
        """Image embeddings of the artefact's model, with its texts and logit scale."""
        return Embeddings(images, self.texts, self.logit_scale)

    def save(self, path: str | Path) -> None:
        """Write the artefact to a file."""
        write_atomically(Path(path), self.serialized())

    def serialized(self) -> bytes:
        """What `save` writes: a safetensors file; the same artefact always gives the same bytes."""
        kind = "adapter" if isinstance(self.correction, Adapter) else "classifier"
        tensors = {f"{kind}.{name}": value for name, value in self.correction.state_dict().items()}
        tensors = {name: value.detach().cpu().contiguous() for name, value in {**tensors, "texts": self.texts}.items()}
        description = {
            "format": FORMAT,
            "stage": self.stage,
            "method": self.method,
            "logit_scale": self.logit_scale,
            "classes": self.correction.classes,
            "vocabulary": list(self.vocabulary),
            "details": dict(self.details),
        }
        return save(tensors, {METADATA_KEY: canonical_json(description)})


@contextmanager
def device_told(what: str, device: object, fix: str) -> Generator[None]:
    """Raise TransmiterError where torch cannot use a device, unless its memory is full."""
    try:
        yield
    except (SafetensorError, RuntimeError, AssertionError, TypeError) as error:
        if is_out_of_memory(error):
            raise
        raise TransmiterError(f"{what} to {str(device)!r}: {error}", fix) from error


def require_artefact(name: str, value: object) -> None:
    """Raise ValueError unless a value is an artefact, as its path is not."""
    if not isinstance(value, Artefact):
        raise ValueError(f"{name} is an Artefact, as fit, transfer and load return it, not {kind_of(value)}.")


@plain_torch()
def load(path: str | Path, device: str | torch.device = "cpu") -> Artefact:
    """Read an artefact; its `class_logits` are adapted logits of a model's image embeddings.

    Raises:
        TransmiterError: if the file is missing, damaged, no artefact, or of a later version's format, or the device is
            not there.
    """
    description = read_description(path)
    with device_told(f"{path} cannot be loaded", device, 'load(path, "cpu")'):  # the file could be read just now
        place = torch.device(device)
        with safe_open(Path(path), framework="pt", device="cpu" if place.type == "cpu" else str(place)) as file:
            # Copies: a tensor of a mapped file changes with the file, which `cp` writes in place.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    try:
        require_whole(description, tensors)
        correction, texts = read_correction(description, tensors), tensors["texts"]
        found = Artefact(
            stage=description["stage"],
            method=description["method"],
            correction=correction.to(device).eval(),
            texts=texts,
            logit_scale=description["logit_scale"],
            vocabulary=tuple(description["vocabulary"]),
            details=description["details"],
        )
    except KeyError as error:
        raise DamagedArtefactError(f"{path} is damaged: it lacks {error}.", "make it again") from error
    except (TypeError, RuntimeError, IndexError) as error:
        if is_out_of_memory(error):
            raise
        what = str(error).splitlines()[-1].strip().rstrip(".")  # torch lists all that is wrong with a state
        raise DamagedArtefactError(f"{path} is damaged: {what}.", "make it again") from error
    return found


def require_whole(description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Raise TypeError unless an artefact is of a known kind, its numbers finite, and of the size of its vocabulary."""
    for name, known in (("stage", get_args(Stage)), ("method", get_args(Method))):
        if description[name] not in known:
            raise TypeError(f"its {name} is {description[name]!r}, none of {', '.join(known)}")
    if not math.isfinite(description["logit_scale"]):
        raise TypeError(f"its logit scale is {description['logit_scale']}")
    matrices = {name: one for name, one in tensors.items() if name == "texts" or name.endswith(".basis")}
    for name, tensor in matrices.items():
        if tensor.ndim != 2:
            raise TypeError(f"{name} has shape {tuple(tensor.shape)}, and is no matrix")
    words = len(description["vocabulary"])
    sizes = {tensors["texts"].shape[0], *(one.shape[1] for name, one in tensors.items() if name.endswith(".basis"))}
    if sizes != {words}:
        raise TypeError(f"its tensors are of {' and '.join(map(str, sorted(sizes)))} words, its vocabulary has {words}")
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise TypeError(f"{name} has numbers that are not finite")


def read_correction(description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Correction:
    """The module of an artefact's tensors."""
    kind = "adapter" if description["method"] == "adapter" else "classifier"
    state = {name.removeprefix(f"{kind}."): value for name, value in tensors.items() if name.startswith(f"{kind}.")}
    if kind == "adapter":
        adapter = Adapter(state["basis"], description["classes"])
        adapter.load_state_dict(state)
        return adapter
    weight, bias, texts = state["weight"], state["bias"], tensors["texts"][: description["classes"]]
    if weight.shape != texts.shape or bias.shape != texts.shape[:1]:
        shapes = f"{tuple(weight.shape)} and {tuple(bias.shape)}"
        raise TypeError(f"weight and bias of its classifier have shapes {shapes}, its class texts {tuple(texts.shape)}")
    return LinearClassifier(Linear(weight, bias))
