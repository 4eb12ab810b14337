"""What models make of images: embeddings of them and of the vocabulary, and fine-tuned logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from transmiter_cli.embedding.encoders.prompts import Templates
from transmiter_cli.embedding.found import require_unchanged
from transmiter_cli.embedding.sources import ImageRecord, ImageSet
from transmiter_cli.embedding.workspace import CachedEncoder
from transmiter_cli.method.consensus.experts import Teacher
from transmiter_cli.method.embeddings import Embeddings
from transmiter_cli.task.finetuned import FinetunedModel


@dataclass(frozen=True)
class EncodedImages:
    """Images that could be decoded, and one model's embeddings of them and of the vocabulary."""

    images: ImageSet
    embeddings: Embeddings

    def part(self, rows: Sequence[int]) -> EncodedImages:
        """Some of the images."""
        files = tuple(self.images.files[i] for i in rows)
        return EncodedImages(replace(self.images, files=files), self.embeddings.only(torch.tensor(rows)))


def encode(encoder: CachedEncoder, images: ImageSet, vocabulary: Sequence[str], templates: Templates) -> EncodedImages:
    """One model on images and vocabulary, on the workspace's device; images that cannot be decoded are left out."""
    device = encoder.workspace.method_device
    texts = encoder.text_embeddings(vocabulary, templates)  # first: what fails here takes seconds, and images hours
    found = encoder.image_embeddings(images.files)
    embeddings = Embeddings(found.rows.to(device), texts.to(device), encoder.facts.logit_scale)
    return EncodedImages(replace(images, files=found.files), embeddings)


def encode_same(
    encoder: CachedEncoder, seen: EncodedImages, vocabulary: Sequence[str], templates: Templates
) -> EncodedImages:
    """Another model on the very images that a first one saw.

    Raises:
        TransmiterError: if it cannot read all of them, since they changed meanwhile.
    """
    encoded = encode(encoder, seen.images, vocabulary, templates)
    require_unchanged(encoded.images.files, seen.images.files)
    return encoded


def finetuned_logits(
    model: FinetunedModel, files: Sequence[ImageRecord], zero_shot: Embeddings
) -> Float[Tensor, "images classes"]:
    """A fine-tuned model on images that the zero-shot model saw which it was made of, on its device."""
    return model.logits(files, zero_shot.images.cpu()).to(zero_shot.images.device)


def as_teacher(model: FinetunedModel, files: Sequence[ImageRecord], weak: Embeddings) -> Teacher:
    """A fine-tuned model on images that the zero-shot weak model saw, with its head where it has one."""
    head = model.head()
    return Teacher(finetuned_logits(model, files, weak), weak, None if head is None else head.to(weak.images.device))
